"""Files for other places: what they run, that their own parsers take them, and that no secret gets into one."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import HANG_S, until

from autotune.cli import main
from autotune.errors import UsageError
from autotune.submit.command import write
from autotune.sweepfile.overrides import apply_set
from autotune.sweepfile.resolve import load_sweep
from benchmarks.olive_files import own

TOKEN = "hf_" + "SecretToken" * 3


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep file in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "rows.jsonl").write_text('{"a": "x", "b": "y"}\n', encoding="utf-8")
    content = {
        "name": "tones", "model": "owner/model", "data": {"train": "rows.jsonl", "prompt": "{a}", "completion": "{b}"},
        "space": {"lora": {"r": {"choice": [4, 8]}}, "build": {"precision": "int4"}}, "target": {"provider": "cuda"},
    }  # fmt: skip
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return Path("sweep.yaml")


def test_a_script_of_slurm_is_shell_and_asks_for_what_the_sweep_needs(sweep: Path) -> None:
    sets = ["submit.slurm.partition=gpu", "submit.slurm.hours=1.5", "submit.slurm.cpus=8", "submit.slurm.memory_gb=64",
            "submit.slurm.setup=[module load cuda]", "budget.trials=3"]  # fmt: skip
    said = write(sweep, "slurm", None, sets)
    assert said == "wrote tones.slurm.sh; run it with: sbatch tones.slurm.sh"
    text = Path("tones.slurm.sh").read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", "tones.slurm.sh"], check=True)
    for line in ("--time=0-01:30:00", "--partition=gpu", "--gpus=1", "--cpus-per-task=8", "--mem=64G", "--requeue"):
        assert f"#SBATCH {line}\n" in text
    assert "\nmodule load cuda\n" in text
    assert "autotune run sweep.yaml --out results/tones " in text
    assert "--set=budget.trials=3" in text


def _run_script(folder: Path, child: str, stop: bool) -> tuple[int, str]:
    """Run the script with a stand-in for the sweep and for Slurm's scontrol; `stop`: ask it to end, as Slurm does."""
    tools = folder / "bin"
    tools.mkdir()
    for name, body in (("autotune", child), ("scontrol", 'echo "$@" >> calls')):
        (tools / name).write_text(f"#!/usr/bin/env bash\n{body}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    given = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "17"}
    done = subprocess.Popen(["bash", "tones.slurm.sh"], cwd=folder, env=given)
    if stop:
        until((folder / "began").exists, "the beginning of the sweep")
        done.terminate()
    code = done.wait(HANG_S)
    calls = folder / "calls"
    return code, calls.read_text(encoding="utf-8") if calls.exists() else ""


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
@pytest.mark.parametrize(
    ("child", "stop", "code", "calls"),
    [
        ("exit 0", False, 0, ""),
        ("exit 4", False, 4, ""),
        # The sweep keeps its checkpoint when it is asked to end, and says so by 130.
        ("trap 'sleep 0.2; exit 130' TERM; touch began; while true; do sleep 0.05; done", True, 130, "requeue 17\n"),
        ("trap 'exit 0' TERM; touch began; while true; do sleep 0.05; done", True, 0, ""),
        # So early that the command does not yet listen: the signal itself ends it.
        ("touch began; exec sleep 600", True, 143, "requeue 17\n"),
    ],
    ids=["done", "no feasible", "preempted", "ended just then", "preempted at its start"],
)
def test_a_script_that_is_preempted_queues_itself_again(
    sweep: Path, tmp_path: Path, child: str, stop: bool, code: int, calls: str
) -> None:
    write(sweep, "slurm", None, [])
    assert _run_script(tmp_path, child, stop) == (code, calls)


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
def test_a_script_that_is_preempted_before_it_knows_its_sweep_ends_it_all_the_same(sweep: Path, tmp_path: Path) -> None:
    write(sweep, "slurm", None, [])
    script = Path("tones.slurm.sh")
    text = script.read_text(encoding="utf-8")
    assert text.count("\nchild=$!\n") == 1
    # The signal comes between the start of the sweep and the line that keeps its number.
    at_once = "until [ -e began ]; do sleep 0.05; done; kill -TERM $$; child=$!"
    script.write_text(text.replace("\nchild=$!\n", f"\n{at_once}\n"), encoding="utf-8")
    child = "trap 'exit 130' TERM; touch began; while true; do sleep 0.05; done"
    assert _run_script(tmp_path, child, stop=False) == (130, "requeue 17\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Slurm runs on Linux")
def test_lines_of_setup_may_read_variables_that_are_not_set(sweep: Path, tmp_path: Path) -> None:
    """As the scripts of conda and of environment modules do."""
    lines = ['[ -z "$NOBODY_HAS_SET_THIS" ]', "false | true", "echo ready > began"]
    write(sweep, "slurm", None, [f"submit.slurm.setup={json.dumps(lines)}"])
    assert _run_script(tmp_path, "cat began > ran; exit 4", False) == (4, "")
    assert (tmp_path / "ran").read_text(encoding="utf-8") == "ready\n"


@pytest.mark.parametrize("name", ["a_-_b", "Tones.v2", "x--y", "a" * 50 + "-b" * 7, "1._2"])
def test_a_task_of_skypilot_and_its_bucket_have_names_that_clouds_take(sweep: Path, name: str) -> None:
    """By the rules of SkyPilot for tasks, and those of S3, Google and Azure for buckets."""
    write(sweep, "skypilot", Path("made.yaml"), [f"name='{name}'"])
    task = yaml.safe_load(Path("made.yaml").read_text(encoding="utf-8"))
    assert re.fullmatch(r"[a-zA-Z0-9]+(?:[._-]{1,2}[a-zA-Z0-9]+)*", task["name"])
    assert re.fullmatch(r"[a-z0-9](?:-?[a-z0-9]){2,62}", task["file_mounts"]["/outputs"]["name"])
    assert f"--out /outputs/{name} " in task["run"]


def test_a_task_of_skypilot_keeps_results_in_a_bucket(sweep: Path) -> None:
    write(sweep, "skypilot", None, ["submit.skypilot.infra=aws/us-east-1", "submit.skypilot.memory_gb=32"])
    task = yaml.safe_load(Path("tones.sky.yaml").read_text(encoding="utf-8"))
    assert task["resources"] == {"infra": "aws/us-east-1", "accelerators": "L4:1", "memory": "32+", "use_spot": True}
    assert task["envs"] == {"AUTOTUNE_CACHE": "/outputs/cache"}
    assert "--out /outputs/tones" in task["run"]
    assert "'autotune-genai[cuda]'" in task["setup"]


def test_an_instance_of_skypilot_gets_what_metric_and_data_need(sweep: Path) -> None:
    write(sweep, "skypilot", None, ["data.metric=lm-eval:arc_easy", "data.train={dataset: owner/rows, split: train}"])
    task = yaml.safe_load(Path("tones.sky.yaml").read_text(encoding="utf-8"))
    assert "'autotune-genai[cuda,hub,lm-eval]'" in task["setup"]


def test_an_instance_of_skypilot_finds_files_by_their_paths_in_the_copy(sweep: Path, tmp_path: Path) -> None:
    """The working directory is all that is copied there: whole paths of this machine name nothing."""
    folder = tmp_path / "sweeps"
    folder.mkdir()
    (tmp_path / "it's 1 #a.jsonl").write_text('{"a": "x", "b": "y"}\n' * 3, encoding="utf-8")
    text = sweep.read_text(encoding="utf-8").replace("train: rows.jsonl", f"train: '{tmp_path}/it''s 1 #a.jsonl[:2]'")
    (folder / "s.yaml").write_text(text, encoding="utf-8")
    write(folder / "s.yaml", "skypilot", Path("made.yaml"), ["seed=1"])
    run = yaml.safe_load(Path("made.yaml").read_text(encoding="utf-8"))["run"]
    words = shlex.split(next(line for line in run.splitlines() if "autotune run" in line))
    assert words[:3] == ["autotune", "run", "sweeps/s.yaml"]
    assert words[5:7] == ["--set=seed=1", "--set=data.train='it''s 1 #a.jsonl[:2]'"]
    assert load_sweep(sweep, [words[6].removeprefix("--set=")]).data.train == "it's 1 #a.jsonl[:2]"


@pytest.mark.parametrize("name", ["2024", "null", "1e5", "[a]", "yes", "plain"])
def test_an_instance_of_skypilot_reads_the_name_of_a_model_as_text(
    sweep: Path, tmp_path: Path, tiny_llama: Path, name: str
) -> None:
    folder = shutil.copytree(tiny_llama, tmp_path / name)
    write(sweep, "skypilot", Path("made.yaml"), [f"model={json.dumps(str(folder))}"])
    run = yaml.safe_load(Path("made.yaml").read_text(encoding="utf-8"))["run"]
    words = shlex.split(next(line for line in run.splitlines() if "autotune run" in line))
    (set_to,) = (word.removeprefix("--set=") for word in words[6:] if word.startswith("--set=model="))
    changed: dict[str, object] = {}
    apply_set(changed, set_to)
    assert changed == {"model": name}


@pytest.mark.parametrize("what", ["sweep", "data", "model", "missing"])
def test_files_that_an_instance_of_skypilot_would_not_have_are_refused(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_llama: Path, what: str
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    file = inside / "s.yaml" if what != "sweep" else tmp_path / "s.yaml"
    file.write_text((tmp_path / "sweep.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    rows = {"data": "../rows.jsonl", "missing": "none.jsonl"}.get(what, "rows.jsonl")
    if what in ("model", "sweep"):
        Path("rows.jsonl").write_text('{"a": "x", "b": "y"}\n', encoding="utf-8")
    sets = [f"data.train={rows}", *([f"model={tiny_llama}"] if what == "model" else [])]
    with pytest.raises(UsageError) as error:
        write(file, "skypilot", None, sets)
    (problem,) = error.value.problems
    assert problem.key == {"sweep": "", "data": "data.train", "model": "model", "missing": "data.train"}[what]
    assert ("outside the working directory" in problem.rule) == (what != "missing")
    assert not list(inside.glob("*.sky.yaml"))
    # What is not on this machine at all may be in a bucket of the instance.
    if what == "data":
        write(file, "skypilot", None, ["data.train=/bucket/rows.jsonl"])


def test_skypilots_own_parser_takes_the_task(sweep: Path) -> None:
    sky = pytest.importorskip("sky", reason="SkyPilot is not installed")
    write(sweep, "skypilot", None, [])
    task = sky.Task.from_yaml("tones.sky.yaml")
    assert task.name == "tones"
    assert "/outputs" in task.storage_mounts


def olive(folder: Path) -> Path:
    (folder / "olive.json").write_text(json.dumps(own()["guide-azureml"]), encoding="utf-8")
    return Path("olive.json")


def test_a_job_of_azure_ml_has_model_and_data_as_inputs(sweep: Path, tmp_path: Path) -> None:
    (tmp_path / "conda.yaml").write_text("dependencies: [python=3.8.13]\n", encoding="utf-8")
    said = write(olive(tmp_path), "azureml", None, ["space.lora.steps=5", "search=true"])
    assert "conda.yaml: python=3.8.13 is raised to python=3.11" in said
    text = Path("olive.azureml.yaml").read_text(encoding="utf-8")
    assert "--resource-group group --workspace-name space" in text
    job = yaml.safe_load(text)
    assert job["compute"] == "azureml:gpu-cluster"
    assert job["environment"]["image"] == "mcr.microsoft.com/azureml/base"
    assert job["environment"]["conda_file"]["dependencies"][0] == "python=3.11"
    assert job["inputs"]["model"]["path"] == "azureml://registries/azureml/models/Phi-3-mini-4k-instruct/versions/11"
    assert job["inputs"]["train"]["path"].endswith("/datastores/workspaceblobstore/paths/data/train.json")
    assert job["outputs"]["folder"]["path"].endswith("/autotune/olive")
    for part in (
        "--set=model=${{inputs.model}}",
        "--set=data.train=${{inputs.train}}",
        "--set=space.lora.steps=5",
        "--search",
    ):
        assert part in job["command"]


def test_the_command_of_a_job_is_run_with_folders_for_its_inputs(sweep: Path, tmp_path: Path, tiny_llama: Path) -> None:
    """What Azure ML would fill in is filled in here, and the command is planned by the real tool."""
    write(olive(tmp_path), "azureml", None, ["target.provider=cpu", "train.max_length=64"])
    command: str = yaml.safe_load(Path("olive.azureml.yaml").read_text(encoding="utf-8"))["command"]
    rows = [{"Question": f"what {n}", "Best Answer": f"this {n % 3}"} for n in range(40)]
    (tmp_path / "train.json").write_text(json.dumps(rows), encoding="utf-8")
    for name, value in (
        ("inputs.model", tiny_llama),
        ("inputs.train", tmp_path / "train.json"),
        ("outputs.folder", tmp_path / "o"),
    ):
        command = command.replace("${{" + name + "}}", str(value))
    assert "${{" not in command
    tool = f"{shlex.quote(sys.executable)} -m autotune plan"
    command = command.replace("autotune run", tool).replace(f' --out "{tmp_path}/o/results"', "")
    root = str(Path(__file__).parent.parent)
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": root}
    )
    assert done.returncode == 0, done.stderr
    assert "choice" in done.stdout or "accuracy" in done.stdout


def test_the_sdk_of_azure_takes_the_job(sweep: Path, tmp_path: Path) -> None:
    ml = pytest.importorskip("azure.ai.ml", reason="azure-ai-ml is not installed")
    write(olive(tmp_path), "azureml", None, [])
    job = ml.load_job("olive.azureml.yaml")
    assert job.compute in ("gpu-cluster", "azureml:gpu-cluster")
    assert job.inputs["train"].type == "uri_file"
    assert job.outputs["folder"].mode == "rw_mount"


@pytest.mark.parametrize(
    ("place", "sets", "said"),
    [
        ("azureml", [], "names no compute"),
        ("slurm", ["submit.slurm.partition='a b'"], "submit.slurm.partition"),
        ("slurm", ['submit.slurm.setup=["a\\nb"]'], "submit.slurm.setup"),
        ("slurm", ["model=azureml://registries/r/models/m/versions/1"], "use --to azureml"),
        ("skypilot", ["data.train=azureml://x/train.json"], "use --to azureml"),
        ("skypilot", ["submit.skypilot.spott=true"], "did you mean 'spot'"),
        ("skypilot", ["submit.skypilot.cloud=aws"], "write infra: aws/us-east-1"),
        ("skypilot", ["submit.skypilot.gpus='A100:1'"], "did you mean 'accelerators'"),
        ("skypilot", ["submit.skypilot.secrets=[HF_TOKEN]"], "sky jobs launch --env NAME=VALUE, or --secret NAME"),
        ("slurm", ["submit.slurm.time='24:00:00'"], "write hours: 24"),
        ("slurm", ["submit.slurm.hours='1-12:30:00'"], "write 36.5"),
        ("slurm", ["submit.slurm.mem=64G"], "write memory_gb: 64"),
        ("slurm", ["submit.slurm.qos=high"], "add a line of #SBATCH for it"),
        ("slurm", ["submit.slurm.env={A: b}"], "write setup: [export NAME=VALUE]"),
        ("azureml", ["submit.azureml.vm_size=Standard_NC6s_v3"], "write instance_type"),
        ("azureml", ["submit.azureml.sku=Standard_NC6s_v3"], "write instance_type"),
        ("azureml", ["submit.azureml.cluster=c"], "did you mean 'compute'"),
        ("azureml", ["submit.azureml.low_priority=true"], "write spot: true"),
        ("azureml", ["submit.azureml.environment_variables={A: b}"], "add it to the job's file as environment_variables"),
        ("azureml", ["submit.azureml.secrets={HF_TOKEN: x}"], "https://VAULT.vault.azure.net/secrets/NAME"),
        ("azureml", ["submit.azureml.hf_token='${HF_TOKEN}'"], "must name a secret of a key vault"),
        ("azureml", ["submit.compute=c"], "write it in azureml"),
        ("azureml", ["azureml={compute: c}"], "write it in submit"),
        ("azureml", ["submit.azureml.compute=Standard_NC6s_v3"], "compute: serverless and instance_type: Standard_NC6s_v3"),
        ("azureml", ["submit.azureml.compute=serverless"], "without a GPU, which the sweep needs"),
        ("azureml", ["submit.azureml.compute=c", "submit.azureml.subscription_id=s"], "without its resource_group and workspace_name"),
        ("azureml", ["submit.azureml.compute=c", "submit.azureml.environment=mcr.microsoft.com/azureml/x:1"], "submit.azureml.environment"),
        ("azureml", ["submit.azureml.compute=c", "data.train='azureml:rows:3'"], "write azureml://data/rows/versions/3"),
        ("azureml", ["submit.azureml.compute=c", "data.train='azureml:rows@latest'"], "azureml://data/rows/versions/VERSION"),
        ("azureml", ["submit.azureml.compute=c", "model='azureml:phi:1'"], "azureml://models/phi/versions/1"),
    ],
)  # fmt: skip
def test_what_cannot_run_there_is_refused(sweep: Path, place: str, sets: list[str], said: str) -> None:
    with pytest.raises(UsageError) as error:
        write(sweep, place, None, sets)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("envs", "azureml:envs@latest"), ("envs:3", "azureml:envs:3"), ("azureml:envs@mine", "azureml:envs@mine"),
        ("azureml:envs", "azureml:envs@latest"),
        ("azureml://registries/azureml/environments/acpt/versions/10", "azureml://registries/azureml/environments/acpt/versions/10"),
    ],
)  # fmt: skip
def test_an_environment_that_is_there_is_named_with_its_version(sweep: Path, given: str, written: str) -> None:
    sets = [f"submit.azureml.environment='{given}'", "submit.azureml.compute='azureml:gpu'"]
    write(sweep, "azureml", None, sets)
    job = yaml.safe_load(Path("tones.azureml.yaml").read_text(encoding="utf-8"))
    assert (job["environment"], job["compute"]) == (written, "azureml:gpu")


def test_devices_are_counted_in_any_form(sweep: Path) -> None:
    for given, asked in (("1", "1"), ("'gpu:a100:2'", "a100:2"), ("'a100:1'", "a100:1"), ("{a100: 4}", "a100:4")):
        write(sweep, "slurm", None, [f"submit.slurm.gpus={given}"])
        assert f"#SBATCH --gpus={asked}\n" in Path("tones.slurm.sh").read_text(encoding="utf-8")
    for bucket, key in (("s3://mine/runs", "source"), ("mine", "name")):
        write(sweep, "skypilot", None, ["submit.skypilot.accelerators={A100: 1}", f"submit.skypilot.bucket='{bucket}'"])
        task = yaml.safe_load(Path("tones.sky.yaml").read_text(encoding="utf-8"))
        assert task["resources"]["accelerators"] == "A100:1"
        assert task["file_mounts"]["/outputs"] == {key: bucket, "mode": "MOUNT_CACHED"}


def test_a_container_of_azure_storage_is_no_password(sweep: Path) -> None:
    text = sweep.read_text(encoding="utf-8").replace("rows.jsonl", "abfss://rows@mine.dfs.core.windows.net/a.jsonl")
    sweep.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match="no address is fetched"):
        write(sweep, "azureml", None, ["submit.azureml.compute=c"])


@pytest.mark.parametrize("place", ["slurm", "skypilot", "azureml"])
def test_no_token_gets_into_a_file(sweep: Path, place: str) -> None:
    write(sweep, place, Path("made"), ["submit.azureml.compute=cluster"])
    text = Path("made").read_text(encoding="utf-8")
    assert TOKEN not in text
    assert "hf_" not in text


@pytest.mark.parametrize("place", ["slurm", "skypilot"])
def test_a_token_among_the_changes_gets_into_no_file(sweep: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")  # known by its shape alone
    with pytest.raises(UsageError) as error:
        write(sweep, place, Path("made"), [f"data.prompt='{{a}} {TOKEN}1'"])
    assert TOKEN not in str(error.value)
    assert not Path("made").exists()


@pytest.mark.parametrize("place", ["slurm", "skypilot"])
def test_write_only_is_what_is_done_anyway(sweep: Path, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", str(sweep), "--to", place, "--write-only"]) == 0
    assert capsys.readouterr().out.startswith("wrote tones.s")
    assert main(["submit", str(sweep), "--to", place, "--follow"]) == 2
    assert "--follow: belongs to --to azureml" in capsys.readouterr().err


def test_what_comes_from_the_user_is_quoted(sweep: Path) -> None:
    odd = "name=a b; touch owned"
    with pytest.raises(UsageError):  # a name that no folder could have
        write(sweep, "slurm", None, [odd])
    write(sweep, "slurm", Path("made.sh"), ["data.prompt='{a}; touch owned $(touch owned)'"])
    line = next(one for one in Path("made.sh").read_text(encoding="utf-8").splitlines() if "autotune run" in one)
    words: Any = shlex.split(line.removesuffix(" &"))
    assert words[-1] == "--set=data.prompt='{a}; touch owned $(touch owned)'"
