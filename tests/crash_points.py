"""Crash points: a whole sweep on plain functions as stages, stopped at everything that it does to the disk.

python tests/crash_points.py                # every point of three sweeps and some of others; prints the counts
python tests/crash_points.py --every 10 --how kill --jobs 6

The command, the cache, the results folder, the loop, the strategies and the pipeline are the real ones, and all files are
real. Only what is done to a model is a function, called in this process. A `Disk` counts what is done to files below a
folder, and at one point it
- kills the process: what was handed to the system stays, half of a write included; buffers are lost, and no handler runs;
- cuts the power: what was not flushed to the disk is lost as well;
- is full: from there on nothing can be written until somebody makes room.
Then the command runs again, and once more; and what is there must be what an undisturbed sweep leaves.
"""

from __future__ import annotations

import argparse
import builtins
import contextlib
import errno
import io
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from bad_inputs import write_demo

from autotune import cli
from autotune import run as run_module
from autotune.artifacts import leases as leases_module
from autotune.artifacts import store as store_module
from autotune.artifacts.room import tidy
from autotune.artifacts.store import MANIFEST, Cache
from autotune.candidate import Lora, Recipe
from autotune.durable import put, sync_tree
from autotune.errors import Exit
from autotune.execution import engines, worker
from autotune.execution.local import LocalEngine
from autotune.results.rows import CommandRun, CurvePoint, Finalist, TableRow, Trial
from autotune.results.table import Table, read_table
from autotune.stages.inspection_findings import Inspection
from autotune.stages.jobs import FinetuneJob, TimeJob, TurnsJob
from autotune.stages.protocol import Job, Result

How = Literal["kill", "power cut", "full disk"]
HOWS: tuple[How, ...] = ("kill", "power cut", "full disk")

# --- stages --------------------------------------------------------------------------------------------------------------

BITS = {"fp32": 32, "int8": 8, "int4": 4}
MS = {"fp32": 35.0, "int8": 14.0, "int4": 8.0}
STEPS = 10


def finetune(job: FinetuneJob, out: Path) -> Result:
    """Train from the last checkpoint to the end, and keep a checkpoint every five steps, as the real one does."""
    end, first = job.stop_at or STEPS, 0
    if job.checkpoint_dir is not None:
        first = json.loads((job.checkpoint_dir / "state.json").read_text(encoding="utf-8"))["step"]
    keep = job.keep_dir
    if keep is not None:
        for path in keep.glob("step-*"):
            assert (path / "weights").read_text(encoding="utf-8") == path.name, "a checkpoint is damaged"
            first = max(first, int(path.name[5:]))
    for step in range(first + 1, end + 1):
        if keep is not None and step % 5 == 0 and step < end:
            aside, place = keep / "new", keep / f"step-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            (aside / "weights").write_text(place.name, encoding="utf-8")
            sync_tree(aside)
            put(aside, place)
    curve = [[step, 2.0 / step, 1e-3] for step in range(1, end + 1)]
    (out / "state.json").write_text(json.dumps({"step": end, "horizon": STEPS, "curve": curve}), encoding="utf-8")
    for name in ("adapter_model.safetensors", "optimizer.safetensors", "lora.json"):
        (out / name).write_text(job.lora.model_dump_json(), encoding="utf-8")
    return {"step": end, "loss": 1 / 3}


def lora_in(folder: Path | None) -> tuple[Lora | None, float]:
    """Return the settings that a folder was made with, and the share of its steps."""
    if folder is None or not (folder / "lora.json").exists():
        return None, 1.0
    text = (folder / "lora.json").read_text(encoding="utf-8")
    share = folder / "share.txt"
    return Lora.model_validate_json(text), float(share.read_text(encoding="utf-8")) if share.exists() else 1.0


def merge(job: Any, out: Path) -> Result:
    """Pass on the adapter's settings."""
    shutil.copyfile(job.adapter_dir / "lora.json", out / "lora.json")
    state = json.loads((job.adapter_dir / "state.json").read_text(encoding="utf-8"))
    (out / "share.txt").write_text(str(state["step"] / STEPS), encoding="utf-8")
    (out / "model.safetensors").write_text("merged" * 5000, encoding="utf-8")
    return {}


def build(job: Any, out: Path) -> Result:
    """Write a folder as the builder does."""
    for name in ("lora.json", "share.txt"):
        if (job.source_dir / name).exists():
            shutil.copyfile(job.source_dir / name, out / name)
    (out / "recipe.json").write_text(job.recipe.model_dump_json(), encoding="utf-8")
    (out / "model.onnx").write_text(f"{job.source} {job.recipe}", encoding="utf-8")
    (out / "model.onnx.data").write_text("w" * 300 * BITS[job.recipe.precision], encoding="utf-8")
    (out / "genai_config.json").write_text('{"model": {"decoder": {}}}', encoding="utf-8")
    return {"size_mb": 10.0 * BITS[job.recipe.precision] + 1 / 3, "signature": f"graph of {job.recipe}"}


def score(job: Any, out: Path) -> Result:
    """Score better the nearer the settings are to rank 16 and a rate of 2e-3, and the more bits there are."""
    lora, share = lora_in(job.adapter_dir or job.model_dir)
    if (job.model_dir / "recipe.json").exists():
        precision = Recipe.model_validate_json((job.model_dir / "recipe.json").read_text(encoding="utf-8")).precision
    else:
        precision = "fp32"
    value = 0.4
    if lora is not None:
        value = 0.7 + 0.02 * math.log2(lora.r) - 0.1 * math.log10(lora.learning_rate / 2e-3) ** 2
    value = value * share**0.1 - 0.2 / BITS[precision]
    ids = [item["id"] for item in json.loads(job.data_file.read_text(encoding="utf-8"))]
    places = range(len(ids)) if job.block is None else sorted(range(len(ids)), key=ids.__getitem__)[slice(*job.block)]
    right = [int(int(ids[place][:6], 16) / 16**6 < value) for place in places]
    outcomes = {
        "ids": [ids[place] for place in places], "predicted": [1 - one for one in right], "gold": [0] * len(right),
        "loss": [0.2 if one else 1.6 for one in right],
    }  # fmt: skip
    (out / "outcomes.json").write_text(json.dumps(outcomes), encoding="utf-8")
    return {"items": len(right), "cut": 0}


def process_of(job: TimeJob) -> Result:
    """Return what one process measures of a graph."""
    ms = MS[job.graph.split()[2]]
    shared = {"load_s": 0.5, "peak_memory_mb": 700.0, "conditions": {"load_avg": 0.5}}
    return shared | {"ttft_ms": [3 * ms] * 4, "itl_ms": [ms] * 64}


def act(job: Job, out: Path) -> Result:
    """Do a job."""
    match job.stage:
        case "probe":
            return {"device": "cpu", "gpus": 0, "providers": ["CPUExecutionProvider"]}
        case "lengths":
            return {"prompt_tokens": [8] * 8, "new_tokens": [2] * 8, "context": 512}
        case "inspect":
            return Inspection().model_dump(mode="json")
        case "finetune":
            return finetune(job, out)  # type: ignore[arg-type]
        case "merge":
            return merge(job, out)
        case "build":
            return build(job, out)
        case "check":
            assert (job.model_dir / "model.onnx").exists()  # type: ignore[attr-defined]
            return {"kl_nats": 0.01, "greedy_agreement": 0.9, "texts": 16, "trouble": None}
        case "score":
            return score(job, out)
        case _:
            raise AssertionError(job)


SECONDS = {"finetune": 40.0, "merge": 1.0, "build": 12.0, "check": 3.0, "score": 10.0}


class InProcess(LocalEngine):
    """An engine that does its jobs in this process; what one takes is fixed, because strategies look at it."""

    def run(self, job: Job, out: Path, log: Path, timeout: float | None = None) -> tuple[Result, float]:
        printed = io.StringIO()  # what the worker sends to the log
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            result, _ = worker.perform(job, str(out), str(log))
        return result, SECONDS.get(job.stage, 1.0)

    def time(self, job: TimeJob, log: Path, timeout: float | None = None) -> tuple[list[Result], float]:
        return [*job.begun, *(process_of(job) for _ in range(job.processes - len(job.begun)))], 5.0

    def time_in_turns(self, job: TurnsJob, log: Path, timeout: float | None = None) -> tuple[list[list[Result]], float]:
        return [[process_of(graph) for graph in job.graphs] for _ in range(job.processes)], 20.0


# --- a disk that stops -----------------------------------------------------------------------------------------------


class Stopped(BaseException):
    """The process is killed."""


class Disk:
    """Counts what is done to files below `root`; at point `at` it does as `how` says."""

    def __init__(self, root: Path, at: int | None = None, how: How = "kill") -> None:
        self.root, self.at, self.how = str(root), at, how
        self.count = 0
        self.acts: list[str] = []
        self.dead = self.full = False
        self.unsynced: dict[int, int] = {}
        """By inode what has been flushed of a file that was written to, in bytes."""
        self._real = {name: getattr(os, name) for name in (
            "replace", "rename", "unlink", "remove", "rmdir", "mkdir", "fsync", "open")}  # fmt: skip
        self._plain_open = builtins.open

    def _mine(self, path: Any, dir_fd: int | None = None) -> bool:
        if isinstance(path, int):
            return False
        name = os.fsdecode(path)
        if dir_fd is not None:
            name = f"{Path(f'/proc/self/fd/{dir_fd}').readlink()}/{name}"
        return os.path.abspath(name).startswith(self.root) and not name.endswith(".lock")  # noqa: PTH100

    def point(self, act: str, path: Any, torn: Callable[[], object] = lambda: None) -> bool:
        """Pass a point. Returns whether the act is to be done; `torn` does half of it. Raises Stopped, OSError."""
        if self.dead:
            return False
        self.count += 1
        self.acts.append(f"{act} {os.path.basename(os.fsdecode(path))}")  # noqa: PTH119
        takes = act in ("write", "create", "mkdir", "fsync")  # renames and removals need no room
        if self.full and takes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.count == self.at:
            torn()
            if self.how == "full disk":
                self.full = True
                if takes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return True
            self.dead = True
            raise Stopped(self.acts[-1])
        return True

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Let everything that this thread does to files pass here."""
        with contextlib.ExitStack() as stack:
            for name in self._real:
                stack.enter_context(mock.patch.object(os, name, getattr(self, f"_{name}")))
            stack.enter_context(mock.patch.object(builtins, "open", self._opened))
            stack.enter_context(mock.patch.object(io, "open", self._opened))
            stack.enter_context(mock.patch.object(shutil, "_USE_CP_SENDFILE", False))
            yield

    def cut(self) -> None:
        """Lose what was not flushed to the disk."""
        for path in Path(self.root).rglob("*"):
            if path.is_file() and not path.is_symlink():
                kept = self.unsynced.get(path.stat().st_ino)
                if kept is not None and kept < path.stat().st_size:
                    os.truncate(path, kept)

    def _replace(self, source: Any, target: Any, **more: Any) -> None:
        if not self._mine(target) or self.point("rename", target):
            self._real["replace"](source, target, **more)

    def _rename(self, source: Any, target: Any, **more: Any) -> None:
        if not self._mine(target) or self.point("rename", target):
            self._real["rename"](source, target, **more)

    def _remove_by(self, name: str, path: Any, dir_fd: int | None) -> None:
        if not self._mine(path, dir_fd) or self.point("remove", path):
            self._real[name](path, dir_fd=dir_fd)

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove_by("unlink", path, dir_fd)

    def _remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove_by("remove", path, dir_fd)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._remove_by("rmdir", path, dir_fd)

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if not self._mine(path, dir_fd) or os.path.isdir(path) or self.point("mkdir", path):  # noqa: PTH112
            self._real["mkdir"](path, mode, dir_fd=dir_fd)

    def _fsync(self, number: Any) -> None:
        if self.dead:
            return
        fd = number if isinstance(number, int) else number.fileno()
        path = str(Path(f"/proc/self/fd/{fd}").readlink())
        # The system may well have written it before: what counts is that it must have now.
        if self._mine(path) and self.point("fsync", path):
            status = os.fstat(fd)
            if status.st_ino in self.unsynced:
                self.unsynced[status.st_ino] = status.st_size

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        new = flags & os.O_CREAT and self._mine(path, dir_fd) and not os.path.exists(path)  # noqa: PTH110
        if new and not self.point("create", path):
            path = os.devnull
        return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))

    def _opened(self, file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None,
                newline: Any = None, closefd: bool = True, opener: Any = None) -> Any:  # fmt: skip
        writes = set(mode) & set("wax+")
        if not writes or not self._mine(file):
            return self._plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if self.dead:
            return self._plain_open(os.devnull, mode.replace("x", "w"), buffering, encoding, errors, newline)
        known = os.path.exists(file)  # noqa: PTH110
        if not known or "w" in mode:
            self.point("create", file)
        before = os.stat(file).st_size if known and "w" not in mode else 0  # noqa: PTH116
        raw = _File(self, file, mode.replace("b", "").replace("t", ""))
        self.unsynced.setdefault(os.fstat(raw.fileno()).st_ino, before)
        if not known or "w" in mode:
            self.unsynced[os.fstat(raw.fileno()).st_ino] = 0
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)


class _File(io.FileIO):
    """A file whose writes are points: what is in buffers above it is not on the disk."""

    def __init__(self, disk: Disk, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._disk, self._path = disk, path

    def write(self, data: Any, /) -> int:
        content = bytes(data)
        half = lambda: super(_File, self).write(content[: len(content) // 2])  # noqa: E731
        if self._disk.point("write", self._path, half):
            super().write(content)
        return len(content)

    def truncate(self, size: int | None = None, /) -> int:
        if self._disk.point("truncate", self._path):
            return super().truncate(size)
        return size or 0


# --- sweeps that are stopped -----------------------------------------------------------------------------------------

NOT_COMPARED = ("started", "ended", "wall_s", "cached", "stages_s")
"""What depends on when a row was measured; besides costs."""
LARGE = ("merge", "build")
"""Stages whose results are removed as soon as they are not needed any more: merged models, builds of a lower rung."""


@dataclass(frozen=True)
class Case:
    """A small sweep, and the runs of the command that it takes: the trials that each goes up to."""

    name: str
    strategy: str
    trials: tuple[int, ...]
    stopped: int = -1
    """The run that is stopped; those before it are left in peace."""
    again: bool = False
    """Whether the run that goes on is stopped as well."""
    space: dict[str, Any] = field(default_factory=dict)
    every: int = 1
    """At every so manyth point it is stopped when all cases are."""
    same: bool = True
    """Whether its candidates do not depend on what stages cost: `frontier` goes by that, and what a run that was killed has
    paid for a result is not in the row that takes the result from the cache."""


LORA: dict[str, Any] = {"r": {"choice": [4, 8, 16]}, "learning_rate": {"loguniform": [1e-4, 1e-2]}, "steps": STEPS}
SPACE: dict[str, Any] = {"lora": LORA, "build": [{"precision": "int8"}, {"precision": "int4"}]}
CASES = (
    Case("random", "random", (2,)),
    Case("random, stopped twice", "random", (2,), again=True, every=8),
    Case("grid", "grid", (3,), space={"lora": {"r": {"choice": [8, 16]}, "steps": STEPS}}, every=8),
    Case("frontier", "frontier", (4,), every=8, same=False),
    Case("tpe", "tpe", (3,), every=8),
    Case("adapters only", "random", (2,), space={"build": None}),
    Case("more trials for a finished sweep", "random", (1, 2)),
)


class Place:
    """A folder in which one case is run again and again, always under the same name."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.folder, self.case = folder / "work", case
        self.begun = folder / "begun"
        """The folder as the run finds it that is stopped."""
        self.folder.mkdir(parents=True)
        write_demo(self.folder)
        for split, rows in (("train", 8), ("validation", 120), ("test", 30)):
            lines = [f"{split} phrase {n},{('joy', 'fear')[n % 2]}\n" for n in range(rows)]
            (self.folder / f"{split}.csv").write_text("text,tone\n" + "".join(lines), encoding="utf-8")
        space = {key: part for key, part in (SPACE | case.space).items() if part is not None}
        sweep = {
            "name": "crash", "model": str(self.folder / "model"),
            "data": {**{split: str(self.folder / f"{split}.csv") for split in ("train", "validation", "test")},
                     "prompt": "Text: {text}\nTone:", "completion": " {tone}"},
            "target": {"provider": "cpu", "timing": {"processes": 2, "most": 2}}, "space": space, "strategy": case.strategy,
        }  # fmt: skip
        (self.folder / "sweep.json").write_text(json.dumps(sweep), encoding="utf-8")
        self.allowed: list[dict[str, bytes]] = [{}]
        """What `best/` may hold."""
        self.reported: list[Trial] = []
        """Rows that the sweep has gone on from."""
        for trials in case.trials[: case.stopped]:
            assert self.run(trials)[0] == Exit.OK
            self.allowed.append(self.best())
        shutil.copytree(self.folder, self.begun)
        self.points = Disk(self.folder)
        with self.points.watched():
            code, errors = self.run(case.trials[-1], watched=True)
        assert code == Exit.OK, errors
        self.allowed = [*self.allowed[1:], *([{}] if not self.allowed[1:] else []), self.best()]
        self.expected = self.state()

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def run(self, trials: int, watched: bool = False) -> tuple[int, str]:
        """Run the command in this process. Returns its exit code and what it wrote to stderr."""
        append = Table.append

        def appended(table: Table, row: Any) -> Trial:
            kept = append(table, row)
            if table.file.name == "results.csv":
                self.reported.append(kept)
            return kept

        arguments = ["run", str(self.folder / "sweep.json"), "--out", str(self.out), "--trials", str(trials)]
        errors = io.StringIO()
        with contextlib.ExitStack() as stack:
            for target, name, value in (
                (cli.sys, "excepthook", sys.excepthook), (Table, "append", appended),
                (worker, "function_of", lambda job: act), (worker, "_free", lambda: None),
                (engines, "LocalEngine", InProcess), (run_module, "describe", dict),
                (leases_module, "_beat", lambda *_: None), *([] if watched else [(os, "fsync", lambda number: None)]),
            ):  # fmt: skip
                stack.enter_context(mock.patch.object(target, name, value))
            stack.enter_context(mock.patch.dict(os.environ, {"AUTOTUNE_CACHE": str(self.folder / "cache")}))
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(errors))
            return cli.main(arguments), errors.getvalue()

    # --- what is there ---------------------------------------------------------------------------------------------------

    def best(self, place: str = "best") -> dict[str, bytes]:
        """Return the files of `best/`, or of where it lies under another name."""
        folder = self.out / place
        return {f"best/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    def state(self) -> dict[str, Any]:
        """Return what a sweep leaves, without what depends on time."""
        found: dict[str, Any] = {"best": self.best()}
        for name, kind in (("results", Trial), ("finalists", Finalist), ("front", Trial), ("curves", CurvePoint)):
            if (self.out / f"{name}.csv").exists():
                found[name] = [timeless(row) for row in read_table(self.out / f"{name}.csv", kind)]
        for file in (self.out / "outcomes").iterdir():
            lines = file.read_text(encoding="utf-8").splitlines()
            found[file.name] = sorted(lines) if file.suffix == ".jsonl" else json.loads(lines[0])
        kept = (path for path in self.out.iterdir() if path.name not in ("logs", ".lock"))
        found["files"] = sorted(path.name for path in kept)
        left = Cache(self.folder / "cache").leftovers()
        found["left in the cache"] = [str(path) for path in left]
        with mock.patch.object(store_module, "_STALE_S", -1.0):  # what was being written goes after a day
            tidy(Cache(self.folder / "cache"))
        asides = (path for ending in ("new", "gone", "maker") for path in self.folder.rglob(f"*.{ending}"))
        found["half written"] = [str(path) for path in asides]
        return found

    def whole(self) -> dict[str, float]:
        """Return when each result was made that is whole."""
        cache, found = Cache(self.folder / "cache"), dict[str, float]()
        for file in (self.folder / "cache").glob(f"*/*/{MANIFEST}"):
            stage, key = file.parent.parent.name, file.parent.name
            if key.startswith("."):  # it has no name yet
                continue
            with contextlib.suppress(OSError, ValueError, KeyError):
                job = mock.Mock(stage=stage, key=key)
                if (stored := cache.find(job)) is not None:
                    found[f"{stage}/{key}"] = stored.made
        return found

    # --- stopping it -----------------------------------------------------------------------------------------------------

    def stop_at(self, points: list[int], how: How) -> int:
        """Stop the run at a point, and what goes on at the next; then let it go on to the end. Returns how often it stopped.

        Raises AssertionError where anything is lost, done twice, or said unclearly.
        """
        shutil.rmtree(self.folder)
        shutil.copytree(self.begun, self.folder)
        self.reported.clear()
        trials, stopped = self.case.trials[-1], 0
        runs = len(read_table(self.out / "runs.csv", CommandRun)) if (self.out / "runs.csv").exists() else 0
        where: list[str] = []
        for at in points:
            disk = Disk(self.folder, at, how)
            before = self.whole()
            code = None
            try:
                with disk.watched():
                    code, errors = self.run(trials, watched=True)
            except Stopped:
                assert how != "full disk"
            where.append(f"{how} at {at}: {disk.acts[-1] if len(disk.acts) < at else disk.acts[at - 1]}")
            runs += 1
            stopped += disk.dead or disk.full
            if how == "power cut" and disk.dead:
                disk.cut()
            for lease in (self.folder / "cache" / "leases").glob("[!.]*"):  # its process is gone
                lease.unlink()
            if disk.full:
                assert code in (Exit.MACHINE, Exit.OK), f"{where}: exit code {code}: {errors}"
                assert code == Exit.OK or said_clearly(errors), f"{where}: {errors}"
            self._nothing_made_twice(before, where)
            self._rows_are_kept(where)
            self._best_is_whole_or_absent(where)
        before = self.whole()
        code, errors = self.run(trials)
        assert code == Exit.OK, f"{where}: then {code}: {errors}"
        self._nothing_made_twice(before, where)
        self._best_is_whole_or_absent(where)
        state = self.state()
        if not self.case.same:
            kept = {name: state[name] for name in ("files", "left in the cache", "half written")}
            state = self.expected | kept
            found = {row["trial"] for row in read_table(self.out / "results.csv", Trial) if row["status"] == "ok"}
            assert found == set(range(trials + 1)), f"{where}: trials {found}"
        for name, expected in self.expected.items():
            assert state.get(name) == expected, f"{where}: {name}: {difference(expected, state.get(name))}"
        assert set(state) == set(self.expected), f"{where}: {set(state) ^ set(self.expected)}"
        counted = read_table(self.out / "runs.csv", CommandRun)
        assert len(counted) <= runs + 1, f"{where}: {counted}"
        return stopped

    def _best_is_whole_or_absent(self, where: list[str]) -> None:
        best = self.best()
        if not best:  # between the two renames the old one lies aside, whole, and the next run brings it back
            best = self.best(".best.old")
        assert best in self.allowed or (best and not self.case.same), f"{where}: best/ holds {sorted(best)}"
        if best:
            about = json.loads(best["best/candidate.json"])["settings"]
            if "recipe" in about:
                assert len(best["best/onnx/model.onnx.data"]) == 300 * BITS[about["recipe"]["precision"]], where
            if "lora" in about:
                assert json.loads(best["best/adapter/lora.json"])["r"] == about["lora"]["r"], where

    def _nothing_made_twice(self, before: dict[str, float], where: list[str]) -> None:
        now = self.whole()
        lost = [key for key in before if key not in now and key.partition("/")[0] not in LARGE]
        assert not lost, f"{where}: lost from the cache: {lost}"
        again = [key for key, made in before.items() if now.get(key, made) != made and not key.startswith("merge/")]
        assert not again, f"{where}: made again: {again}"

    def _rows_are_kept(self, where: list[str]) -> None:
        file = self.out / "results.csv"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        there = {(row["candidate"], row["attempt"]) for row in read_table(file, Trial)} if text.count("\n") else set()
        lost = [row["candidate"] for row in self.reported if (row["candidate"], row["attempt"]) not in there]
        assert not lost, f"{where}: rows are lost: {lost}"


def timeless(row: TableRow) -> dict[str, Any]:
    """Return what of a row does not depend on time."""
    return {name: v for name, v in row.cells.items() if name not in NOT_COMPARED and not name.startswith("cost_")}


def said_clearly(errors: str) -> bool:
    """Whether a message names the trouble and the remedy on one line, and there is no traceback."""
    line = next((line for line in errors.splitlines() if line.startswith("autotune: ")), "")
    return "Traceback" not in errors and "No space left on device" in line and "run the same command again" in line


def difference(expected: Any, found: Any) -> str:
    """Return in words where two values differ first."""
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return f"{len(found)} instead of {len(expected)}"
        return next((difference(*both) for both in zip(expected, found, strict=True) if both[0] != both[1]), "")
    if isinstance(expected, dict) and isinstance(found, dict):
        names = [name for name in {**expected, **found} if expected.get(name) != found.get(name)]
        return ", ".join(f"{name}: {found.get(name)!r} instead of {expected.get(name)!r}"[:200] for name in names)
    return f"{found!r} instead of {expected!r}"[:300]


def stop_everywhere(
    folder: Path, case: Case, how: How, every: int = 1, first: int = 1, most: int | None = None
) -> tuple[int, int]:
    """Stop a case at every so manyth point. Returns how many points a run has, and how often it was stopped."""
    place = Place(folder, case)
    stopped = 0
    for at in range(first, place.points.count + 1, every)[:most]:
        points = [at, 1 + (at * 37) % place.points.count] if case.again else [at]
        stopped += place.stop_at(points, how)
    return place.points.count, stopped


def memory_folder() -> str | None:
    """Return a folder in memory: thousands of sweeps are written. None: the system's own."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _stop_part(case: str, how: How, every: int, first: int) -> tuple[int, int, float]:
    """Stop a case at each `every`-th point from `first` on. Returns its points, how often it stopped, and the seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="autotune-crash-", dir=memory_folder()) as folder:
        place = Path(folder).resolve()
        points, stopped = stop_everywhere(place, next(c for c in CASES if c.name == case), how, every, first)
    return points, stopped, time.monotonic() - began


def measured(every: int, cases: Sequence[Case], hows: Sequence[How], jobs: int) -> Iterator[str]:
    """Stop the cases in `jobs` processes at a time, and give the lines of the table of counts.

    Raises AssertionError where something was lost.
    """
    yield "| sweep | points | stopped at every | killed | power cut | disk full | seconds |\n|---|--:|--:|--:|--:|--:|--:|"
    total: Counter[How] = Counter()
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = {
            (case.name, how): [
                pool.submit(_stop_part, case.name, how, every * case.every * jobs, 1 + every * case.every * part)
                for part in range(jobs)
            ]
            for case in cases
            for how in hows
        }
        for case in cases:
            done = {how: [part.result() for part in parts[case.name, how]] for how in hows}
            counts = {how: sum(stopped for _, stopped, _ in found) for how, found in done.items()}
            points = next(iter(done.values()))[0][0]
            seconds = sum(each for found in done.values() for *_, each in found)
            cells = [str(counts[how]) if how in counts else "" for how in HOWS]
            yield f"| {case.name} | {points} | {every * case.every} | {' | '.join(cells)} | {seconds:.0f} |"
            total.update(counts)
    yield f"| all | | | {' | '.join(str(total[how]) if how in total else '' for how in HOWS)} | |"


def main() -> int:
    """Stop the cases that are asked for, and print the counts. Raises AssertionError where something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, help="stop at every so manyth point")
    parser.add_argument(
        "--case", action="append", choices=[case.name for case in CASES], help="of all cases, these alone"
    )
    parser.add_argument("--how", action="append", choices=HOWS, help="stop in these ways alone")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    asked = parser.parse_args()
    cases = [case for case in CASES if case.name in (asked.case or [case.name])]
    for line in measured(asked.every, cases, asked.how or HOWS, asked.jobs):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
