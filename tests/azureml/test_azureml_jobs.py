"""Jobs of Azure ML through the real SDK, against a service of our own that answers as Azure does.

What is submitted is compared with the service's description, run here as a node would run it, and fetched back.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

from azure_service import (  # noqa: E402 - after the skip
    ACCOUNT_KEY,
    GROUP,
    SAS,
    STORE,
    SUBSCRIPTION,
    WORKSPACE,
    Answer,
    Asked,
    Login,
    Service,
    refusal,
    serving,
)
from conftest import Ran  # noqa: E402

from autotune.remote import workspace as remote_workspace  # noqa: E402
from benchmarks.olive_files import own  # noqa: E402

TOKEN = "hf_" + "SecretToken1" * 3
WHERE = {"subscription_id": SUBSCRIPTION, "resource_group": GROUP, "workspace_name": WORKSPACE}
SCHEMA = json.loads((Path(__file__).parent / "command_job.schema.json").read_text(encoding="utf-8"))
Autotune = Callable[..., Ran]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Azure, with somebody logged in, and polls without waits."""
    from azure.ai.ml.operations._run_history_constants import RunHistoryConstants

    monkeypatch.setattr(remote_workspace, "credential", Login)
    monkeypatch.setattr(RunHistoryConstants, "_WAIT_COMPLETION_POLLING_INTERVAL_MIN", 0)
    monkeypatch.setattr(RunHistoryConstants, "_WAIT_COMPLETION_POLLING_INTERVAL_MAX", 0)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    remote_workspace.client.cache_clear()
    with serving(tmp_path / "service", monkeypatch) as service:
        yield service
        assert service.unknown == []
    remote_workspace.client.cache_clear()


def write_sweep(folder: Path, **changed: Any) -> Path:
    """A sweep file whose data is here, and whose model is on the hub."""
    rows = [json.dumps({"a": f"text {n}", "b": ("yes", "no")[n % 2]}) for n in range(40)]
    (folder / "rows.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    sweep = {
        "name": "tones", "model": "owner/model", "data": {"train": "rows.jsonl", "prompt": "{a}", "completion": " {b}"},
        "space": {"lora": {"r": {"choice": [4, 8]}}, "build": {"precision": "int4"}}, "target": {"provider": "cuda"},
        "submit": {"azureml": {"compute": "gpu-cluster", **WHERE}},
    }  # fmt: skip
    azureml = {**sweep["submit"]["azureml"], **changed.pop("azureml", {})}  # type: ignore[index]
    sweep |= {**changed, "submit": {"azureml": azureml}}
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep), encoding="utf-8")
    return file


def submitted(service: Service) -> tuple[str, dict[str, Any]]:
    """The job that was sent last, as the body of the request; it is what the service asks for."""
    asked = [one for one in service.requests if one.method == "PUT" and "/jobs/" in one.path][-1]
    jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker()).validate(asked.json)
    return asked.path.rpartition("/")[2], asked.json["properties"]


def test_the_schema_refuses_what_the_service_would() -> None:
    check = jsonschema.Draft202012Validator(SCHEMA)
    assert not check.is_valid({"properties": {"jobType": "Command", "command": "x"}})
    assert not check.is_valid({"properties": {"jobType": "Command", "command": "x", "environmentId": "azureml:env:1"}})
    assert not check.is_valid({})


def test_submit_sends_one_command_job_with_code_environment_data_and_output(
    service: Service, autotune: Autotune, tmp_path: Path
) -> None:
    write_sweep(tmp_path)
    (tmp_path / ".env").write_text(f"HF_TOKEN={TOKEN}", encoding="utf-8")
    ran = autotune("submit", "sweep.yaml", "--to", "azureml", "--set", "budget.trials=3")
    assert ran.code == 0, ran.err
    name, job = submitted(service)
    assert f"as the job {name}" in ran.out
    assert f"autotune job fetch {name}" in ran.out
    assert job["computeId"].endswith("/computes/gpu-cluster")
    assert job["inputs"]["train"]["jobInputType"] == "uri_file"
    assert service.place(job["inputs"]["train"]["uri"]).read_bytes() == (tmp_path / "rows.jsonl").read_bytes()
    assert job["outputs"]["folder"] == {
        "jobOutputType": "uri_folder", "mode": "ReadWriteMount",
        "uri": f"azureml://datastores/{STORE}/paths/autotune/tones",
    }  # fmt: skip
    assert "--set=data.train=${{inputs.train}}" in job["command"]
    assert "--set=budget.trials=3" in job["command"]
    environment = next(one for key, one in service.assets.items() if key.startswith("environments/"))["properties"]
    conda = yaml.safe_load(environment["condaFile"])
    assert conda["dependencies"][0] == "python=3.11"
    assert any(one.startswith("onnxruntime-genai-cuda") for one in conda["dependencies"][-1]["pip"])
    assert "cuda" in environment["image"]
    code = [one for one in service.folder.rglob("*") if one.is_file() and "code-" in one.as_posix()]
    names = {one.name for one in code}
    assert {"sweep.yaml", "cli.py", "report.html"} <= names  # the tool goes with the job
    assert not names & {".env", "rows.jsonl"}
    note = json.loads((tmp_path / "tones.azureml.job.json").read_text(encoding="utf-8"))
    assert note["job"] == name
    assert note["output"].endswith(f"/workspaces/{WORKSPACE}/datastores/{STORE}/paths/autotune/tones")
    assert not any("telemetry" in one.path.lower() or "applicationinsights" in one.host for one in service.requests)


def test_write_only_sends_nothing(service: Service, autotune: Autotune, tmp_path: Path) -> None:
    write_sweep(tmp_path)
    ran = autotune("submit", "sweep.yaml", "--to", "azureml", "--write-only")
    assert ran.code == 0
    assert "run it with: az ml job create -f tones.azureml.yaml" in ran.out
    assert service.requests == []


def test_without_the_sdk_the_files_are_written_and_the_install_is_named(
    service: Service, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path)
    monkeypatch.setattr("autotune.submit.command.has_sdk", lambda: False)
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 0
    assert 'pip install "autotune-genai[azure]"' in ran.out
    assert (tmp_path / "tones.azureml.yaml").is_file()
    assert service.requests == []


@pytest.mark.parametrize(
    ("azureml", "seen"),
    [
        ({"compute": "arc", "instance_type": "gpu-large"}, {"resources": {"instanceType": "gpu-large"}}),
        ({"compute": "serverless", "spot": True, "instance_type": "Standard_NC24ads_A100_v4"}, {"queueSettings": {"jobTier": "Spot"}}),
        ({"compute": "cheap", "spot": True}, {}),
        ({"identity": "user_identity"}, {"identity": {"identityType": "UserIdentity"}}),
        ({"environment": "azureml://registries/azureml/environments/acpt/versions/3"}, {"environmentId": "azureml://registries/azureml/environments/acpt/versions/3"}),
    ],
    ids=["arc", "serverless spot", "low-priority cluster", "user", "environment of a registry"],
)  # fmt: skip
def test_where_and_how_it_runs(
    service: Service, autotune: Autotune, tmp_path: Path, azureml: dict[str, Any], seen: dict[str, Any]
) -> None:
    write_sweep(tmp_path, azureml=azureml)
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 0, ran.err
    job = submitted(service)[1]
    for key, value in seen.items():
        if isinstance(value, dict):
            assert value.items() <= job[key].items()
        else:
            assert job[key] == value
    compute = azureml.get("compute", "gpu-cluster")
    assert job.get("computeId", "").endswith(f"/computes/{compute}") == (compute != "serverless")


def test_an_olive_file_becomes_a_job_with_the_registrys_model(
    service: Service, autotune: Autotune, tmp_path: Path, tiny_llama: Path
) -> None:
    document = own()["guide-azureml"]
    text = json.dumps(document)
    for old in {"sub", "subscription", "00000000-0000-0000-0000-000000000000"}:
        assert old or text
    olive = tmp_path / "olive.json"
    olive.write_text(text, encoding="utf-8")
    (tmp_path / "conda.yaml").write_text(
        "channels: [defaults]\ndependencies: [python=3.8.13, pip=22.3.1, {pip: [einops, 'torch>=2.2.0', onnxruntime-genai]}]\n",
        encoding="utf-8",
    )
    service.add_model("azureml", "Phi-3-mini-4k-instruct", "11", tiny_llama)
    sets = [f"--set=submit.azureml.{key}={value}" for key, value in WHERE.items()]
    ran = autotune("submit", "olive.json", "--to", "azureml", *sets)
    assert ran.code == 0, ran.err
    job = submitted(service)[1]
    assert job["inputs"]["model"] == {
        "jobInputType": "mlflow_model", "mode": "ReadOnlyMount",
        "uri": "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/11",
    }  # fmt: skip
    assert job["inputs"]["train"]["uri"].endswith("/datastores/workspaceblobstore/paths/data/train.json")
    environment = next(one for key, one in service.assets.items() if key.startswith("environments/"))["properties"]
    dependencies = yaml.safe_load(environment["condaFile"])["dependencies"]
    assert dependencies[:2] == ["python=3.11", "pip=22.3.1"]
    assert "einops" in dependencies[-1]["pip"]
    assert "onnxruntime-genai" not in dependencies[-1]["pip"]
    assert "python=3.8.13 is raised to python=3.11" in ran.out
    assert "torch>=2.2.0 becomes torch==2." in ran.out
    assert "these wheels exclude one another" in ran.out


# --- looking after it ------------------------------------------------------------------------------------------------


@pytest.fixture
def sent(service: Service, autotune: Autotune, tmp_path: Path) -> str:
    """A job that was sent: its name."""
    write_sweep(tmp_path)
    assert autotune("submit", "sweep.yaml", "--to", "azureml").code == 0
    return submitted(service)[0]


def test_status_by_name_by_sweep_and_by_file(service: Service, sent: str, autotune: Autotune) -> None:
    for named in (sent, "tones", "tones.azureml.yaml", "tones.azureml.job.json"):
        ran = autotune("job", "status", named)
        assert ran.code == 0, ran.err
        assert f"job: {sent}\nstatus: Queued\n" in ran.out
    told = json.loads(autotune("job", "status", sent, "--json").out)
    assert (told["status"], told["ended"], told["compute"]) == ("Queued", False, "gpu-cluster")


def test_a_job_of_another_folder_is_found_by_its_workspace(
    service: Service, sent: str, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ran = autotune("job", "status", sent)
    assert (ran.code, "no job of that name was sent from this folder" in ran.err) == (2, True)
    ran = autotune("job", "status", sent, "--workspace", f"{SUBSCRIPTION}/{GROUP}/{WORKSPACE}", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["output"].endswith("/paths/autotune/tones")


def test_cancel_ends_it_and_can_be_repeated(service: Service, sent: str, autotune: Autotune) -> None:
    for _ in range(2):
        ran = autotune("job", "cancel", "tones")
        assert (ran.code, ran.out) == (0, f"the job {sent} is Canceled\n")
    assert sum(one.path.endswith("/cancel") for one in service.requests) == 1


def test_a_sweep_is_not_sent_twice_while_it_runs(service: Service, sent: str, autotune: Autotune) -> None:
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 2
    assert f"the job {sent} of this sweep is at work (Queued)" in ran.err
    service.set_status(sent, "Completed")
    assert autotune("submit", "sweep.yaml", "--to", "azureml").code == 0


def test_logs_are_followed_through_a_preemption(service: Service, sent: str, autotune: Autotune) -> None:
    states = iter(["Running", "Running", "Queued", "Running", "Completed", "Completed"])
    service.write_log(sent, "first line\n")

    def next_state(asked: Asked) -> Answer | None:
        if asked.path.endswith("/details"):
            service.set_status(sent, next(states, "Completed"))
            service.write_log(sent, service.logs[sent] + f"{service.jobs[sent]['properties']['status']} with {TOKEN}\n")
        return None

    service.faults.append(next_state)
    ran = autotune("job", "logs", sent)
    assert ran.code == 0, ran.err
    assert ran.out.count("first line") == 1
    assert "Queued with [redacted]" in ran.out
    assert TOKEN not in ran.out + ran.err


def test_ctrl_c_leaves_the_job_at_work_and_says_so(
    service: Service, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path)

    def interrupted(asked: Asked) -> Answer | None:
        if asked.path.endswith("/details"):
            for job in service.jobs:
                service.set_status(job, "Running")
            import _thread

            _thread.interrupt_main()
        return None

    service.faults.append(interrupted)
    ran = autotune("submit", "sweep.yaml", "--to", "azureml", "--follow")
    assert ran.code == 130, ran.err
    assert f"the job goes on; look on with: autotune job logs {submitted(service)[0]}" in ran.err
    assert "same command" not in ran.err


def test_results_of_this_machine_are_not_replaced_by_a_jobs(
    service: Service, sent: str, autotune: Autotune, tmp_path: Path
) -> None:
    example = Path(__file__).parents[2] / "results" / "example"
    theirs, here = service.store / "autotune" / "tones" / "results", tmp_path / "results" / "tones"
    shutil.copytree(example, theirs)
    lines = (example / "results.csv").read_bytes().splitlines(keepends=True)
    (theirs / "results.csv").write_bytes(b"".join(lines[:6]))
    assert autotune("job", "fetch", sent).code == 0
    (theirs / "results.csv").write_bytes(b"".join(lines[:8]))
    assert autotune("job", "fetch", sent).code == 0  # the same, and more
    assert (here / "results.csv").read_bytes() == b"".join(lines[:8])
    (theirs / ".written aside.new").write_bytes(b"x")  # the job goes on: this one is gone when its turn comes
    service.faults.append(
        lambda asked: Answer(404) if asked.method == "HEAD" and asked.path.endswith("aside.new") else None
    )
    assert autotune("job", "fetch", sent).code == 0
    (here / "results.csv").write_bytes(b"".join(lines))
    ran = autotune("job", "fetch", sent)
    assert (ran.code, "rows that the job's results do not have, and they would be lost" in ran.err) == (2, True)
    assert (here / "results.csv").read_bytes() == b"".join(lines)
    (here / "results.csv").unlink()
    (theirs / ".lock").write_bytes(b"theirs")
    with FileLock(str(here / ".lock")):
        ran = autotune("job", "fetch", sent)
        assert (ran.code, "another process is at work in this folder" in ran.err) == (2, True)
    assert autotune("job", "fetch", sent).code == 0
    assert not (here / ".lock").exists() or (here / ".lock").read_bytes() != b"theirs"
    (tmp_path / "file").write_text("x", encoding="utf-8")
    ran = autotune("job", "fetch", sent, "--out", tmp_path / "file")
    assert (ran.code, "cannot be written" in ran.err, "--out" in ran.err) == (2, True, True)


def test_a_job_that_is_gone_is_told_and_what_it_wrote_is_still_fetched(
    service: Service, sent: str, autotune: Autotune, tmp_path: Path
) -> None:
    shutil.copytree(Path(__file__).parents[2] / "results" / "example", service.store / "autotune" / "tones" / "results")
    del service.jobs[sent]
    for action in ("status", "cancel", "logs"):
        for name in (sent, "tones"):
            ran = autotune("job", action, name)
            assert (ran.code, f"job {sent}: Azure has no such thing" in ran.err) == (2, True), ran.err
            assert "Traceback" not in ran.err
    assert autotune("job", "fetch", sent).code == 0
    assert (tmp_path / "results" / "tones" / "results.csv").is_file()
    assert autotune("submit", "sweep.yaml", "--to", "azureml").code == 0  # it is no reason not to send another


def test_fetching_that_was_interrupted_can_be_repeated(
    service: Service, sent: str, autotune: Autotune, tmp_path: Path
) -> None:
    theirs, here = service.store / "autotune" / "tones" / "results", tmp_path / "results" / "tones"
    shutil.copytree(Path(__file__).parents[2] / "results" / "example", theirs)
    service.faults.append(lambda asked: Answer(403) if asked.path.endswith("results/results.csv") else None)
    assert autotune("job", "fetch", sent).code == 3
    assert (here / "front.csv").is_file()
    assert not (here / "results.csv").exists()
    service.faults.clear()
    ran = autotune("job", "fetch", sent)
    assert ran.code == 0, ran.err
    assert (here / "results.csv").read_bytes() == (theirs / "results.csv").read_bytes()


@pytest.mark.parametrize("mine", ["sweep.yaml", "best/notes.txt", "results.csv", "outcomes/x.json", "front.csv"])
def test_a_folder_of_other_content_is_not_fetched_into(
    service: Service, sent: str, autotune: Autotune, tmp_path: Path, mine: str
) -> None:
    theirs, here = service.store / "autotune" / "tones" / "results", tmp_path / "mine"
    shutil.copytree(Path(__file__).parents[2] / "results" / "example", theirs)
    (theirs / "best").mkdir(exist_ok=True)
    (theirs / "best" / "load.py").write_text("theirs", encoding="utf-8")
    (here / mine).parent.mkdir(parents=True)
    (here / mine).write_text("mine", encoding="utf-8")
    ran = autotune("job", "fetch", sent, "--out", here)
    assert (ran.code, "which no sweep has written and fetching would replace" in ran.err) == (2, True), ran.err
    assert {file.read_text(encoding="utf-8") for file in here.rglob("*") if file.is_file()} == {"mine"}
    (here / mine).rename(here / "unrelated.txt")
    if (here / mine).parent != here:
        (here / mine).parent.rmdir()
    assert autotune("job", "fetch", sent, "--out", here).code == 0
    assert autotune("job", "fetch", sent, "--out", here).code == 0  # twice
    assert (here / "unrelated.txt").read_text(encoding="utf-8") == "mine"
    assert (here / "results.csv").read_bytes() == (theirs / "results.csv").read_bytes()


@pytest.mark.parametrize("words", [("status", "--out", "x"), ("logs", "--cache"), ("fetch", "--json")])
def test_an_option_of_another_action_is_refused(autotune: Autotune, words: tuple[str, ...]) -> None:
    ran = autotune("job", words[0], "tones", *words[1:])
    assert (ran.code, f"{words[1]}: belongs to job" in ran.err) == (2, True)


@pytest.mark.parametrize("options", [("--to", "slurm"), ("--to", "azureml", "--write-only")])
def test_without_a_job_nothing_is_followed(autotune: Autotune, tmp_path: Path, options: tuple[str, ...]) -> None:
    write_sweep(tmp_path)
    ran = autotune("submit", "sweep.yaml", *options, "--follow")
    assert (ran.code, "--follow: belongs to --to azureml" in ran.err) == (2, True)


def test_a_job_that_failed_says_why_and_how_to_go_on(service: Service, sent: str, autotune: Autotune) -> None:
    service.set_status(sent, "Failed", "Image build failed: no space left")
    ran = autotune("job", "logs", sent)
    assert ran.code == 3
    assert f"the job {sent} is Failed" in ran.err
    assert "submit the sweep again: it goes on from what is kept" in ran.err


# --- refusals --------------------------------------------------------------------------------------------------------


def _quota(asked: Asked) -> Answer | None:
    wrong = asked.method == "PUT" and "/jobs/" in asked.path
    return refusal(400, "QuotaExceeded", "The requested cores exceed the quota of the subscription.") if wrong else None


def _forbidden(asked: Asked) -> Answer | None:
    wrong = asked.method == "PUT" and "/jobs/" in asked.path
    return (
        refusal(403, "AuthorizationFailed", "The client does not have authorization to perform action.")
        if wrong
        else None
    )


def _not_privileged(asked: Asked) -> Answer | None:
    wrong = asked.method == "PUT" and "/jobs/" in asked.path
    return refusal(403, "Authorization_RequestDenied", "Insufficient privileges to complete it.") if wrong else None


def _unauthorized(asked: Asked) -> Answer | None:
    return (
        refusal(401, "ExpiredAuthenticationToken", "The access token has expired.")
        if ".blob." not in asked.host
        else None
    )


def _gone(asked: Asked) -> Answer | None:
    return Answer(200, b"half of an answer", cut=0) if asked.path.endswith("/computes/gpu-cluster") else None


def _storage(asked: Asked) -> Answer | None:
    wrong = ".blob." in asked.host and asked.method == "PUT"
    return refusal(403, "AuthorizationPermissionMismatch", "This request is not authorized.") if wrong else None


@pytest.mark.parametrize(
    ("azureml", "fault", "code", "said"),
    [
        ({"compute": "gpu-clutser"}, None, 2, "there is no such compute (the workspace has arc, cheap, gpu-cluster)"),
        ({"workspace_name": "spcae"}, None, 2, "workspace spcae: Azure has no such thing"),
        ({"spot": True}, None, 2, "spot is asked for, and the compute is dedicated"),
        ({"output": "azureml://nowhere"}, None, 2, "submit.azureml.output"),
        ({}, _quota, 3, "the quota is used up"),
        ({}, _forbidden, 3, "this login may not do that"),
        ({}, _not_privileged, 3, "this login may not do that"),
        ({}, _unauthorized, 3, "log in again: az login"),
        ({}, _gone, 3, "the connection was lost"),
        ({}, _storage, 3, "this login may not do that"),
    ],
    ids=["compute", "workspace", "spot", "output", "quota", "rights", "privileges", "login", "connection", "storage"],
)  # fmt: skip
def test_a_refusal_is_clear_and_can_be_repeated(
    service: Service,
    autotune: Autotune,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    azureml: dict[str, Any],
    fault: Any,
    code: int,
    said: str,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # the SDK waits between its own tries
    write_sweep(tmp_path, azureml=azureml)
    if fault is not None:
        service.faults.append(fault)
    for _ in range(2):
        ran = autotune("submit", "sweep.yaml", "--to", "azureml")
        assert ran.code == code, ran.err
        assert said in ran.err
        assert "Traceback" not in ran.err
        assert "Exception" not in ran.err
        assert not (tmp_path / "tones.azureml.job.json").exists()
    service.faults.clear()
    write_sweep(tmp_path)
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 0, ran.err


def test_an_expired_login_says_how_to_log_in(
    service: Service, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path)
    monkeypatch.setattr(remote_workspace, "credential", lambda: Login(expired=True))
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 3
    assert "The refresh token has expired" in ran.err
    assert "az login" in ran.err


def test_a_connection_lost_while_streaming_leaves_the_job_at_work(
    service: Service, sent: str, autotune: Autotune, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    service.set_status(sent, "Running")
    service.write_log(sent, "a line\n")
    service.faults.append(lambda asked: Answer(200, b"half", cut=0) if asked.path.endswith("/details") else None)
    ran = autotune("job", "logs", sent)
    assert ran.code == 3
    assert "the connection was lost" in ran.err
    assert f"the job goes on; look on with: autotune job logs {sent}" in ran.err
    service.faults.clear()
    service.set_status(sent, "Completed")
    assert autotune("job", "logs", sent).code == 0


def test_no_workspace_and_no_model_are_told(
    service: Service, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sweep(tmp_path, azureml=dict.fromkeys(WHERE))
    text = (tmp_path / "sweep.yaml").read_text(encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(
        "\n".join(line for line in text.splitlines() if "null" not in line), encoding="utf-8"
    )
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert (ran.code, "names no workspace of Azure ML" in ran.err) == (2, True)
    # As Azure ML writes it for a download.
    (tmp_path / "config.json").write_text(json.dumps(WHERE), encoding="utf-8")
    assert autotune("submit", "sweep.yaml", "--to", "azureml").code == 0
    write_sweep(tmp_path, name="other", model="azureml://registries/none/models/m/versions/1")
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert (ran.code, "registry none: Azure has no such thing" in ran.err) == (2, True)


# --- secrets ---------------------------------------------------------------------------------------------------------


def everything(folder: Path, service: Service, *ran: Ran) -> bytes:
    """All that was written, sent and said."""
    files = [one.read_bytes() for one in folder.rglob("*") if one.is_file()]
    sent = [json.dumps([one.path, one.query, one.headers]).encode() + one.body for one in service.requests]
    return b"\n".join([*files, *sent, *((one.out + one.err).encode() for one in ran)])


def test_a_token_goes_into_a_job_by_reference_alone(service: Service, autotune: Autotune, tmp_path: Path) -> None:
    reference = "https://vault.vault.azure.net/secrets/hf-token"
    write_sweep(tmp_path, azureml={"hf_token": reference})
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 0, ran.err
    job = submitted(service)[1]
    assert job["environmentVariables"]["AUTOTUNE_HF_TOKEN_SECRET"] == reference
    assert job["identity"] == {"identityType": "Managed"}
    assert "python -m autotune.in_job" in job["command"]
    seen = everything(tmp_path, service, ran)
    assert TOKEN.encode() not in seen
    told = (ran.out + ran.err).encode() + b"".join(one.read_bytes() for one in tmp_path.glob("tones*") if one.is_file())
    for secret in (ACCOUNT_KEY, SAS, "theSignature"):
        assert secret.encode() not in told


@pytest.mark.parametrize(
    ("token", "sets"),
    [
        (TOKEN, ["submit.azureml.hf_token={}"]),
        ("abcdefgh12345678", ["submit.azureml.hf_token={}"]),
        ("abcdefgh12345678", ["submit.azureml.hf_token=https://x:{}@vault.vault.azure.net/secrets/a"]),
        (TOKEN, ["data.prompt=\"{{a}} {}\""]),
        (TOKEN, ["submit.azureml.install=git+https://user:{}@example.org/autotune.git"]),
    ],
    ids=["hub", "any", "in a reference", "in a prompt", "in an address"],
)  # fmt: skip
def test_a_token_by_value_is_refused_and_never_shown(
    service: Service, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str, sets: list[str]
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    write_sweep(tmp_path)
    ran = autotune("submit", "sweep.yaml", "--to", "azureml", *(f"--set={one.format(token)}" for one in sets))
    assert ran.code == 2, ran.out
    assert token.encode() not in everything(tmp_path, service, ran)
    assert not list(tmp_path.glob("tones*"))


def test_a_token_inside_the_sweep_file_is_refused(service: Service, autotune: Autotune, tmp_path: Path) -> None:
    file = write_sweep(tmp_path)
    file.write_text(f"# my token: {TOKEN}\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    ran = autotune("submit", "sweep.yaml", "--to", "azureml")
    assert ran.code == 2
    assert "holds a password or token" in ran.err
    assert TOKEN not in ran.err + ran.out
    assert service.requests == []


METRIC = """from helpers.names import KNOWN


def near(prediction, reference, item):
    return float(prediction in KNOWN)
"""


@pytest.mark.parametrize("where", ["metric.py", "helpers/names.py"])
def test_a_token_inside_the_users_own_functions_is_refused(
    service: Service, autotune: Autotune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")  # known by its shape alone
    write_sweep(tmp_path, data={"train": "rows.jsonl", "prompt": "{a}", "completion": " {b}", "metric": "metric:near"})
    (tmp_path / "helpers").mkdir()
    (tmp_path / "metric.py").write_text(METRIC, encoding="utf-8")
    (tmp_path / "helpers" / "names.py").write_text("KNOWN = {'yes'}\n", encoding="utf-8")
    clean = (tmp_path / where).read_text(encoding="utf-8")
    (tmp_path / where).write_text(f'{clean}\nSERVER = "https://me:{TOKEN}@example.org"\n', encoding="utf-8")
    for place in (("azureml",), ("azureml", "--write-only")):
        ran = autotune("submit", "sweep.yaml", "--to", *place)
        assert (ran.code, "holds a password or token, which would go into the job" in ran.err) == (2, True), ran.err
        assert where.rpartition("/")[2] in ran.err
        assert TOKEN.encode() not in everything(tmp_path / "none", service, ran)
    assert service.requests == []
    assert not list(tmp_path.glob("tones*"))
    filled = 'def ask(name, word):\n    return f"https://{name}:{word}@example.org/?token={word}"\n'
    (tmp_path / where).write_text(f"{clean}\n\n{filled}", encoding="utf-8")
    assert autotune("submit", "sweep.yaml", "--to", "azureml", "--write-only").code == 0


def test_a_later_fetch_leaves_nothing_of_the_earlier_winner(
    service: Service, sent: str, autotune: Autotune, tmp_path: Path
) -> None:
    theirs, here = service.store / "autotune" / "tones" / "results", tmp_path / "results" / "tones"
    shutil.copytree(Path(__file__).parents[2] / "results" / "example", theirs)
    shutil.rmtree(theirs / "best", ignore_errors=True)
    for name in ("onnx/model.onnx", "onnx/old.data", "adapter/adapter_config.json"):
        (theirs / "best" / name).parent.mkdir(parents=True, exist_ok=True)
        (theirs / "best" / name).write_bytes(b"first")
    assert autotune("job", "fetch", sent).code == 0
    (here / "mine.txt").write_text("beside it", encoding="utf-8")
    shutil.rmtree(theirs / "best" / "adapter")
    (theirs / "best" / "onnx" / "old.data").unlink()
    (theirs / "best" / "onnx" / "model.onnx").write_bytes(b"second")
    assert autotune("job", "fetch", sent).code == 0
    left = {file.relative_to(here / "best").as_posix(): file for file in (here / "best").rglob("*")}
    assert sorted(left) == ["onnx", "onnx/model.onnx"]
    assert left["onnx/model.onnx"].read_bytes() == b"second"
    assert (here / "mine.txt").is_file()
    shutil.rmtree(theirs / "best")  # the job is about to put a newer one there
    assert autotune("job", "fetch", sent).code == 0
    assert (here / "best" / "onnx" / "model.onnx").is_file()


def test_an_address_of_the_repository_with_a_password_stays_here(
    service: Service, autotune: Autotune, tmp_path: Path
) -> None:
    import subprocess

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    address = f"https://user:{TOKEN}@example.org/repository.git"
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", address], check=True)
    write_sweep(tmp_path)
    assert autotune("submit", "sweep.yaml", "--to", "azureml").code == 0
    assert "example.org" not in json.dumps(submitted(service)[1])


def test_the_job_reads_the_token_from_the_vault(
    service: Service, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from autotune import in_job

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Login)
    monkeypatch.delenv("DEFAULT_IDENTITY_CLIENT_ID", raising=False)
    monkeypatch.delenv("HF_TOKEN")
    service.secrets["hf-token"] = TOKEN
    seen: list[str | None] = []

    def tool(argv: list[str]) -> int:
        import os

        seen.append(os.environ.get("HF_TOKEN"))
        return 4

    monkeypatch.setattr("autotune.cli.main", tool)
    monkeypatch.setenv(in_job.SECRET, "https://vault.vault.azure.net/secrets/hf-token")
    assert in_job.main(["run", "x.yaml"]) == 4
    assert seen == [TOKEN]
    monkeypatch.setenv(in_job.SECRET, "https://vault.vault.azure.net/secrets/other")
    assert in_job.main([]) == 3
    said = capfd.readouterr()
    assert "the secret other of https://vault.vault.azure.net cannot be read" in said.err
    assert TOKEN not in said.err + said.out


def test_a_job_without_what_reads_the_vault_says_so(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from autotune import in_job

    monkeypatch.setitem(sys.modules, "azure.keyvault.secrets", None)
    monkeypatch.setenv(in_job.SECRET, "https://vault.vault.azure.net/secrets/hf-token")
    assert in_job.main(["run", "x.yaml"]) == 3
    assert "there is no module azure.keyvault.secrets here; add azure-identity" in capfd.readouterr().err


def test_inputs_are_linked_under_names_that_stay(tmp_path: Path) -> None:
    from autotune.in_job import linked

    for mount in ("one", "two"):
        file = tmp_path / mount / "rows.jsonl"
        file.parent.mkdir()
        file.write_text(mount, encoding="utf-8")
        link = tmp_path / "inputs" / "train.jsonl"
        assert (
            linked(f"--set=data.train={file}[:20]", tmp_path / "inputs") == f"--set=data.train={link.as_posix()}[:20]"
        )
        assert link.read_text(encoding="utf-8") == mount
    assert (
        linked(f"--set=model={file.parent}", tmp_path / "inputs") == f"--set=model={tmp_path.as_posix()}/inputs/model"
    )
    for word in ("--set=seed=1", "--set=model=owner/name", "--set=data.train=/nowhere/x", "run"):
        assert linked(word, tmp_path / "inputs") == word


# --- the whole way ---------------------------------------------------------------------------------------------------


def tiny(folder: Path, tiny_llama: Path, service: Service) -> None:
    """A sweep of two candidates on the tiny model, which is registered; its data is on the datastore."""
    place = service.store / "data" / "train.jsonl"
    place.parent.mkdir(parents=True)
    rows = [{"text": f"{n} I felt {tone} today", "tone": tone} for n in range(12) for tone in ("joy", "fear")]
    place.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    mlflow = folder / "mlflow"
    shutil.copytree(tiny_llama, mlflow / "data" / "model")
    (mlflow / "MLmodel").write_text("flavors: {transformers: {}}\n", encoding="utf-8")
    service.add_model("shared", "tiny", "2", mlflow)
    write_sweep(
        folder, name="tiny", model="azureml://registries/shared/models/tiny/versions/2",
        data={"train": f"azureml://datastores/{STORE}/paths/data/train.jsonl[:20]", "prompt": "Text: {text}\nTone:",
              "completion": " {tone}", "holdout": 0.4},
        train={"max_length": 64},
        target={"provider": "cpu", "threads": 1, "workload": {"prompt_tokens": 4, "new_tokens": 5},
                "timing": {"processes": 2, "most": 2, "repeats": 0}},
        space={"lora": {"r": 4, "learning_rate": 1e-2, "steps": 2, "batch_size": 4}, "build": [{"precision": "fp32"}, {"precision": "int8"}]},
        strategy="grid", budget={"trials": 2}, azureml={"output": f"azureml://datastores/{STORE}/paths/runs"},
    )  # fmt: skip


@pytest.mark.slow
def test_a_job_is_run_preempted_run_on_and_fetched(
    service: Service, autotune: Autotune, tmp_path: Path, tiny_llama: Path
) -> None:
    tiny(tmp_path, tiny_llama, service)
    assert autotune("submit", "sweep.yaml", "--to", "azureml", "--set", "budget.trials=1").code == 0
    first, job = submitted(service)
    assert job["inputs"]["model"]["jobInputType"] == "mlflow_model"
    assert job["command"].count('${{inputs.train}}[:20]"') == 1
    ran = autotune("job", "fetch", first)
    assert (ran.code, "has written no results yet" in ran.err) == (3, True)
    done = service.run(first, tmp_path / "node")
    assert done.returncode == 0, done.stderr
    results = service.store / "runs" / "tiny" / "results"
    rows = (results / "results.csv").read_text(encoding="utf-8").splitlines()
    # Preempted: the node is gone, the job is queued, and another node runs the same command on the same folder.
    service.set_status(first, "Queued")
    done = service.run(first, tmp_path / "node")
    assert done.returncode == 0, done.stderr
    assert (results / "results.csv").read_text(encoding="utf-8").splitlines() == rows
    service.set_status(first, "Completed")
    # A later job, with more trials, goes on from results and cache.
    assert autotune("submit", "sweep.yaml", "--to", "azureml").code == 0
    second, _ = submitted(service)
    assert second != first
    trained = sorted(
        one.name for one in (service.store / "runs" / "tiny" / "cache" / "finetune").glob("*") if one.is_dir()
    )
    done = service.run(second, tmp_path / "node")
    assert done.returncode == 0, done.stderr
    service.set_status(second, "Completed")
    again = sorted(
        one.name for one in (service.store / "runs" / "tiny" / "cache" / "finetune").glob("*") if one.is_dir()
    )
    assert again == trained  # one adapter served both
    ran = autotune("job", "fetch", "tiny")
    assert ran.code == 0, ran.err
    fetched = (tmp_path / "results" / "tiny" / "results.csv").read_text(encoding="utf-8").splitlines()
    assert fetched[: len(rows)] == rows
    assert len(fetched) > len(rows)
    assert list((tmp_path / "results" / "tiny" / "best").rglob("genai_config.json"))
    assert autotune("select", "results/tiny").code in (0, 4)
    assert autotune("job", "logs", second).code == 0
    assert TOKEN.encode() not in everything(tmp_path, service, ran)
