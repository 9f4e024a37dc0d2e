"""Providers as data: each has its extra, its plugin with the version that is tested, and a script that loads a model on it."""

from __future__ import annotations

import ast
import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from autotune import providers
from autotune.candidate import Recipe
from autotune.cli import main
from autotune.errors import Exit
from autotune.pipeline import devices
from autotune.pipeline.devices import Offered, plugin_problem
from autotune.providers import LIBRARIES, PROVIDERS, Provider, in_worker, use_library
from autotune.results.loading import load_script
from autotune.stages.jobs import BuildJob, ScoreJob, TimeJob

ROOT = Path(__file__).parents[1]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "optional-dependencies"
]
PINNED = dict(
    line.split("==")
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if "==" in line and not line.startswith("#")
)
PLUGINS = [provider for provider in PROVIDERS.values() if provider.plugin is not None]


@pytest.fixture
def no_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds is gone after it."""
    monkeypatch.setenv(LIBRARIES, "")
    before = dict(PROVIDERS)
    yield
    PROVIDERS.clear()
    PROVIDERS.update(before)


def test_adding_a_provider_is_one_entry_and_one_extra() -> None:
    assert {provider.extra for provider in PROVIDERS.values()} <= set(EXTRAS)
    for provider in PLUGINS:
        assert provider.plugin is not None
        needed = " ".join(EXTRAS[provider.extra])
        assert "autotune-genai[cpu]" in needed  # beside the plain wheel
        major, minor = provider.plugin.series.split(".")
        assert f"{provider.plugin.package}>={provider.plugin.series},<{major}.{int(minor) + 1}" in needed
        assert PINNED[provider.plugin.package].startswith(f"{provider.plugin.series}.")
        assert provider.plugin.package in provider.install


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.name)
def test_best_shows_in_some_lines_how_it_is_loaded(provider: Provider) -> None:
    script = load_script(provider)
    code = [line for line in script.split('"""')[2].splitlines() if line and not line.startswith("import")]
    assert len(code) <= 11
    ast.parse(script)
    assert ("register_execution_provider_library" in script) == provider.plugged
    assert provider.install in script


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("", "provider webgpu needs onnxruntime-ep-webgpu, which is not installed"),
        ("0.3.9", "provider webgpu needs onnxruntime-ep-webgpu 0.4, and 0.3.9 is installed"),
        ("0.40.1", "provider webgpu needs onnxruntime-ep-webgpu 0.4, and 0.40.1 is installed"),
        ("0.4", ""),
        ("0.4.7", ""),
    ],
)
def test_a_plugin_must_be_of_a_version_that_is_tested(monkeypatch: pytest.MonkeyPatch, there: str, said: str) -> None:
    monkeypatch.setattr(devices, "installed", lambda package: there)
    assert plugin_problem(PROVIDERS["webgpu"]) == said
    assert plugin_problem(PROVIDERS["cpu"]) == ""


def test_results_of_plugins_are_known_by_their_versions_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> list[str]:
        score = {"source": "b", "data": "d", "metric": "choice", "max_length": 8}
        timing = {"graph": "g", "prompt_tokens": 4, "new_tokens": 4, "machine": "m"}
        jobs = [
            kind.model_validate({"provider": name, **fields})
            for name in ("cpu", "cuda", "webgpu")
            for kind, fields in ((ScoreJob, score), (TimeJob, timing))
        ]
        build = BuildJob(source="s", recipe=Recipe(precision="fp32"), provider="webgpu")
        return [job.key for job in [*jobs, build]]

    before = keys()
    monkeypatch.setattr(providers, "installed", lambda package: "9.9")
    changed = [one != other for one, other in zip(before, keys(), strict=True)]
    assert changed == [False, False, False, False, True, True, False]
    one = TimeJob(graph="g", provider="webgpu", prompt_tokens=4, new_tokens=4, machine="m")
    others = [one.model_copy(update=change) for change in ({"device_index": 1}, {"hardware": "1002:744c gpu X 24.1"})]
    assert len({job.key for job in [one, *others]}) == 3


def test_a_device_is_known_by_its_numbers_its_name_and_its_driver() -> None:
    device = {"kind": "gpu", "name": "Some GPU", "vendor_id": 0x1002, "device_id": 0x744C, "driver": "24.1"}
    other = device | {"name": "Another", "device_id": 1}
    assert Offered((other, device), index=1).hardware == "1002:744c gpu Some GPU 24.1"


# --- A library of another vendor -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_library")
def test_a_library_is_known_by_its_content_in_worker_processes_as_well(tmp_path: Path) -> None:
    library = tmp_path / "libvendor.so"
    library.write_bytes(b"\x7fELF")
    use_library("VendorExecutionProvider", str(library))
    known = PROVIDERS["VendorExecutionProvider"]
    assert known.plugged
    assert known.builds_as == "cpu"
    assert list(known.packages) == ["libvendor.so"]
    assert len(known.packages["libvendor.so"]) == 64
    del PROVIDERS["VendorExecutionProvider"]
    assert json.loads(os.environ[LIBRARIES]) == {"VendorExecutionProvider": str(library.resolve())}
    in_worker()
    assert PROVIDERS["VendorExecutionProvider"] == known


@pytest.mark.usefixtures("no_library")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cpu=x", "cpu has a package of its own"),
        ("webgpu=x", "webgpu has a package of its own"),
        ("Vendor=missing.so", "there is no library missing.so"),
        ("missing.so", "takes NAME=PATH"),
        ("=x", "takes NAME=PATH"),
        ("a b=x", "takes NAME=PATH"),
    ],
)
def test_a_wrong_library_is_refused_with_the_rule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--provider-library", given]) == Exit.USAGE
    assert said in (shown := capsys.readouterr().err)
    assert "Traceback" not in shown


@pytest.mark.usefixtures("no_library")
def test_a_sweep_file_cannot_name_a_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    library = tmp_path / "libvendor.so"
    library.write_bytes(b"\x7fELF")
    sweep = f"model: smollm2-135m-instruct\ndata: {{train: t.jsonl, prompt: a, completion: b}}\nspace: {{build: [{{precision: fp32}}]}}\ntarget: {{provider: '{library}', library: '{library}'}}\n"
    file = tmp_path / "sweep.yaml"
    file.write_text(sweep, encoding="utf-8")
    assert main(["plan", str(file)]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "no such execution provider" in said
    assert "--provider-library" in said
    assert "target.library" in said
