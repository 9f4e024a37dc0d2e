"""The environment, the code and the secrets of a job, without the SDK."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from autotune.data.readers import format_of
from autotune.errors import UsageError
from autotune.submit import environment
from autotune.submit.azureml import Draft
from autotune.submit.command import write
from autotune.submit.environment import conda, requirements
from autotune.sweepfile.olive.reader import import_olive
from benchmarks.olive_files import own

OURS = ["numpy==2.4.6", "onnxruntime-genai-cuda==0.18.0", "torch==2.13.0"]


def names(texts: list[str]) -> set[str]:
    return {Requirement(one).name for one in texts}


def test_a_target_needs_its_own_runtime_and_training() -> None:
    cpu, cuda = names(requirements("cpu")), names(requirements("cuda"))
    assert {"torch", "peft", "transformers", "onnx-ir", "optuna", "pydantic", "onnxruntime-genai"} <= cpu
    assert cuda - cpu == {"onnxruntime-genai-cuda", "nvidia-ml-py"}
    assert cpu - cuda == {"onnxruntime-genai"}
    assert names(requirements("webgpu")) - cpu == {"onnxruntime-ep-webgpu"}
    assert not any("autotune" in name for name in cpu | cuda)
    assert all("==" in one for one in requirements("cpu"))  # as they are tested


def test_an_installed_package_names_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = environment._declared()
    lines = [str(Requirement(one)) for one in declared]
    expected = requirements("cuda")
    monkeypatch.setattr(environment, "__file__", "/nowhere/autotune/submit/environment.py")
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    assert requirements("cuda") == expected


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ("python=3.8.13", "python=3.11"), ("python", "python=3.11"), ("python=3.10", "python=3.11"), ("python>=3.9", "python=3.11"),
        ("python=3.11.9", "python=3.11.9"), ("python=3.12", "python=3.12"), ("python==3.13.*", "python==3.13.*"),
        ("python=3.99", "python=3.11"), ("python=2.7", "python=3.11"),
    ],
)  # fmt: skip
def test_an_old_python_is_raised_and_a_current_one_stays(tmp_path: Path, asked: str, made: str) -> None:
    file = tmp_path / "conda.yaml"
    file.write_text(yaml.safe_dump({"dependencies": [asked, "pip"]}), encoding="utf-8")
    content, notes = conda(OURS, file, "conda.yaml")
    assert content["dependencies"][0] == made
    assert bool(notes) == (asked != made)


@pytest.mark.parametrize("asked", ["python<3.9", "python <3.11", "conda-forge::python=3.9", "python>3.8", "python"])
def test_one_python_is_asked_for_and_none_too_old(tmp_path: Path, asked: str) -> None:
    file = tmp_path / "conda.yaml"
    file.write_text(yaml.safe_dump({"dependencies": [asked, "python-dateutil"]}), encoding="utf-8")
    assert conda(OURS, file, "conda.yaml")[0]["dependencies"][:3] == ["python=3.11", "pip", "python-dateutil"]


def test_what_an_older_file_says_does_not_leave_its_comment() -> None:
    text = Draft({"type": "command"}, ["conda.yaml: python=3.8\nother: line is raised"]).text
    assert yaml.safe_load(text) == {"type": "command"}


def test_what_an_older_file_adds_stays_and_what_contradicts_is_said(tmp_path: Path) -> None:
    file = tmp_path / "conda.yaml"
    older: dict[str, Any] = {
        "name": "x", "channels": ["defaults", "nvidia"],
        "dependencies": ["python=3.8.13", "pip=22.3.1", "cuda-nvcc", {"pip": [
            "einops", "Torch>=2.2.0", "onnxruntime-gpu", "onnxruntime-genai-cuda", "-r more.txt", "--extra-index-url https://example.org/simple",
            "tool @ git+https://example.org/tool.git"]}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(older), encoding="utf-8")
    content, notes = conda(OURS, file, "conda.yaml")
    assert content["channels"] == ["defaults", "nvidia"]
    assert content["dependencies"][:3] == ["python=3.11", "pip=22.3.1", "cuda-nvcc"]
    pip = content["dependencies"][-1]["pip"]
    assert pip == [
        *OURS,
        "einops",
        "--extra-index-url https://example.org/simple",
        "tool @ git+https://example.org/tool.git",
    ]
    said = "\n".join(notes)
    for part in (
        "python=3.8.13 is raised",
        "Torch>=2.2.0 becomes torch==2.13.0",
        "onnxruntime-gpu is left out",
        "-r more.txt is left out",
    ):
        assert part in said


def test_the_guides_own_conda_file_is_raised() -> None:
    from benchmarks.olive_files import PUBLIC

    file = PUBLIC / "conda.yaml"
    if not file.is_file():
        pytest.skip("the published guide is not there")
    content, notes = conda(requirements("cuda"), file, "conda.yaml")
    pip = content["dependencies"][-1]["pip"]
    assert {"einops", "azure-keyvault-secrets", "sentencepiece"} <= set(pip)
    assert sum(one.startswith("torch") for one in pip) == 1
    assert any("python=3.8.13 is raised" in note for note in notes)


@pytest.mark.parametrize("text", ["[]", "dependencies: x", "a: [", "\0", "null"])
def test_what_is_no_conda_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "conda.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"submit\.azureml\.conda_file"):
        conda(OURS, file, "conda.yaml")


def test_a_password_in_a_conda_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "conda.yaml"
    file.write_text(
        "dependencies: [{pip: ['--index-url https://me:abcd1234efgh@example.org/simple']}]", encoding="utf-8"
    )
    with pytest.raises(UsageError) as error:
        conda(OURS, file, "conda.yaml")
    assert "abcd1234" not in str(error.value)


def test_a_conda_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert conda(OURS, tmp_path / "no.yaml", "no.yaml")[1] == [
        "no.yaml is not there: the environment has what autotune needs"
    ]


# --- code ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A sweep with a metric of the user's own, which imports a module beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"a": "x", "b": "y"}\n' * 3, encoding="utf-8")
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("", encoding="utf-8")
    (tmp_path / "helpers" / "text.py").write_text("def low(x): return x.lower()\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "from helpers.text import low\ndef metric(prediction, reference, item):\n    return float(low(prediction) == low(reference))\n",
        encoding="utf-8",
    )
    (tmp_path / "secrets.txt").write_text("x", encoding="utf-8")
    return {
        "name": "tones", "model": "owner/model",
        "data": {"train": "rows.jsonl[:2]", "prompt": "{a}", "completion": "{b}", "metric": "mine:metric", "max_new_tokens": 5},
        "space": {"lora": {"r": 4}, "build": {"precision": "int4"}}, "submit": {"azureml": {"compute": "c"}},
    }  # fmt: skip


def made(sweep: dict[str, Any], *sets: str) -> dict[str, Any]:
    Path("sweep.yaml").write_text(yaml.safe_dump(sweep), encoding="utf-8")
    write(Path("sweep.yaml"), "azureml", None, sets)
    job: dict[str, Any] = yaml.safe_load(Path("tones.azureml.yaml").read_text(encoding="utf-8"))
    return job


def test_the_code_is_the_sweep_the_users_functions_and_the_tool(sweep: dict[str, Any]) -> None:
    job = made(sweep)
    code = Path(job["code"])
    here = {one.relative_to(code).as_posix() for one in code.rglob("*") if one.is_file()}
    own_files = {one for one in here if not one.startswith("tool/")}
    assert own_files == {"sweep.yaml", "mine.py", "helpers/__init__.py", "helpers/text.py"}
    assert "tool/autotune/cli.py" in here
    assert "tool/autotune/report/web/report.html" in here
    assert not any("__pycache__" in one for one in here)
    assert job["inputs"]["train"] == {"type": "uri_file", "path": "rows.jsonl", "mode": "ro_mount"}
    assert '"--set=data.train=${{inputs.train}}[:2]"' in job["command"]
    made(sweep, "seed=1")  # written again


@pytest.mark.parametrize(
    ("sets", "package"),
    [
        (["data.metric=lm-eval:arc_easy"], "lm-eval"),
        (["data.metric=rouge_l"], "rouge-score"),
        (["data.train={dataset: owner/rows, split: train}"], "datasets"),
        (["strategy=gp"], "scipy"),
        (["engine=ray"], "ray"),
        (["report_to=[mlflow]"], "mlflow-skinny"),
    ],
)
def test_the_environment_has_what_metric_data_strategy_engine_and_trackers_need(
    sets: list[str], package: str, sweep: dict[str, Any]
) -> None:
    del sweep["data"]["max_new_tokens"]

    def packages(*changes: str) -> set[str]:
        return names(made(sweep, *changes)["environment"]["conda_file"]["dependencies"][-1]["pip"])

    assert package not in packages("data.metric=exact_match")
    assert package in packages("data.metric=exact_match", *sets)


@pytest.mark.parametrize(
    ("targets", "wheels", "gpu"),
    [
        (
            {"a": {"provider": "cpu"}, "b": {"provider": "webgpu"}},
            {"onnxruntime-genai", "onnxruntime-ep-webgpu"},
            False,
        ),
        ({"a": {"provider": "cpu"}, "b": {"provider": "cuda"}}, {"onnxruntime-genai-cuda"}, True),
        ({"a": {"provider": "cuda"}, "b": {"provider": "cpu", "threads": 2}}, {"onnxruntime-genai-cuda"}, True),
    ],
    ids=["plugin", "cuda last", "cuda first"],
)
def test_every_target_of_several_gets_its_runtime_and_its_gpu(
    sweep: dict[str, Any], targets: dict[str, Any], wheels: set[str], gpu: bool
) -> None:
    job = made({**sweep, "targets": targets})
    pip = job["environment"]["conda_file"]["dependencies"][-1]["pip"]
    named = {re.split(r"[<>=~!\[]", one)[0] for one in pip}
    assert {one for one in named if one.startswith("onnxruntime-")} == wheels
    assert ("cuda" in job["environment"]["image"]) is gpu


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["my rows.jsonl", "Bob's #1 (new).jsonl", "行 é.jsonl", "rows;x&y.jsonl"])
def test_a_file_of_rows_with_an_odd_name_reaches_the_command_as_one_word(sweep: dict[str, Any], name: str) -> None:
    Path("rows.jsonl").rename(name)
    sweep["data"]["train"] = f"{name}[:2]"
    job = made(sweep)
    assert job["inputs"]["train"]["path"] == name
    mounted = Path("mount").absolute() / name
    script = job["command"].replace("${{inputs.train}}", str(mounted)).replace("${{outputs.folder}}", "/o p")
    script = script.replace("python -m autotune.in_job", "printf '%s\\n'")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == [
        "run", "sweep.yaml", "--out", "/o p/results", f"--set=data.train={mounted}[:2]"
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a$b.jsonl", "a`b.jsonl", 'a"b.jsonl', "a\nb.jsonl"])
def test_a_name_that_a_shell_reads_is_refused(sweep: dict[str, Any], name: str) -> None:
    Path("rows.jsonl").rename(name)
    sweep["data"]["train"] = name
    with pytest.raises(UsageError, match="give it another name"):
        made(sweep)


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz", "my.rows.CSV.GZ"])
def test_a_compressed_input_keeps_the_ending_that_says_what_it_holds(tmp_path: Path, name: str) -> None:
    from autotune.in_job import linked

    (tmp_path / name).write_bytes(b"x")
    word = linked(f"--set=data.train={tmp_path / name}", tmp_path / "inputs")
    assert format_of(Path(word.partition("=data.train=")[2])) == format_of(Path(name)) != ""


def test_a_compute_that_is_a_placeholder_is_refused(sweep: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"submit.azureml.compute: is no name of a compute, got 'Your Compute Name'"):
        made(sweep, "submit.azureml.compute=Your Compute Name")
    made(sweep, "submit.azureml.compute=/subscriptions/s/resourceGroups/g/providers/p/computes/c")


def test_another_autotune_may_be_named(sweep: dict[str, Any]) -> None:
    job = made(sweep, "submit.azureml.install=autotune-genai[cpu]==0.1.0")
    assert not (Path(job["code"]) / "tool").exists()
    assert "PYTHONPATH" not in job["command"]
    assert job["environment"]["conda_file"]["dependencies"][-1]["pip"] == ["autotune-genai[cpu]==0.1.0"]


def test_a_folder_of_somebody_elses_is_not_replaced(sweep: dict[str, Any]) -> None:
    Path("tones.azureml.code").mkdir()
    Path("tones.azureml.code/mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="holds something else than the code of a job"):
        made(sweep)
    assert Path("tones.azureml.code/mine.txt").is_file()


@pytest.mark.parametrize("place", ["azureml", "slurm", "skypilot"])
def test_the_sweep_file_is_not_written_over(sweep: dict[str, Any], place: str) -> None:
    text = yaml.safe_dump(sweep)
    Path("sweep.yaml").write_text(text, encoding="utf-8")
    Path("here").symlink_to(".")
    for output in (Path("sweep.yaml"), Path("here/sweep.yaml")):
        with pytest.raises(UsageError, match="would be written over the sweep file"):
            write(Path("sweep.yaml"), place, output, [])
    assert Path("sweep.yaml").read_text(encoding="utf-8") == text


def test_the_code_of_a_job_is_submitted_without_being_removed(sweep: dict[str, Any]) -> None:
    made(sweep)
    code = Path("tones.azureml.code/sweep.yaml")
    with pytest.raises(UsageError, match="over a folder that holds it"):
        write(code, "azureml", None, [])
    assert code.is_file()


def test_a_missing_file_of_rows_is_told_before_anything_is_sent(sweep: dict[str, Any]) -> None:
    sweep["data"]["validation"] = "other.jsonl"
    with pytest.raises(UsageError, match=r"data\.validation: the file must exist"):
        made(sweep)


# --- Olive's own way to a token --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["system", "top"])
def test_olives_vault_becomes_a_reference(place: str) -> None:
    document = copy.deepcopy(own()["guide-azureml"])
    system = next(one for one in document["systems"].values() if one["config"].get("hf_token"))
    client = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w", "keyvault_name": "my-vault"}
    if place == "system":
        system["config"]["azureml_client"] = client
    else:
        document["azureml_client"] = client
    found = import_olive(document, "olive.json").sweep["submit"]["azureml"]
    assert found["hf_token"] == "https://my-vault.vault.azure.net/secrets/hf-token"
    system["config"]["hf_token"] = False
    assert "hf_token" not in import_olive(document, "olive.json").sweep["submit"]["azureml"]


def test_a_token_without_a_vault_is_told() -> None:
    imported = import_olive(copy.deepcopy(own()["guide-azureml"]), "olive.json")
    assert "hf_token" not in imported.sweep["submit"]["azureml"]
    assert "submit.azureml.hf_token names a key vault's secret" in json.dumps([str(one) for one in imported.notes])
