"""MLflow, TensorBoard, trackio, Weights & Biases (offline), optuna-dashboard, DuckDB and Streamlit, really installed and started.

They are installed into an environment of their own, on top of the one that runs the tests, with the versions of
constraints.txt; where that cannot be, the tests are skipped with the reason.
"""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from following import ROW, WINNER, Growing, followed, journal_lines, mirror
from local_server import local_server
from waiting import until

from autotune.results.folder import read_results
from autotune.results.judge import front_of
from autotune.results.rows import Trial
from autotune.trackers.listener import Wanted

pytestmark = [pytest.mark.slow, pytest.mark.marathon]

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("mlflow-skinny", "tensorboard", "trackio", "wandb", "optuna-dashboard", "duckdb", "streamlit")
SERVER = ("flask", "flask-cors", "aiohttp")
"""What MLflow's server needs beside its client; the pages of the package `mlflow` need more."""
NAME = "phrase-tone-cpu"


@dataclass(frozen=True)
class Clients:
    """An environment in which the clients are installed."""

    python: Path
    packages: Path

    def read(self, code: str, *arguments: object, cwd: Path | None = None) -> Any:
        """Run code in it; return the JSON list that it prints last: a client may print a word at its exit."""
        command = [self.python, "-W", "ignore", "-c", code, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=quiet())
        assert done.returncode == 0, done.stderr
        return json.loads([line for line in done.stdout.splitlines() if line.startswith("[")][-1])


def quiet() -> dict[str, str]:
    return {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1", "WANDB_ERROR_REPORTING": "false"}


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Clients:
    place = tmp_path_factory.mktemp("clients")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n", encoding="utf-8")
    command = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", *PACKAGES, *SERVER]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"the clients could not be installed: {done.stderr.strip().splitlines()[-1]}")
    return Clients(python, packages)


class Recorder(http.server.BaseHTTPRequestHandler):
    """A proxy that remembers whoever asks it for anything."""

    asked: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("do_"):
            raise AttributeError(name)
        return self._remember

    def _remember(self) -> None:
        self.asked.append(self.path)
        self.send_error(503)

    def log_message(self, *_: Any) -> None: ...


@dataclass(frozen=True)
class Shown:
    """A sweep that was stopped and resumed, as trackers followed it."""

    growing: Growing
    storage: str

    @property
    def place(self) -> Path:
        return self.growing.folder / "trackers"

    @property
    def rows(self) -> list[Trial]:
        return [row for row in self.growing.rows if row.trial]


@pytest.fixture(scope="module")
def shown(clients: Clients, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """The example in every tracker, in two runs of the command, with a proxy in front of the network."""
    place = tmp_path_factory.mktemp("shown")
    growing, storage = Growing(place / "out"), f"sqlite:///{place / 'study.db'}"
    best = growing.folder / "best" / "onnx"
    best.mkdir(parents=True)
    (best / "model.onnx.data").write_bytes(b"x" * 1_000_000)
    every = ("mlflow", "tensorboard", "trackio", "wandb")
    with pytest.MonkeyPatch.context() as patch, local_server(Recorder) as server:
        for variable in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            patch.setenv(variable, server.url)
        for variable in ("HF_HUB_OFFLINE", "MLFLOW_TRACKING_URI", "WANDB_MODE", "TRACKIO_DIR", "WANDB_DIR"):
            patch.delenv(variable, raising=False)
        patch.setenv("HF_TOKEN", "hf_" + "Aa1" * 10)
        patch.setenv("WANDB_API_KEY", "0123456789abcdef" * 3)
        patch.setattr(sys, "path", [*sys.path, str(clients.packages)])
        with followed(growing.folder, *every, mirror(storage)) as trackers:
            growing.write(4, 50)
            trackers(ROW)
            until(lambda: all(len(journal_lines(growing.folder, name)) >= 4 for name in every))
        growing.write()
        with followed(growing.folder, *every, mirror(storage)):
            pass
    return Shown(growing, storage)


def test_nobody_was_asked_and_no_secret_was_written(shown: Shown) -> None:
    assert Recorder.asked == []
    secrets = (b"Aa1Aa1Aa1", b"0123456789abcdef0123")
    for file in shown.growing.folder.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret in content], file


def test_the_winner_is_named_and_not_copied(shown: Shown) -> None:
    sizes = [file.stat().st_size for file in shown.place.rglob("*") if file.is_file()]
    assert not [size for size in sizes if size == 1_000_000]
    assert b"x" * 1000 not in b"".join(file.read_bytes() for file in shown.place.rglob("*") if file.is_file())


@contextmanager
def served(*command: object, port: int, path: str, **variables: str) -> Iterator[str]:
    """Start a server; yield its address when it answers."""
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=quiet() | variables,
        start_new_session=True,
    ) as process:  # fmt: skip
        try:
            end = time.monotonic() + 120
            while True:
                try:
                    with urllib.request.urlopen(address + path, timeout=10):
                        break
                except OSError:
                    assert process.poll() is None, "the server has ended"
                    assert time.monotonic() < end, "the server does not answer"
                    time.sleep(0.2)
            yield address
        finally:
            import psutil

            for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                one.kill()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def ask(address: str, body: Any = None) -> Any:
    """Return what a server answers, as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def test_mlflow_serves_candidates_curves_and_files(shown: Shown, clients: Clients) -> None:
    port, file = free_port(), shown.place / "mlflow" / "mlflow.db"
    command = (clients.python, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{file}", "--port", port)
    with served(*command, "--workers", 1, port=port, path="/health") as address:
        api = f"{address}/api/2.0/mlflow"
        experiment = ask(f"{api}/experiments/get-by-name?experiment_name={NAME}")["experiment"]["experiment_id"]
        runs = ask(f"{api}/runs/search", {"experiment_ids": [experiment], "max_results": 1000})["runs"]
        adapters = [run for run in runs if run["info"]["run_name"].startswith("adapter")]
        losses = {
            run["info"]["run_id"]: ask(
                f"{api}/metrics/get-history?run_id={run['info']['run_id']}&metric_key=train_loss&max_results=1000"
            )["metrics"]
            for run in adapters
        }
        (sweep,) = [run for run in runs if run["info"]["run_name"] == NAME]
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
    found = {tag["candidate"]: run for run, tag in zip(runs, tags, strict=True) if tag.get("trial", "0") != "0"}
    assert set(found) == {row.candidate for row in shown.rows}
    assert len(runs) == len(shown.rows) + 1 + 4 + 1, "a run is there twice"
    for row in shown.rows:
        run = found[row.candidate]
        metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
        params = {param["key"]: param["value"] for param in run["data"]["params"]}
        assert metrics["accuracy"] == pytest.approx(row["accuracy"])
        assert metrics["itl_ms_p50_high"] == pytest.approx(row["itl_ms_p50_high"])
        assert params["lora_r"] == str(row["lora_r"])
        assert run["info"]["status"] == "FINISHED"
    assert sorted(len(points) for points in losses.values()) == [40] * 4
    steps = [point["step"] for points in losses.values() for point in points]
    assert sorted(steps) == sorted(list(range(1, 41)) * 4)
    about = {tag["key"]: tag["value"] for tag in sweep["data"]["tags"]}
    assert about["winner"] == WINNER
    assert about["best"] == (shown.growing.folder / "best").resolve().as_uri()
    assert sweep["info"]["status"] == "FINISHED"
    kept = {path.name for path in (shown.place / "mlflow" / "artifacts").rglob("*") if path.is_file()}
    assert kept == {"results.csv", "pareto.svg", "finalists.csv", "sweep.yaml"}


def test_tensorboard_serves_scalars_and_hyperparameters(shown: Shown, clients: Clients) -> None:
    port = free_port()
    command = (clients.python, "-m", "tensorboard.main", "--logdir", shown.place / "tensorboard", "--port", port)
    with served(*command, port=port, path="/data/environment") as address:
        wanted = len(shown.rows) + 1 + 4 + 1
        until(lambda: len(ask(f"{address}/data/runs")) == wanted)
        tags = ask(f"{address}/data/plugin/scalars/tags")
        losses = [
            ask(f"{address}/data/plugin/scalars/scalars?run={run}&tag=train_loss")
            for run in tags
            if run.startswith("adapters/")
        ]
        groups = ask(
            f"{address}/data/plugin/hparams/session_groups",
            {
                "experimentName": "",
                "allowedStatuses": ["STATUS_SUCCESS"],
                "colParams": [],
                "startIndex": 0,
                "sliceSize": 100,
            },
        )["sessionGroups"]
    assert sorted(len(points) for points in losses) == [40] * 4
    assert all("accuracy" in tags[f"candidates/{row.candidate}"] for row in shown.rows)
    found = {group["name"]: group["hparams"] for group in groups}
    assert {row.candidate for row in shown.rows} <= set(found)
    assert all(found[row.candidate]["lora_r"] == row["lora_r"] for row in shown.rows)
    assert all(found[row.candidate]["status"] == "ok" for row in shown.rows)


def test_trackio_serves_runs_and_their_numbers(shown: Shown, clients: Clients) -> None:
    port = free_port()
    code = "from trackio.cli import main; main()"
    command = (clients.python, "-c", code, "show", "--project", NAME)
    variables = {"TRACKIO_DIR": str(shown.place / "trackio"), "GRADIO_SERVER_PORT": str(port), "BROWSER": "true"}
    with served(*command, port=port, path="/version", **variables) as address:
        runs = ask(f"{address}/api/get_runs_for_project", {"project": NAME})["data"]
        names = [run["name"] for run in runs]

        def numbers(run: str, metric: str) -> list[Any]:
            asked = {"project": NAME, "run": run, "metric_name": metric}
            return [point["value"] for point in ask(f"{address}/api/get_metric_values", asked)["data"]]

        key = (shown.place / "key").read_text(encoding="utf-8")[:6]
        accuracies = {row.candidate: numbers(f"{row.candidate}-{key}", "accuracy") for row in shown.rows}
        losses = [numbers(name, "train_loss") for name in names if name.startswith("adapter-")]
    assert len(names) == len(set(names)) == len(shown.rows) + 1 + 4 + 1
    assert accuracies == {row.candidate: [pytest.approx(row["accuracy"])] for row in shown.rows}
    assert sorted(len(points) for points in losses) == [40] * 4
    code = """
import json, sys, trackio
run = trackio.init(sys.argv[1], name="reader", embed=False, auto_log_cpu=False, auto_log_gpu=False)
found = trackio.use_artifact(f"{sys.argv[1]}-results:latest")
run.finish()
print(json.dumps([entry if isinstance(entry, str) else str(entry) for entry in found.manifest]))
"""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(shown.place / "trackio"))
        manifest = json.dumps(clients.read(code, NAME))
    assert "results.csv" in manifest
    assert "pareto.svg" in manifest


RECORDS = """
import json, struct, sys
from pathlib import Path
from wandb.proto import wandb_internal_pb2

def records(file):
    # Records of LevelDB's log format behind a head of 7 bytes: blocks of 32 KiB, each record in one part or several.
    data, place, parts = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""

found = []
for file in sorted(Path(sys.argv[1]).glob("offline-run-*/run-*.wandb")):
    run = {"config": {}, "history": [], "summary": {}, "files": []}
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run |= {"id": record.run.run_id, "name": record.run.display_name, "project": record.run.project, "group": record.run.run_group, "job": record.run.job_type}
            run["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            run["history"].append({(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            run["summary"] |= {(item.key or ".".join(item.nested_key)): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            run["files"] += [(entry.path, entry.ref) for entry in record.artifact.manifest.contents]
        elif kind == "exit":
            run["exit"] = record.exit.exit_code
    found.append(run)
print(json.dumps(found))
"""


def test_the_files_of_wandb_hold_runs_curves_and_files(shown: Shown, clients: Clients) -> None:
    runs = clients.read(RECORDS, shown.place / "wandb")
    assert {run["project"] for run in runs} == {NAME}
    assert len({run["group"] for run in runs}) == 1
    candidates = [run for run in runs if run["job"] == "candidate" and run["config"]["trial"] != "0"]
    found = {run["config"]["candidate"]: run for run in candidates}
    assert len(candidates) == len(found) == len(shown.rows), "a candidate is there twice"
    for row in shown.rows:
        run = found[row.candidate]
        assert run["config"]["lora_r"] == row["lora_r"]
        assert run["summary"]["status"] == "ok"
        ((numbers),) = run["history"]
        assert numbers["accuracy"] == pytest.approx(row["accuracy"])
        assert run["exit"] == 0
    curves: dict[str, list[int]] = {}
    for run in runs:
        if run["job"] == "adapter":
            curves.setdefault(run["id"], []).extend(point["train_step"] for point in run["history"])
    assert sorted(curves.values()) == [list(range(1, 41))] * 4
    sweeps = [run for run in runs if run["job"] == "sweep"]
    assert len({run["id"] for run in sweeps}) == 1
    assert sweeps[-1]["summary"]["winner/candidate"] == WINNER
    assert {path for path, _ in sweeps[-1]["files"]} >= {"results.csv", "pareto.svg"}
    best = (shown.growing.folder / "best" / "onnx" / "model.onnx.data").resolve().as_uri()
    assert [ref for _, ref in sweeps[-1]["files"] if ref] == [best], "the winner's folder is a reference"


def test_optuna_dashboard_serves_the_study(shown: Shown, clients: Clients) -> None:
    port = free_port()
    code = "from optuna_dashboard._cli import main; main()"
    with served(clients.python, "-c", code, shown.storage, "--port", port, port=port, path="/api/meta") as address:
        (summary,) = ask(f"{address}/api/studies")["study_summaries"]
        study = ask(f"{address}/api/studies/{summary['study_id']}")
    assert summary["study_name"] == NAME
    assert study["objective_names"] == ["accuracy", "itl_ms_p50", "size_mb"]
    assert study["directions"] == ["maximize", "minimize", "minimize"]
    assert len(study["trials"]) == len(shown.rows)
    assert {trial["state"] for trial in study["trials"]} == {"Complete"}
    for trial in study["trials"]:
        said = {attribute["key"]: attribute["value"].strip('"') for attribute in trial["user_attrs"]}
        row = next(row for row in shown.rows if row.candidate == said["candidate"])
        assert trial["values"] == pytest.approx([row["accuracy"], row["itl_ms_p50"], row["size_mb"]])
        params = {param["name"]: param["param_external_value"] for param in trial["params"]}
        assert params["r"] == str(row["lora_r"])
        assert len(trial["constraints"]) == 2
        assert (trial["constraints"][1] <= 0) == ((row.number("size_mb") or 0) <= 200)
    kinds = {param["name"]: param["distribution"]["type"] for param in study["trials"][0]["params"]}
    assert kinds == {
        "r": "CategoricalDistribution",
        "learning_rate": "FloatDistribution",
        "recipe": "CategoricalDistribution",
    }


# --- The examples of results/dashboards/ -----------------------------------------------------------------------------


def test_the_sql_for_duckdb_gives_the_front(clients: Clients) -> None:
    page = (ROOT / "results" / "dashboards" / "README.md").read_text(encoding="utf-8")
    query = page.split("```sql\n")[1].split("```")[0]
    code = "import duckdb, json, sys; print(json.dumps([row[0] for row in duckdb.sql(sys.argv[1]).fetchall()]))"
    rows = [row for row in read_results(ROOT / "results" / "example") if row.trial]
    front = front_of(rows, {"accuracy": "maximize", "itl_ms_p50": "minimize", "size_mb": "minimize"})
    wanted = sorted(front, key=lambda row: -(row.number("accuracy") or 0))
    assert clients.read(code, query, cwd=ROOT) == [row.candidate for row in wanted]


def test_the_page_for_streamlit_shows_candidates_and_takes_limits(clients: Clients) -> None:
    code = """
import json, sys
from streamlit.testing.v1 import AppTest

sys.argv = ["streamlit_app.py", "results/example"]
page = AppTest.from_file("results/dashboards/streamlit_app.py", default_timeout=60).run()
assert not page.exception, page.exception
before = [len(page.dataframe[0].value), page.metric[2].value]
page.sidebar.slider[0].set_value(200.0).run()
assert not page.exception, page.exception
after = [len(page.dataframe[0].value), page.metric[2].value]
print(json.dumps([page.title[0].value, before, after]))
"""
    rows = [row for row in read_results(ROOT / "results" / "example") if row.trial]
    small = [row for row in rows if (row.number("size_mb") or 0) <= 200]
    best = [f"{max(row.number('accuracy') or 0 for row in some):.3f}" for some in (rows, small)]
    assert clients.read(code, cwd=ROOT) == ["example", [len(rows), best[0]], [len(small), best[1]]]


def test_a_server_that_is_named_gets_the_sweep_and_one_that_is_down_costs_a_warning(
    clients: Clients, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(clients.packages)])
    growing, port = Growing(tmp_path / "out"), free_port()
    growing.write(6, 40)
    with (growing.folder / "sweep.yaml").open("a", encoding="utf-8") as stream:  # more than one request takes
        stream.write(f"many: {json.dumps({f'key_{n}': n for n in range(250)})}\n")
    store = (
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination",
        tmp_path / "files",
    )
    command = (clients.python, "-m", "mlflow", "server", *store, "--port", port, "--workers", 1)
    with served(*command, port=port, path="/health") as address:
        with followed(growing.folder, Wanted("mlflow", {"uri": address, "experiment": "tones"})):
            pass
        api = f"{address}/api/2.0/mlflow"
        experiment = ask(f"{api}/experiments/get-by-name?experiment_name=tones")["experiment"]["experiment_id"]
        runs = ask(f"{api}/runs/search", {"experiment_ids": [experiment], "max_results": 1000})["runs"]
    assert len([run for run in runs if run["info"]["run_name"].startswith("trial")]) == 4
    (params,) = [run["data"]["params"] for run in runs if run["info"]["run_name"] == NAME]
    assert {f"many.key_{n}" for n in range(250)} <= {param["key"] for param in params}
    assert len([run for run in runs if run["info"]["run_name"].startswith("adapter")]) == 1
    assert list((tmp_path / "files").rglob("results.csv"))
    assert not (growing.folder / "trackers" / "mlflow").exists()
    said: list[str] = []
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with followed(growing.folder, "mlflow", said=said):
        pass
    assert len(said) == 1
    assert said[0].startswith("mlflow: ")
    assert "the sweep goes on without it" in said[0]
