"""Whole sweeps on the tiny model, from the command line to the files that the contract promises.

Nothing is faked: every stage runs. Sweeps share one cache, as they do on a user's machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnxruntime_genai as og
import pandas as pd
import psutil
import pytest
import yaml
from conftest import TONES
from peft import PeftConfig
from waiting import HANG_S

from autotune.artifacts.store import Cache
from autotune.cli import main
from autotune.errors import Exit
from autotune.results.columns import COLUMNS, CURVES, FINALISTS
from autotune.strategies.frontier.cost_model import CostModel
from benchmarks.fidelity import edit, scrambled
from benchmarks.search import live

pytestmark = pytest.mark.usefixtures("lasting_pace")

FILES = ("sweep.yaml", "machine.json", "results.csv", "curves.csv", "finalists.csv", "front.csv")


def rows(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"text": f"{n} " + "on it goes " * (n % 3) + f"I felt {TONES[n % 4]} today", "tone": TONES[n % 4]}
        for n in range(start, start + count)
    ]


@dataclass(frozen=True)
class Ran:
    """What one command did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, as a user has it."""
    folder = tmp_path_factory.mktemp("sweeps")
    for split, start, count in (("train", 0, 24), ("validation", 100, 24), ("test", 200, 12)):
        lines = "".join(json.dumps(row) + "\n" for row in rows(count, start))
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    pd.DataFrame(rows(24)).to_parquet(folder / "train.parquet")
    return folder


DATA = {
    "train": "train.jsonl", "validation": "validation.jsonl", "test": "test.jsonl",
    "prompt": "Text: {text}\nTone:", "completion": " {tone}",
}  # fmt: skip
LORA = {"r": {"choice": [2, 4]}, "learning_rate": 1e-2, "steps": 3, "batch_size": 4}
INT4 = {"precision": "int4"}


@pytest.fixture(scope="module")
def write(place: Path, tiny_llama: Path) -> Callable[..., Path]:
    """Write a sweep file: `write("name", limits=[...])`."""

    def make(name: str, **changes: Any) -> Path:
        sweep = {
            "name": name,
            "model": str(tiny_llama),
            "data": DATA,
            "train": {"max_length": 64},
            "target": {
                "provider": "cpu",
                "threads": 1,
                "workload": {"prompt_tokens": 4, "new_tokens": 5},
                "timing": {"processes": 2, "most": 2, "repeats": 0},
            },
            "space": {"lora": LORA, "build": [{"precision": "fp32"}, INT4]},
            "strategy": "tpe",
            "budget": {"trials": 3},
        }
        file = place / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**sweep, **changes}), encoding="utf-8")
        return file

    return make


def command(*arguments: object) -> int:
    """Run a command in this process, which keeps its own handler of signals."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        return main([str(argument) for argument in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def autotune(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command in this process: `autotune("status", folder)`."""

    def run(*arguments: object) -> Ran:
        capfd.readouterr()
        code = command(*arguments)
        seen = capfd.readouterr()
        return Ran(code, seen.out, seen.err)

    return run


def table(folder: Path, name: str = "results.csv") -> pd.DataFrame:
    return pd.read_csv(folder / name, dtype={"candidate": str})


def adapters(cache_root: Path) -> set[str]:
    return {path.name for path in (cache_root / "finetune").glob("[0-9a-f]*") if path.is_dir()}


def loads(folder: Path) -> None:
    """Load the winner and generate from it, as a user would."""
    model = og.Model(str(folder))
    tokenizer = og.Tokenizer(model)
    parameters = og.GeneratorParams(model)
    parameters.set_search_options(max_length=12)
    generator = og.Generator(model, parameters)
    generator.append_tokens(tokenizer.encode("Text: a\nTone:")[:8])
    generator.generate_next_token()


# --- One sweep and the commands on it -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(write: Callable[..., Path], place: Path, cache_root: Path) -> tuple[Path, Path, int, set[str]]:
    """Run a sweep once: its file, its folder, its exit code, the adapters that it trained."""
    before = adapters(cache_root)
    file, out = write("first", limits=["size_mb <= 100"]), place / "first"
    code = command("run", file, "--out", out)
    return file, out, code, adapters(cache_root) - before


def test_a_sweep_leaves_what_the_contract_names(swept: tuple[Path, Path, int, set[str]]) -> None:
    _, out, code, _ = swept
    assert code == Exit.OK
    assert {name for name in FILES if not (out / name).is_file()} == set()
    assert [c.name for c in COLUMNS] == list(table(out).columns)
    assert [c.name for c in CURVES] == list(table(out, "curves.csv").columns)
    assert [c.name for c in FINALISTS] == list(table(out, "finalists.csv").columns)

    found = table(out)
    assert found["trial"].tolist() == [0, 1, 2, 3]
    assert set(found["status"]) == {"ok"}
    assert found["kind"].tolist() == ["base", "pair", "pair", "pair"]
    measured = [
        "accuracy", "accuracy_low", "accuracy_high", "ttft_ms_p50", "itl_ms_p50", "itl_ms_p50_low", "itl_ms_p90",
        "decode_tps", "size_mb", "peak_memory_mb", "load_s", "graph", "kl_nats", "greedy_agreement",
    ]  # fmt: skip
    assert not found[measured].isna().any().any()
    assert set(found["accuracy_n"]) == {24}
    assert set(found["check_items"]) == {8}
    assert ((found["accuracy_low"] <= found["accuracy"]) & (found["accuracy"] <= found["accuracy_high"])).all()

    logs = {path.stem.split(".")[0] for path in (out / "logs").glob("*.log")}
    assert set(found["candidate"]) <= logs
    outcomes = {path.stem for path in (out / "outcomes").glob("*.json")}
    assert set(found["candidate"]) <= outcomes
    assert len(json.loads((out / "outcomes" / "items.validation.json").read_text(encoding="utf-8"))) == 24
    assert not (out / "running.json").exists()


def test_its_winner_is_scored_on_test_and_can_be_loaded(swept: tuple[Path, Path, int, set[str]]) -> None:
    _, out, _, _ = swept
    finalists = table(out, "finalists.csv")
    finalists = finalists[finalists["role"] != "rival"]  # timed only; whether there is one is up to the timings
    assert finalists["role"].tolist() == ["winner", "base"]
    assert set(finalists["split"]) == {"test"}
    assert set(finalists["accuracy_n"]) == {12}
    best = json.loads((out / "best" / "candidate.json").read_text(encoding="utf-8"))
    assert best["candidate"] == finalists["candidate"][0]
    assert best["candidate"] in set(table(out, "front.csv")["candidate"])
    loads(out / "best" / "onnx")
    assert PeftConfig.from_pretrained(out / "best" / "adapter").r in (2, 4)
    shipped = {path.name for path in (out / "best").rglob("*")}
    assert not shipped & {"manifest.json", "optimizer.safetensors", "state.json"}


def test_nothing_is_trained_or_timed_twice(swept: tuple[Path, Path, int, set[str]], cache_root: Path) -> None:
    _, out, _, trained = swept
    found = table(out)
    pairs = found[found["kind"] == "pair"]
    assert trained == set(pairs["adapter"])
    assert pairs["cost_train_s"].notna().sum() == len(trained)
    assert found["cost_time_s"].notna().sum() <= found["graph"].nunique()
    assert (found["cost_check_s"].notna() != found["cached"].fillna("").str.contains("check")).all()
    curve = table(out, "curves.csv")
    assert set(curve["adapter"]) == trained
    assert (curve.groupby("adapter")["step"].apply(list).apply(lambda steps: steps == [1, 2, 3])).all()
    for _, same in found.groupby("graph"):
        assert same["itl_ms_p50"].nunique() == 1


def test_running_it_again_does_nothing_more(
    swept: tuple[Path, Path, int, set[str]], autotune: Callable[..., Ran], cache_root: Path
) -> None:
    file, out, _, _ = swept
    before, trained = (out / "results.csv").read_bytes(), adapters(cache_root)
    again = autotune("run", file, "--out", out)
    assert again.code == Exit.OK
    assert (out / "results.csv").read_bytes() == before
    assert adapters(cache_root) == trained
    assert again.out.startswith("Winner: ")
    assert "budget.trials is reached" in again.err


def test_commands_on_its_folder_agree(swept: tuple[Path, Path, int, set[str]], autotune: Callable[..., Ran]) -> None:
    file, out, _, _ = swept
    best = json.loads((out / "best" / "candidate.json").read_text(encoding="utf-8"))["candidate"]
    selected = json.loads(autotune("select", out, "--json").out)
    assert selected["winner"]["candidate"] == best
    assert selected["paired"] is True
    lone = json.loads(autotune("select", out / "results.csv", "--json").out)
    assert lone["paired"] is False
    small = json.loads(autotune("select", out, "--prefer", "size_mb", "--limit", "size_mb <= 1000", "--json").out)
    assert small["winner"]["size_mb"] == table(out)["size_mb"].min()
    none = autotune("select", out, "--limit", "size_mb <= 0.001")
    assert none.code == Exit.NO_FEASIBLE
    assert "misses 'size_mb <= 0.001' by" in none.out

    status = json.loads(autotune("status", out, "--json").out)
    assert (status["state"], status["trials_done"], status["trials_budget"]) == ("stopped", 3, 3)
    assert status["best"]["candidate"] == best
    assert autotune("status", out).code == Exit.OK
    plan = autotune("plan", file, "--json")
    assert plan.code == Exit.OK
    json.loads(plan.out)

    card = autotune("bench", out / "best" / "onnx", "--processes", 2, "--threads", 1, "--new-tokens", 4, "--json")
    assert card.code == Exit.OK
    assert json.loads(card.out)["itl_ms_p50"] > 0


def test_more_trials_go_on_where_it_stopped(
    swept: tuple[Path, Path, int, set[str]], autotune: Callable[..., Ran], place: Path, cache_root: Path
) -> None:
    file, out, _, _ = swept
    copy = place / "copy"
    shutil.copytree(out, copy)
    more = autotune("run", file, "--out", copy, "--trials", 4)
    assert more.code == Exit.OK
    found, before = table(copy), table(out)
    assert found["trial"].tolist() == [0, 1, 2, 3, 4]
    assert found["candidate"].nunique() == 5  # the whole space, and the untouched model
    pd.testing.assert_frame_equal(found[:4], before)


def test_another_sweep_in_its_folder_is_refused(
    swept: tuple[Path, Path, int, set[str]], write: Callable[..., Path], autotune: Callable[..., Ran]
) -> None:
    _, out, _, _ = swept
    other = write("other", data={**DATA, "prompt": "Say: {text}\nTone:"})
    before = (out / "results.csv").read_bytes()
    refused = autotune("run", other, "--out", out)
    assert refused.code == Exit.USAGE
    assert "differs" in refused.err
    assert (out / "results.csv").read_bytes() == before


# --- Other sweeps -------------------------------------------------------------------------------------------------


def test_without_build_adapters_are_chosen_in_pytorch(
    write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]
) -> None:
    file = write("adapters", space={"lora": LORA}, budget={"trials": 2})
    out = place / "adapters"
    assert autotune("run", file, "--out", out).code == Exit.OK
    found = table(out)
    assert found["kind"].tolist() == ["base", "adapter", "adapter"]
    assert found["accuracy"].notna().all()
    assert found[["size_mb", "itl_ms_p50", "graph", "kl_nats", "check_items", "cost_check_s"]].isna().all().all()
    assert {path.name for path in (out / "best").iterdir()} == {"adapter", "candidate.json"}


def test_without_lora_the_untouched_model_is_optimised(
    write: Callable[..., Path], place: Path, autotune: Callable[..., Ran], cache_root: Path
) -> None:
    before = adapters(cache_root)
    recipes = [{"precision": "fp32"}, {"precision": ["int8", "int4"]}]
    file = write("recipes", space={"build": recipes}, budget={"trials": 9}, strategy="grid")
    out = place / "recipes"
    ran = autotune("run", file, "--out", out)
    assert ran.code == Exit.OK
    assert "every candidate is done" in ran.err
    found = table(out)
    assert set(found["kind"]) == {"base"}
    assert sorted(found[found["trial"] > 0]["build_precision"]) == ["fp32", "int4", "int8"]
    assert adapters(cache_root) == before
    assert {path.name for path in (out / "best").iterdir()} == {"onnx", "candidate.json", "load.py"}
    loads(out / "best" / "onnx")


def test_chat_messages_and_exact_match_on_qwen2(
    write: Callable[..., Path], place: Path, autotune: Callable[..., Ran], tiny_qwen2: Path
) -> None:
    messages = [
        {"role": "system", "content": "Name the tone."},
        {"role": "user", "content": "{text}"},
        {"role": "assistant", "content": "{tone}"},
    ]
    file = write(
        "chat",
        model=str(tiny_qwen2),
        data={"train": "train.jsonl", "holdout": 0.25, "messages": messages, "metric": "exact_match"},
        space={"lora": {**LORA, "r": 8, "steps": 60, "batch_size": 8}, "build": [INT4]},
        budget={"trials": 1},
    )
    out = place / "chat"
    assert autotune("run", file, "--out", out).code == Exit.OK
    base, *_, pair = table(out).to_dict("records")  # between them, the untouched model in the recipe
    assert (base["status"], pair["status"]) == ("ok", "ok")
    assert base["exact_match"] == 0
    assert pair["exact_match"] > 0.4
    assert pair["prompts_cut"] == pair["train_cut"] == 0
    winner = pd.read_csv(out / "finalists.csv").iloc[0]
    assert bool(winner["verified"])
    assert winner["verified_items"] > 0
    assert set(table(out, "finalists.csv")["split"].dropna()) == {"validation"}


@pytest.mark.slow
def test_perplexity_on_parquet(write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]) -> None:
    data = {**DATA, "train": "train.parquet", "metric": "perplexity", "max_items": {"validation": 10}}
    file = write("perplexity", data=data, space={"lora": {**LORA, "r": 4}, "build": [INT4]}, budget={"trials": 1})
    out = place / "perplexity"
    assert autotune("run", file, "--out", out).code == Exit.OK
    base, *_, pair = table(out).to_dict("records")  # between them, the untouched model in the recipe
    assert pair["perplexity"] < base["perplexity"]
    assert pair["perplexity_low"] < pair["perplexity"] < pair["perplexity_high"]
    assert pair["perplexity_n"] == 10


@pytest.mark.slow
def test_f1_on_a_holdout_with_labels_of_many_tokens(
    write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]
) -> None:
    data = {
        "train": "train.jsonl", "holdout": 0.25, "test_holdout": 0.25, "prompt": "Text: {text}\nTone:",
        "completion": " a tone of {tone}", "metric": "f1",
    }  # fmt: skip
    file = write(
        "f1", data=data, space={"lora": {**LORA, "r": 4}, "build": [{"precision": "int8"}]}, budget={"trials": 1}
    )
    out = place / "f1"
    assert autotune("run", file, "--out", out).code == Exit.OK
    found = table(out)
    assert set(found["status"]) == {"ok"}
    assert found["f1"].between(0, 1).all()
    finalists = table(out, "finalists.csv").dropna(subset="split")
    assert set(finalists["split"]) == {"test"}
    assert found["f1_n"][0] + finalists["f1_n"][0] < 24


# --- Sweeps without a winner --------------------------------------------------------------------------------------


def test_a_limit_that_nobody_keeps(write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]) -> None:
    space = {"lora": {**LORA, "r": 2, "steps": 1}, "build": [INT4]}
    file = write("nobody", limits=["accuracy >= 1.0"], space=space, budget={"trials": 1})
    out = place / "nobody"
    ran = autotune("run", file, "--out", out)
    assert ran.code == Exit.NO_FEASIBLE
    assert "misses 'accuracy >= 1.0' by" in ran.out
    assert not (out / "best").exists()
    assert autotune("select", out).code == Exit.NO_FEASIBLE


def test_a_limit_that_is_certain_to_break_ends_a_candidate_before_it_is_timed(
    write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]
) -> None:
    file = write("large", limits=["size_mb <= 0.001"], budget={"trials": 3})
    out = place / "large"
    assert autotune("run", file, "--out", out).code != Exit.OK
    found = table(out)
    assert found["status"].tolist() == ["ok", "over_limit", "over_limit", "over_limit"]
    assert found["error"][1:].str.startswith("size_mb <= 0.001 cannot be kept: size_mb is").all()
    assert found[["accuracy", "cost_time_s"]][1:].isna().all().all()


def test_candidates_that_all_fail(write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]) -> None:
    lora = {**LORA, "learning_rate": 0.0123}  # of no other test: what is in the cache takes no time
    changes = {"train": {"max_length": 64, "time_limit_s": 0.001}, "space": {"lora": lora, "build": [INT4]}}
    file = write("failing", budget={"trials": 2}, **changes)
    out = place / "failing"
    ran = autotune("run", file, "--out", out)
    assert ran.code == Exit.NO_RESULT
    found = table(out)
    assert found["status"].tolist() == ["ok", "timeout", "timeout"]
    assert found["error"][1].startswith("training passed train.time_limit_s = 0.001 at step 1")
    assert found[["accuracy", "itl_ms_p50", "size_mb"]][1:].isna().all().all()
    assert not (out / "best").exists()
    assert json.loads(autotune("status", out, "--json").out)["status_counts"] == {"timeout": 2}


def test_a_target_module_that_the_model_lacks_is_refused_before_anything_runs(
    write: Callable[..., Path], place: Path, autotune: Callable[..., Ran]
) -> None:
    file = write("no-module", space={"lora": {**LORA, "target_modules": ["no_such_module"]}, "build": [INT4]})
    ran = autotune("run", file, "--out", place / "no-module")
    assert ran.code == Exit.USAGE
    assert "no_such_module" in ran.err
    assert "q_proj" in ran.err


@pytest.mark.slow
def test_a_build_that_was_tampered_with_is_a_failed_row(
    write: Callable[..., Path],
    place: Path,
    autotune: Callable[..., Ran],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path))
    changes: dict[str, Any] = {"space": {"build": [INT4]}, "budget": {"trials": 1}, "strategy": "grid"}
    assert autotune("run", write("sound", **changes), "--out", place / "sound").code == Exit.OK
    sound = table(place / "sound").iloc[1]
    shutil.rmtree(tmp_path / "check")
    manifests = {p.parent: json.loads(p.read_text(encoding="utf-8")) for p in tmp_path.glob("build/*/manifest.json")}
    build, manifest = next(one for one in manifests.items() if one[1]["result"]["signature"] == sound["graph"])
    assert edit(build, scrambled, "layers.1.mlp.up_proj.MatMul.weight_Q4")
    # As if it had been built so: what is damaged afterwards the cache finds by itself.
    manifest["files"]["model.onnx.data"]["sha256"] = sha256((build / "model.onnx.data").read_bytes()).hexdigest()
    (build / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    ran = autotune("run", write("tampered", **changes), "--out", place / "tampered")
    assert ran.code == Exit.NO_RESULT
    row = table(place / "tampered").iloc[1]
    assert row["status"] == "failed"
    assert "/model/layers.1/mlp/up_proj/MatMul_Q4 differs by" in row["error"]
    assert row["kl_nats"] > sound["kl_nats"]
    assert row[["accuracy", "itl_ms_p50"]].isna().all()
    # What was damaged in the cache is not found there again.
    assert autotune("run", write("again", **changes), "--out", place / "again").code == Exit.OK
    assert table(place / "again").iloc[1]["kl_nats"] == sound["kl_nats"]


# --- Interrupted --------------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send")
@pytest.mark.slow
def test_a_sweep_that_is_ended_goes_on_when_it_is_run_again(write: Callable[..., Path], place: Path) -> None:
    many = {**LORA, "learning_rate": {"loguniform": [1e-3, 1e-2]}, "steps": 20}
    file = write("ended", space={"lora": many, "build": [INT4]}, budget={"trials": 60})
    out = place / "ended"
    command = [sys.executable, "-m", "autotune", "run", str(file), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ, text=True)
    deadline = time.monotonic() + HANG_S
    while not ((out / "results.csv").exists() and len(table(out)) >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=HANG_S)
    assert process.returncode == Exit.INTERRUPTED
    assert "interrupted; run the same command again to go on" in said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(children, timeout=HANG_S)
    assert not alive
    assert not (out / "running.json").exists()

    before = (out / "results.csv").read_text(encoding="utf-8")
    done = len(table(out)) - 1
    again = subprocess.run([*command, "--trials", str(done + 1)], env=os.environ, capture_output=True, check=False)
    assert again.returncode == Exit.OK, again.stderr.decode()
    assert (out / "results.csv").read_text(encoding="utf-8").startswith(before)
    assert table(out)["trial"].tolist() == list(range(done + 2))
    assert not list(Cache(Path(os.environ["AUTOTUNE_CACHE"])).root.glob("*/.*-*"))  # nothing half-made is left


# --- How a build is served, and what it is asked for -----------------------------------------------------------------

SERVED: dict[str, Any] = {
    "target": {
        "provider": "cpu", "threads": 2,
        "workloads": {"chat": {"prompt_tokens": "data", "new_tokens": "data"}, "long": {"prompt_tokens": 64, "new_tokens": 3}},
        "timing": {"repeats": 0},
    },
    "space": {"build": [INT4], "session": [{}, {"threads": 1, "arena": False}]},
    "objectives": {"peak_memory_mb@long": "minimize", "accuracy": "maximize"},
    "limits": ["itl_ms_p50@long <= 1000"],
}  # fmt: skip


@pytest.fixture(scope="module")
def served(write: Callable[..., Path], place: Path) -> tuple[Path, Path, int]:
    """Run a sweep of sessions in two workloads once: its file, its folder, its exit code."""
    file, out = write("served", **SERVED), place / "served"
    return file, out, command("run", file, "--out", out)


def test_sessions_and_workloads_are_measured(served: tuple[Path, Path, int], autotune: Callable[..., Ran]) -> None:
    file, out, code = served
    assert code == Exit.OK
    found = table(out)
    assert found["kind"].tolist() == ["base", "base", "base"]
    assert found["threads"].tolist() == [2, *(2 if pd.isna(n) else 1 for n in found["session_threads"][1:])]
    assert sorted(found["session_threads"].dropna()) == [1]
    assert found["session_arena"].dropna().tolist() == [False]
    assert found["gpu_memory_mb"].isna().all()
    for name in ("itl_ms_p50", "itl_ms_p50@long", "itl_ms_p50_low@long", "peak_memory_mb@long", "ttft_ms_p50@long"):
        assert (found[name] > 0).all()
    assert found["accuracy"][1] == found["accuracy"][2], "a build is scored once"
    assert list(table(out, "front.csv").columns) == list(found.columns)
    again = autotune("run", file, "--out", out)
    assert (again.code, len(table(out))) == (Exit.OK, 3)


def test_commands_know_its_workloads(
    served: tuple[Path, Path, int], autotune: Callable[..., Ran], tmp_path: Path
) -> None:
    _, out, _ = served
    status = autotune("status", out)
    assert (status.code, "peak_memory_mb@long" in status.out) == (Exit.OK, True)
    alone = tmp_path / "results.csv"
    shutil.copy(out / "results.csv", alone)
    chosen = autotune("select", alone, "--limit", "itl_ms_p50@long <= 1000", "--prefer", "ttft_ms_p50@long", "--json")
    assert chosen.code == Exit.OK
    assert json.loads(chosen.out)["winner"]["ttft_ms_p50@long"] > 0
    assert autotune("select", out, "--limit", "itl_ms_p50@long <= 0.000001").code == Exit.NO_FEASIBLE


def test_the_winner_is_shipped_as_it_was_served(served: tuple[Path, Path, int], autotune: Callable[..., Ran]) -> None:
    _, out, _ = served
    best = json.loads((out / "best" / "candidate.json").read_text(encoding="utf-8"))
    asked = best["session"]
    assert asked in ({"threads": 2}, {"threads": 1, "arena": False})
    options = json.loads((out / "best" / "onnx" / "genai_config.json").read_text(encoding="utf-8"))["model"]["decoder"]
    assert options["session_options"]["intra_op_num_threads"] == asked["threads"]
    assert options["session_options"].get("enable_cpu_mem_arena") == asked.get("arena")
    loads(out / "best" / "onnx")
    small = ("--prompt-tokens", 4, "--new-tokens", 5, "--processes", 1, "--json")
    card = autotune("bench", out / "best" / "onnx", *small)
    assert json.loads(card.out)["threads"] == asked["threads"], "its own settings say so"
    card = autotune("bench", out / "best" / "onnx", "--threads", 3, "--arena", "on", *small)
    assert (json.loads(card.out)["threads"], json.loads(card.out)["arena"]) == (3, True)


@pytest.mark.slow
def test_frontier_climbs_rungs_from_checkpoints_and_crosses(
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small a model is trained in no time, and nobody would look first.
    monkeypatch.setattr(CostModel, "training", lambda self, work: 1000.0 * work)
    lora = {"r": {"choice": [2, 4]}, "learning_rate": {"choice": [1e-4, 1e-3, 1e-2]}, "steps": 9, "batch_size": 4}
    file = write(
        "climbing",
        strategy="frontier",
        space={"lora": lora, "build": [{"precision": "fp32"}, INT4]},
        objectives={"accuracy": "maximize", "size_mb": "minimize"},
        budget={"trials": 5},
    )
    assert command("run", file, "--out", tmp_path / "r") == 0
    assert command("run", file, "--out", tmp_path / "r", "--trials", "7") == 0
    table = pd.read_csv(tmp_path / "r" / "results.csv")
    assert table[table.trial > 0].trial.nunique() == 7
    stopped = table[(table.status == "stopped") & (table.trial > 0)]
    assert {1, 3} & set(stopped.train_steps)
    assert stopped.error.str.contains("trained for|not built").all()
    for _, attempts in table[table.kind == "adapter"].groupby("candidate"):
        assert attempts.train_steps.is_monotonic_increasing
        assert attempts.train_steps.is_unique
    whole = table[(table.status == "ok") & (table.kind == "pair")]
    assert len(whole)
    assert whole.accuracy_n.eq(24).all()
    curves = pd.read_csv(tmp_path / "r" / "curves.csv")
    assert curves[curves.train_loss.notna()].groupby("adapter").step.apply(lambda steps: steps.is_unique).all()
    assert len(curves[curves.score.notna()]) == len(table[table.kind == "adapter"])
    assert (tmp_path / "r" / "best" / "onnx" / "model.onnx").exists()


@pytest.mark.slow
@pytest.mark.marathon
def test_two_real_sweeps_against_the_clock(
    tmp_path: Path, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        "live", budget={"hours": 1}, space={"lora": LORA | {"steps": 30}, "build": [{"precision": "fp32"}, INT4]}
    )
    arguments = [
        str(tmp_path),
        "--sweep",
        str(file),
        "--pairs",
        "1",
        "--strategy",
        "frontier",
        "random",
    ]
    assert live.main(arguments) == 0
    text = capsys.readouterr().out
    assert "| 0 | frontier |" in text
    assert "| 0 | random |" in text
    curves = (tmp_path / "live.csv").read_text(encoding="utf-8").splitlines()
    assert curves[0] == "strategy,pair,seconds,hypervolume"
    assert max(float(line.split(",")[3]) for line in curves[1:]) <= 1.0
    for name in ("frontier-0", "random-0"):
        scores = json.loads((tmp_path / name / "results" / "test.json").read_text(encoding="utf-8"))
        assert all(0 <= score <= 1 for score in scores.values())
    before = (tmp_path / "frontier-0" / "results" / "results.csv").read_bytes()
    assert live.main(arguments) == 0  # nothing is run or scored again
    assert (tmp_path / "frontier-0" / "results" / "results.csv").read_bytes() == before
    assert capsys.readouterr().out == text[text.index("# Live") :]


@pytest.mark.parametrize("strategy", ["grid", pytest.param("random", marks=[pytest.mark.slow, pytest.mark.marathon])])
def test_two_workers_give_the_rows_of_one(
    strategy: str,
    autotune: Callable[..., Ran],
    write: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each sweep has a cache of its own: everything is really made. Timings run alone, as the timeline shows."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = []
    for workers in (1, 2):
        monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / f"cache {workers}"))
        file = write(f"{strategy}-{workers}", strategy=strategy, workers={"cpu": workers}, budget={"trials": 4})
        out = tmp_path / f"out {workers}"
        ran = autotune("run", file, "--out", out)
        assert ran.code in (Exit.OK, Exit.NO_FEASIBLE), ran.err
        done = table(out)
        same = [
            "candidate",
            "trial",
            "kind",
            "status",
            "accuracy",
            "accuracy_n",
            "size_mb",
            "graph",
            "adapter",
            "train_loss",
        ]
        found.append(done[same].sort_values(["trial", "candidate"]).reset_index(drop=True))
        lines = pd.read_csv(out / "timeline.csv")
        for timing in lines[lines["alone"]].itertuples():
            beside = lines[
                (lines.index != timing.Index) & (lines["began"] < timing.ended) & (lines["ended"] > timing.began)
            ]
            assert beside.empty
        others = lines[~lines["alone"]]
        overlap = [
            (others["began"] < one.ended) & (others["ended"] > one.began) & (others.index != one.Index)
            for one in others.itertuples()
        ]
        assert any(one.any() for one in overlap) == (workers == 2)
    pd.testing.assert_frame_equal(found[0], found[1])
