"""The cache: one maker for a result, only successes, only whole ones, and a key of everything that decides."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest

from autotune.artifacts import store as store_module
from autotune.artifacts.store import HERE as SEEN
from autotune.artifacts.store import MANIFEST, Cache, default_root
from autotune.candidate import Lora, Recipe
from autotune.errors import StageError
from autotune.execution.runs import run_folder
from autotune.stages import protocol
from autotune.stages.jobs import BuildJob, FinetuneJob, MergeJob, ScoreJob, TimeJob
from autotune.stages.preparation_jobs import BaseJob, DataJob, LengthsJob, ProbeJob, TinyJob
from autotune.stages.protocol import Job, Result

HERE = Path("somewhere")
LORA = Lora(
    r=8, alpha=16.0, dropout=0.0, target_modules="all-linear", learning_rate=1e-3, schedule="linear", warmup=0.1,
    batch_size=8, accumulation=1, gradient_checkpointing=False, max_grad_norm=1.0, adam_beta1=0.9, adam_beta2=0.999,
    weight_decay=0.0, dtype="auto", max_length=256, steps=30,
)  # fmt: skip
JOBS: list[Job] = [
    BaseJob(name="model"),
    DataJob(dataset="owner/name", split="train"),
    ProbeJob(machine="m", packages_digest="p"),
    FinetuneJob(base="b", data="d", lora=LORA, seed=0, device="cpu", base_dir=HERE, data_file=HERE),
    MergeJob(adapter="a", base="b", base_dir=HERE, adapter_dir=HERE),
    BuildJob(source="s", recipe=Recipe(precision="int8"), provider="cpu", source_dir=HERE),
    ScoreJob(source="s", data="d", metric="choice", max_length=64, model_dir=HERE, data_file=HERE),
    TimeJob(graph="g", provider="cpu", prompt_tokens=8, new_tokens=4, machine="m", model_dir=HERE),
    LengthsJob(base="b", data="d", max_length=64, base_dir=HERE, data_file=HERE),
    TinyJob(),
]
TINY = JOBS[-1]


def maker(calls: list[Path], content: str = "content", seconds: float = 1.5) -> Callable[[Path], tuple[Result, float]]:
    def run(out: Path) -> tuple[Result, float]:
        calls.append(out)
        (out / "sub").mkdir()
        (out / "sub" / "file.txt").write_text(content, encoding="utf-8")
        return {"answer": 42}, seconds

    return run


def test_a_result_is_made_once_and_found_again(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), list[Path]()
    assert cache.find(TINY) is None
    made = cache.make(TINY, maker(calls), "model")
    assert (made.result, made.seconds, made.cached) == ({"answer": 42}, 1.5, False)
    assert made.path == tmp_path / "tiny" / TINY.key == cache.folder(TINY)
    assert (made.path / "sub" / "file.txt").read_text(encoding="utf-8") == "content"
    again = cache.make(TINY, maker(calls), "model")
    assert (again.path, again.result, again.seconds, again.cached) == (made.path, made.result, 1.5, True)
    assert again == cache.find(TINY)
    assert len(calls) == 1
    assert calls[0] != made.path
    assert cache.measured("tiny", "model") == [(TINY.described()["inputs"], {"answer": 42}, 1.5)]
    assert cache.measured("tiny", "another model") == cache.measured("nothing", "model") == []


def test_a_process_remembers_the_latest_results_that_it_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a sweep of many jobs needs no more memory; what is forgotten is compared once more."""
    monkeypatch.setattr(store_module, "_CHECKED", 3)
    cache, jobs_of_many = Cache(tmp_path), [TinyJob(seed=seed) for seed in range(8)]
    for job in jobs_of_many:
        cache.make(job, maker([]))
    assert all(cache.find(job) is not None for job in jobs_of_many)
    assert len(cache._checked) == 3
    for job in (jobs_of_many[0], jobs_of_many[-1]):
        damage_content(cache.folder(job))
    assert cache.find(jobs_of_many[0]) is None  # forgotten, and so compared
    assert cache.find(jobs_of_many[-1]) is not None  # a process reads it once


def test_a_folder_describes_itself(tmp_path: Path) -> None:
    stored = Cache(tmp_path).make(TINY, maker([]))
    manifest = json.loads((stored.path / MANIFEST).read_text(encoding="utf-8"))
    assert manifest["described"] == TINY.described()
    content = {"size": 7, "sha256": hashlib.sha256(b"content").hexdigest()}
    assert manifest["files"] == {"sub/file.txt": content}
    assert manifest["made"] <= time.time()


def test_one_of_four_threads_makes_it(tmp_path: Path) -> None:
    cache, calls = Cache(tmp_path), list[Path]()
    together = threading.Barrier(4)
    found: list[bool] = []

    def slow(out: Path) -> tuple[Result, float]:
        time.sleep(0.2)
        return maker(calls)(out)

    def ask() -> None:
        together.wait()
        found.append(cache.make(TINY, slow).cached)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert Counter(found) == {True: 3, False: 1}


@pytest.mark.parametrize("error", [StageError("out_of_memory", "no"), KeyboardInterrupt(), OSError(28, "full")])
def test_lesson_3_only_successes_are_kept(tmp_path: Path, error: BaseException) -> None:
    cache = Cache(tmp_path)

    def fail(out: Path) -> tuple[Result, float]:
        (out / "half.txt").write_text("half", encoding="utf-8")
        raise error

    with pytest.raises(type(error)):
        cache.make(TINY, fail)
    assert cache.find(TINY) is None
    assert [p for p in (tmp_path / "tiny").iterdir() if p.is_dir()] == []
    assert not cache.make(TINY, maker([])).cached


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    aside: list[Path] = []
    with pytest.raises(StageError):
        cache.make(
            TINY, lambda out: (aside.append(out), maker([])(out), (_ for _ in ()).throw(StageError("x", "y")))[0]
        )
    aside[0].mkdir()
    (aside[0] / "half.txt").write_text("half", encoding="utf-8")
    stored = cache.make(TINY, maker([]))
    assert sorted(p.name for p in stored.path.iterdir()) == [MANIFEST, "sub"]
    assert not aside[0].exists()


def damage_size(folder: Path) -> None:
    (folder / "sub" / "file.txt").write_text("shorter"[:3], encoding="utf-8")


def damage_content(folder: Path) -> None:
    (folder / "sub" / "file.txt").write_text("CONTENT", encoding="utf-8")


def remove_file(folder: Path) -> None:
    (folder / "sub" / "file.txt").unlink()


def remove_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def manifest_of(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / MANIFEST).write_text(text, encoding="utf-8")

    return write


DAMAGE = [damage_size, damage_content, remove_file, remove_manifest, *map(manifest_of, (
    "", "{", "[]", "null", "{}", '{"files": [], "result": {}, "seconds": 1}', '{"files": {}, "result": 3, "seconds": 1}',
    '{"files": {}, "result": {}, "seconds": null}',
))]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_made_again(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    cache, calls = Cache(tmp_path), list[Path]()
    folder = cache.make(TINY, maker(calls)).path
    damage(folder)
    cache = Cache(tmp_path)  # the process that made it does not read it again
    assert cache.find(TINY) is None
    cache.measured("tiny", "")  # leaves it out, or not, but never fails
    again = cache.make(TINY, maker(calls, "new content"))
    assert (again.cached, len(calls)) == (False, 2)
    assert (folder / "sub" / "file.txt").read_text(encoding="utf-8") == "new content"
    assert cache.find(TINY) is not None


# --- keys ------------------------------------------------------------------------------------------------------------


def other(value: Any, annotation: Any) -> Any:
    """Return another value of a field."""
    kinds = set(get_args(annotation)) or {annotation}
    if isinstance(value, bool) or bool in kinds:
        return not value
    if isinstance(value, Lora):
        return value.model_copy(update={"r": value.r + 1})
    if isinstance(value, Recipe):
        return value.model_copy(update={"precision": "int4"})
    if "tuple[int, int] | None" in str(annotation):
        return (3, 4)
    if "tuple[tuple" in str(annotation):
        return (*(value or ()), (9, 9))
    if isinstance(value, dict) or any("dict" in str(kind) for kind in kinds):
        return {**(value or {}), "another": 1}
    if isinstance(value, tuple) or any("tuple" in str(kind) for kind in kinds):
        return (*(value or ()), "another")
    if isinstance(value, Path) or Path in kinds:
        return Path("elsewhere")
    if isinstance(value, int | float) or kinds & {int, float}:
        return (value or 0) + 1
    return f"another {value}"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stage)
def test_lesson_4_the_key_is_of_everything_that_decides_and_of_no_place(job: Job) -> None:
    assert len(job.key) == 64
    kind = type(job)
    for name, info in kind.model_fields.items():
        changed = job.model_copy(update={name: other(getattr(job, name), info.annotation)})
        assert (changed.key == job.key) == bool(info.exclude), name
    places = {name for name, info in kind.model_fields.items() if info.exclude}
    assert all(
        name.endswith(("_dir", "_file", "_limit_s"))
        or name in ("items", "code_root", "file", "root", "begun", "label", *kind.sources.values())
        for name in places
    )


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.stage)
def test_lesson_4_the_key_is_of_versions(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def key_now() -> str:
        return job.model_copy().key  # a job keeps the key that it had when it was first asked

    key = key_now()
    monkeypatch.setattr(type(job), "version", job.version + 1)
    assert key_now() != key
    monkeypatch.undo()
    for package in job.packages:
        with monkeypatch.context() as patch:
            patch.setattr(protocol, "installed", lambda name, package=package: "other" if name == package else "")
            changed = key_now()
            patch.setattr(protocol, "installed", lambda name: "")
            assert changed != key_now(), package
    assert key_now() == key


def test_every_setting_of_an_adapter_and_a_recipe_is_in_the_key() -> None:
    train, build = JOBS[3], JOBS[5]
    for name, info in Lora.model_fields.items():
        lora = LORA.model_copy(update={name: other(getattr(LORA, name), info.annotation)})
        assert train.model_copy(update={"lora": lora}).key != train.key, name
    recipe = Recipe(precision="int8")
    for name, info in Recipe.model_fields.items():
        changed = recipe.model_copy(update={name: other(getattr(recipe, name), info.annotation)})
        assert build.model_copy(update={"recipe": changed}).key != build.key, name


def test_stages_do_not_share_keys() -> None:
    class Twin(TinyJob):
        stage: ClassVar[str] = "twin"

    assert Twin().key != TinyJob().key


def test_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", str(tmp_path / "mine"))
    assert default_root() == tmp_path / "mine"
    monkeypatch.delenv("AUTOTUNE_CACHE")
    assert default_root().name == "autotune"


# --- what is needed stays --------------------------------------------------------------------------------------------


def test_what_is_discarded_is_removed_and_nothing_else(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    kept = TinyJob(seed=1)
    cache.make(kept, maker([]))
    cache.hold(TINY)
    cache.make(TINY, maker([]))
    assert not cache.remove(cache.folder(TINY))  # this process uses it
    cache.discard(TINY)
    assert cache.find(TINY) is None
    assert cache.find(kept) is not None
    assert list((tmp_path / "tiny").glob("*.use")) == []
    cache.discard(TINY)  # it is gone already


def test_what_another_process_holds_stays_until_it_is_gone(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.hold(TINY)
    cache.make(TINY, maker([]))
    code = f"""
import sys
from pathlib import Path
from autotune.stages.preparation_jobs import TinyJob
from autotune.artifacts.store import Cache
cache = Cache(Path({str(tmp_path)!r}))
cache.hold(TinyJob())
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"held"
        cache.discard(TINY)
        assert cache.find(TINY) is not None
        assert [entry.kept_for for entry in cache.entries()] == [f"process {process.pid}"]
        process.kill()
    assert cache.remove(cache.folder(TINY))
    assert cache.find(TINY) is None
    assert list((tmp_path / "tiny").glob("*.use")) == []


def test_a_result_that_is_being_made_is_not_removed(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    removed: list[bool] = []

    def run(out: Path) -> tuple[Result, float]:
        removed.append(cache.remove(cache.folder(TINY)))
        removed.append(bool(cache.leftovers()))
        return maker([])(out)

    assert not cache.make(TINY, run).cached
    assert removed == [False, False]


def test_a_front_keeps_its_results_as_long_as_its_folder_is_there(tmp_path: Path) -> None:
    cache, out = Cache(tmp_path / "cache"), tmp_path / "results"
    folder = cache.make(TINY, maker([])).path
    cache.pin(out, [TINY])
    assert cache.pinned() == {}  # no results are there yet
    out.mkdir()
    (out / "results.csv").touch()
    assert cache.pinned() == {folder: str(out)}
    assert [entry.kept_for for entry in cache.entries()] == [str(out)]
    (tmp_path / "cache" / "pins" / "damaged.json").write_text("{", encoding="utf-8")
    assert set(cache.pinned()) == {folder}
    cache.pin(out, [])
    assert cache.pinned() == {}


def test_entries_are_described_the_longest_unused_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for seed in (1, 2, 3):
        folder = cache.make(TinyJob(seed=seed), maker([], seconds=seed), "model").path
        os.utime(folder / MANIFEST, (seed, seed))
    (cache.folder(TinyJob(seed=3)) / "sub" / "file.txt").unlink()
    assert cache.find(TinyJob(seed=1)) is not None  # and used just now
    second, third, first = cache.entries()
    assert (second.stage, second.seconds, second.used, second.model, second.state) == (
        "tiny",
        2.0,
        2.0,
        "model",
        "whole",
    )
    assert second.size_mb > 7e-6
    assert third.state == "damaged"
    assert first.used > time.time() - 3600


def test_leftovers_are_what_no_result_needs(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder = cache.make(TINY, maker([])).path
    half, old = folder.with_name(f".{folder.name}.new"), cache.checkpoint(TINY)
    going_on = cache.checkpoint(TinyJob(seed=1))  # of a training that is not done
    for place in (half, old, going_on):
        place.mkdir()
    assert sorted(cache.leftovers()) == sorted([half, old])


def test_a_run_on_a_cluster_whose_tuner_is_gone_is_a_leftover_after_a_day(tmp_path: Path) -> None:
    cache, tuner, gone = Cache(tmp_path), Cache(tmp_path), Cache(tmp_path)
    cache.make(TINY, maker([]))
    tuner.hold(TINY)
    runs = {name: run_folder(one) for name, one in (("lives", tuner), ("gone", gone), ("new", gone))}
    for name in ("lives", "gone"):
        os.utime(runs[name] / SEEN, (time.time() - 2 * 86_400,) * 2)
    assert cache.leftovers() == [runs["gone"]]
    assert len(cache.entries()) == 1  # none of them is a result


def test_what_another_host_is_making_is_no_leftover_though_its_lock_is_not_seen_here(tmp_path: Path) -> None:
    cache, other = Cache(tmp_path), Cache(tmp_path)
    half = cache.folder(TINY).with_name(f".{TINY.key}.new")
    half.mkdir(parents=True)
    other.hold(TINY)
    assert cache.leftovers() == []
    other.let_go(TINY)
    assert cache.leftovers() == [half]


def test_keys_of_timings_and_scores_stay_what_they_are() -> None:
    # Caches of earlier versions are found by these, as long as nothing new is asked for.
    plain = {"batch": 1, "graph": "g", "machine": "m", "most": 12, "new_tokens": 4, "precision": 0.03, "processes": 5,
             "prompt_tokens": 8, "provider": "cpu"}  # fmt: skip
    timing, score = (next(job for job in JOBS if type(job) is kind) for kind in (TimeJob, ScoreJob))
    assert timing.described()["inputs"] == plain
    assert not any("options" in name for name in score.described()["inputs"])
