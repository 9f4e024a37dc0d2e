"""Engines that a provider compiles: kept in the cache, each beside others of another graph, device, driver or version."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from autotune import providers
from autotune.artifacts.room import evict, tidy
from autotune.artifacts.store import Cache
from autotune.candidate import Session
from autotune.errors import StageError, StageStatus
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.providers import PROVIDERS
from autotune.stages import timing
from autotune.stages.jobs import TimeJob, TurnsJob
from autotune.stages.protocol import Result

COMPILING = sorted(name for name, provider in PROVIDERS.items() if provider.engines_option)
OTHERS = sorted(set(PROVIDERS) - set(COMPILING))


class Timed(LocalEngine):
    """An engine that notes where the engines of each timing are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.folders: list[Path | None] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def time(self, job: TimeJob, log: Path, timeout: float | None = None) -> tuple[list[Result], float]:
        self.folders.append(job.engines_dir)
        if job.engines_dir is not None:
            job.engines_dir.mkdir(parents=True, exist_ok=True)
            (job.engines_dir / "blob").write_bytes(bytes(200_000))
            self.meanwhile()
        return [{"warm_up_s": 7.0 + n} for n in range(3)], 1.0

    def time_in_turns(self, job: TurnsJob, log: Path, timeout: float | None = None) -> tuple[list[list[Result]], float]:
        self.folders += [graph.engines_dir for graph in job.graphs]
        return [], 1.0


def job_of(provider: str, tmp_path: Path, **changes: Any) -> TimeJob:
    return TimeJob(
        **{"graph": "g", "prompt_tokens": 4, "new_tokens": 2, "machine": "m", "hardware": "10de:2684 gpu RTX driver 570.1"}
        | changes,
        provider=provider, model_dir=tmp_path, build="b",
    )  # fmt: skip


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    return Stages(Cache(tmp_path / "cache"), Timed(), lambda: tmp_path / "log")


def folders(stages: Stages, *jobs: TimeJob) -> list[Path | None]:
    engine = stages.engine
    assert isinstance(engine, Timed)
    engine.folders.clear()
    for job in jobs:
        stages.again(job)
    return list(engine.folders)


@pytest.mark.parametrize("name", COMPILING)
def test_engines_are_kept_in_our_cache_of_each_graph_device_driver_and_version(
    name: str, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"graph": "other"}, {"device_index": 1}, {"hardware": "10de:2684 gpu RTX driver 580.2"},
        {"hardware": "10de:2704 gpu RTX driver 570.1"}, {"machine": "another"}, {"provider_options": "profile=long"},
    ]  # fmt: skip
    kept = folders(stages, *(job_of(name, tmp_path, **one) for one in changes))
    assert len(set(kept)) == len(changes)
    for folder in kept:
        assert folder is not None
        assert folder.parent == stages.cache.root / "engines"
    # What is timed differently has the same engines, and so has the next adapter with this graph.
    same = [{"new_tokens": 9}, {"again": 1}, {"build": "another"}, {"since": "2026"}]
    assert set(folders(stages, *(job_of(name, tmp_path).model_copy(update=one) for one in same))) == {kept[0]}
    known, plugin = providers.installed, PROVIDERS[name].plugin
    assert plugin is not None
    for package in (plugin.package, "onnxruntime", "onnxruntime-genai"):
        with monkeypatch.context() as patch:
            for module in ("autotune.providers", "autotune.artifacts.compiled_engines"):
                patch.setattr(f"{module}.installed", lambda one, p=package: "99.9" if one == p else known(one))
            assert folders(stages, job_of(name, tmp_path))[0] not in kept, package


@pytest.mark.parametrize("name", COMPILING)
def test_finalists_have_the_engines_of_their_timings(name: str, stages: Stages, tmp_path: Path) -> None:
    jobs = job_of(name, tmp_path), job_of(name, tmp_path, graph="other")
    single = folders(stages, *jobs)
    stages.engine.folders.clear()  # type: ignore[attr-defined]
    stages._runner.time(TurnsJob(graphs=jobs), tmp_path / "log", 9.0)
    assert stages.engine.folders == single  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", OTHERS)
def test_a_provider_that_compiles_none_has_no_folder(name: str, stages: Stages, tmp_path: Path) -> None:
    assert folders(stages, job_of(name, tmp_path)) == [None]


class Config:
    """What is set in a configuration of ONNX Runtime GenAI."""

    made: list[Config]

    def __init__(self, folder: str) -> None:
        self.options: dict[str, str] = {}

    def set_provider_option(self, provider: str, option: str, value: str) -> None:
        self.options[f"{provider}.{option}"] = value

    def clear_providers(self) -> None: ...

    def append_provider(self, name: str) -> None: ...


@pytest.mark.parametrize("name", COMPILING)
def test_the_provider_is_told_the_folder_by_its_own_option_and_a_users_own_counts_more(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime_genai as og

    (tmp_path / "genai_config.json").write_text('{"model": {"decoder": {}}}', encoding="utf-8")
    made: list[Config] = []
    monkeypatch.setattr(og, "Config", lambda folder: made.append(Config(folder)) or made[-1])
    monkeypatch.setattr(og, "Model", lambda config: config)
    monkeypatch.setattr(timing, "register", lambda provider, runtime: None)
    monkeypatch.setattr(timing, "device_of", lambda provider, index: None)
    provider, engines = PROVIDERS[name], tmp_path / "engines" / "one"
    option = f"{provider.genai_name}.{provider.engines_option}"
    timing.load(tmp_path, name, Session(), engines=engines)
    assert made[-1].options == {option: str(engines)}
    assert engines.is_dir()
    own = Session(provider_options=f"{provider.engines_option}=/mine")
    timing.load(tmp_path, name, own, engines=engines)
    assert made[-1].options == {option: "/mine"}
    timing.load(tmp_path, name, Session())
    assert made[-1].options == {}


@pytest.mark.parametrize("name", COMPILING)
def test_engines_stay_while_they_are_used_and_are_the_first_to_make_room_when_they_are_not(
    name: str, stages: Stages, tmp_path: Path
) -> None:
    cache, engine = stages.cache, stages.engine
    assert isinstance(engine, Timed)
    engine.meanwhile = lambda: (tidy(cache), evict(cache, lambda _: False, cache.entries()))
    folder = folders(stages, job_of(name, tmp_path))[0]
    assert folder is not None
    assert (folder / "blob").is_file()
    entry = next(one for one in cache.entries() if one.path == folder)
    assert (entry.stage, entry.state, entry.seconds, entry.model, entry.kept_for) == ("engines", "whole", 9.0, "", "")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["described"]["provider"] == name
    assert tidy(cache) == []  # they are no leftover
    assert folders(stages, job_of(name, tmp_path)) == [folder]
    assert [one.what.partition("/")[0] for one in evict(cache, lambda _: False, cache.entries())] == ["engines"]
    assert not folder.exists()


@pytest.mark.parametrize("name", COMPILING)
@pytest.mark.parametrize("status", get_args(StageStatus))
def test_engines_of_a_timing_that_failed_are_removed_unless_an_earlier_timing_has_described_them(
    name: str, status: StageStatus, stages: Stages, tmp_path: Path
) -> None:
    engine = stages.engine
    assert isinstance(engine, Timed)

    def fail() -> None:
        raise StageError(status, "the driver refused the graph")

    engine.meanwhile = fail
    with pytest.raises(StageError):
        folders(stages, job_of(name, tmp_path))
    half = engine.folders[0]
    assert half is not None
    assert not half.exists()
    assert [entry for entry in stages.cache.entries() if entry.stage == "engines"] == []
    engine.meanwhile = lambda: None
    assert folders(stages, job_of(name, tmp_path)) == [half]
    engine.meanwhile = fail
    with pytest.raises(StageError):
        folders(stages, job_of(name, tmp_path))
    assert (half / "blob").is_file()


@pytest.mark.parametrize("name", COMPILING)
def test_engines_of_a_timing_that_failed_stay_where_another_process_uses_them(
    name: str, stages: Stages, tmp_path: Path
) -> None:
    engine = stages.engine
    assert isinstance(engine, Timed)
    other = Cache(stages.cache.root)

    def fail() -> None:
        assert engine.folders[0] is not None
        other.leases.mark(engine.folders[0])
        raise StageError("failed", "the driver refused the graph")

    engine.meanwhile = fail
    with pytest.raises(StageError):
        folders(stages, job_of(name, tmp_path))
    assert engine.folders[0] is not None
    assert (engine.folders[0] / "blob").is_file()
    other.leases.unmark(engine.folders[0])
