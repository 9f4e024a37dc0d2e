"""A cache on a store that several machines reach, against a local S3 server: one maker a key, and nothing damaged is taken."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest
from s3_server import BUCKET, serving
from waiting import HANG_S

from autotune.artifacts import leases, makers, shared_store
from autotune.artifacts.shared_store import SharedStore
from autotune.artifacts.store import Cache, default_root
from autotune.errors import MachineError, StageError, UsageError
from autotune.execution.host_lock import HostLock
from autotune.execution.transfers import note_transfers
from autotune.remote.objects import Objects
from autotune.stages.preparation_jobs import TinyJob

CONTENT = b"weights" * 1000


class Work(TinyJob):
    """A job whose result is kept in the store."""

    stage: ClassVar[str] = "build"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def store(server: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a cache of this test alone."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path / os.environ["MACHINE"]))
    monkeypatch.setattr(shared_store, "_POLL_S", 0.05)
    name = re.sub(r"\W", "-", request.node.name)
    monkeypatch.setenv("AUTOTUNE_CACHE", f"s3://{BUCKET}/{name}")
    monkeypatch.setenv("MACHINE", "one")
    return f"s3://{BUCKET}/{name}"


def cache_on(machine: str, monkeypatch: pytest.MonkeyPatch) -> Cache:
    monkeypatch.setenv("MACHINE", machine)
    return Cache(default_root())


def run(out: Path) -> tuple[dict[str, Any], float]:
    (out / "deep").mkdir()
    (out / "deep" / "model.onnx.data").write_bytes(CONTENT)
    return {"seen": 1}, 2.5


def never(out: Path) -> tuple[dict[str, Any], float]:
    raise AssertionError("it was made again")


def test_what_one_machine_has_made_another_copies(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = cache_on("one", monkeypatch)
    assert not one.make(Work(), run).cached
    two = cache_on("two", monkeypatch)
    assert two.root != one.root
    assert two.find(Work()) is None  # nothing is copied before it is needed
    found = two.make(Work(), never)
    assert (found.result, found.seconds, found.cached) == ({"seen": 1}, 2.5, True)
    assert (found.path / "deep" / "model.onnx.data").read_bytes() == CONTENT
    assert "at" not in json.loads((found.path / "manifest.json").read_text(encoding="utf-8"))
    assert not Objects(store, "x").names("makers/")
    assert not Objects(store, "x").names("leases/")
    one.make(TinyJob(), run)  # what is made again in seconds stays where it was made
    assert not Objects(store, "x").names("tiny/")


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "manifest"])
def test_what_was_damaged_there_is_made_anew_and_replaced(
    store: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache_on("one", monkeypatch).make(Work(), run)
    objects = Objects(store, "x")
    (folder,) = objects.names("build/")
    (at,) = (name for name in objects.names(f"{folder}/") if not name.endswith("manifest.json"))
    file = f"{at}/deep/model.onnx.data"
    match harm:
        case "changed":
            objects.write(file, CONTENT[::-1])
        case "cut":
            objects.write(file, CONTENT[:-1])
        case "gone":
            objects.remove(file)
        case _:
            objects.write(f"{folder}/manifest.json", b'{"files": {"../../outside": {}}}')
    made: list[Path] = []
    cache_on("two", monkeypatch).make(Work(), lambda out: (made.append(out), run(out))[1])
    assert len(made) == 1
    found = cache_on("three", monkeypatch).make(Work(), never)
    assert (found.path / "deep" / "model.onnx.data").read_bytes() == CONTENT


def test_what_could_not_be_sent_is_sent_when_it_is_found_again(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Objects, file: Path, name: str) -> None:
        raise MachineError(f"{self} does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "put", broken)
        with pytest.raises(MachineError, match=rf"the shared cache cannot be written: {store} does not answer"):
            cache_on("one", monkeypatch).make(Work(), run)
    assert cache_on("one", monkeypatch).find(Work()) is not None
    assert cache_on("two", monkeypatch).make(Work(), never).cached


def test_bytes_are_reported_by_result_and_never_beside_a_timing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for machine, kind in (("one", "send"), ("two", "fetch")):
        cache, host = cache_on(machine, monkeypatch), HostLock(tmp_path / f"{machine}.lock")
        note_transfers(cache, host)
        cache.make(Work(), run)
        (span,) = host.intervals
        assert (span.stage, span.result, span.moved_mb) == (kind, f"build/{Work().key}", len(CONTENT) / 1e6)
        assert not span.alone
        assert cache.shared is not None
        assert cache.shared.around == host.shared


def test_machines_that_send_the_same_at_once_send_it_once(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results of stages that stay on their machine, and files from outside the cache."""
    (tmp_path / "data.jsonl").write_bytes(CONTENT)
    caches = [cache_on(machine, monkeypatch) for machine in ("one", "two", "three")]
    made = [cache.make(TinyJob(), run).folder for cache in caches]
    sent: list[str] = []
    put = Objects.put

    def slow(self: Objects, file: Path, name: str) -> None:
        sent.append(name)
        time.sleep(0.3)  # the others look into the store meanwhile
        put(self, file, name)

    monkeypatch.setattr(Objects, "put", slow)
    with ThreadPoolExecutor() as pool:
        for cache, folder in zip(caches, made, strict=True):
            assert cache.shared is not None
            pool.submit(cache.shared.offer, folder, always=True)
        keys = list(pool.map(lambda cache: cache.put_inputs({"data.jsonl": tmp_path / "data.jsonl"}), caches))
    assert len(set(keys)) == 1
    assert sorted(name.split("/")[0] for name in sent) == ["inputs", "tiny"]
    for stage, key in (("inputs", keys[0]), ("tiny", TinyJob().key)):
        assert cache_on("four", monkeypatch).bring(stage, key).is_dir()


def test_a_result_that_is_found_while_its_maker_sends_it_is_sent_once(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    put = Objects.put

    def found_meanwhile(self: Objects, file: Path, name: str) -> None:
        sent.append(name)
        if len(sent) == 1:
            assert cache_on("one", monkeypatch).find(Work()) is not None  # another process of this machine
        put(self, file, name)

    monkeypatch.setattr(Objects, "put", found_meanwhile)
    cache_on("one", monkeypatch).make(Work(), run)
    assert len(sent) == 1
    assert cache_on("two", monkeypatch).make(Work(), never).cached


def test_of_two_who_made_a_result_the_first_to_publish_wins(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is stopped for longer than its lease; another makes the result; then the first goes on."""
    one, two = cache_on("one", monkeypatch), cache_on("two", monkeypatch)
    monkeypatch.setattr(SharedStore, "_left_s", lambda *_: -1.0)

    def late(out: Path) -> tuple[dict[str, Any], float]:
        theirs = two.make(Work(), lambda out: ((out / "who").write_bytes(b"two"), ({"by": "two"}, 1.0))[1])
        assert not theirs.cached
        (out / "who").write_bytes(b"one")
        return {"by": "one"}, 1.0

    found = one.make(Work(), late)
    assert (found.result, found.cached) == ({"by": "two"}, True)
    assert (found.path / "who").read_bytes() == b"two"
    objects = Objects(store, "x")
    (folder,) = objects.names("build/")
    assert len(objects.names(f"{folder}/")) == 2  # a manifest, and the files of one maker


@pytest.mark.parametrize(
    ("address", "rule"),
    [("s3://bucket", "must be a folder of this machine, or name a folder of a store"),
     ("ftp://host/folder", "must be a folder of this machine, or name a folder of a store"),
     ("http://user:secret@host/x", "must be a folder of this machine, or name a folder of a store"),
     ("s3://key:secret@bucket/folder", "must not hold a password"),
     ("azureml://registries/r/models/m/versions/1", "must name a folder of a datastore")],
)  # fmt: skip
def test_an_address_that_is_no_store_is_refused(address: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", address)
    with pytest.raises(UsageError, match=rule) as raised:
        Cache(default_root())
    assert "secret" not in str(raised.value)


def test_a_missing_client_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for scheme, extra in (("s3", "s3"), ("gs", "gcs"), ("abfs", "abfs")):
        with pytest.raises(
            MachineError, match=rf'{scheme}:// needs the package \w+; pip install "autotune-genai\[{extra}\]"'
        ):
            Objects(f"{scheme}://bucket/folder", "AUTOTUNE_CACHE")


def test_a_store_that_overwrites_is_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objects, "_create", lambda self, name, content: self.write(name, content) is None)
    with pytest.raises(MachineError, match="overwrites objects although it is asked not to"):
        cache_on("one", monkeypatch).make(Work(), run)


def test_a_store_that_does_not_answer_is_a_trouble_of_the_machine(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", "s3://no-such-bucket/cache")
    with pytest.raises(MachineError, match="s3://no-such-bucket/cache") as raised:
        cache_on("one", monkeypatch).make(Work(), run)
    assert "test-secret" not in str(raised.value)


# --- drivers as processes of their own -------------------------------------------------------------------------------

DRIVER = """
import sys, time
from pathlib import Path
from typing import ClassVar
from autotune.artifacts import leases, shared_store
from autotune.artifacts.store import Cache, default_root
from autotune.stages.preparation_jobs import TinyJob
shared_store._POLL_S = 0.2
if sys.argv[4] == "short":
    shared_store.MAKER_S, shared_store.BEAT_S = 3.0, 0.5
if sys.argv[4] == "endless":
    shared_store.MAKER_S = 1e9
if sys.argv[5]:
    leases._place = lambda: (sys.argv[5], "namespace")
class Work(TinyJob):
    stage: ClassVar[str] = "build"
def run(out):
    print("making", flush=True)
    if wait:
        sys.stdin.readline()
    time.sleep(0.1)
    (out / "who").write_text(me, encoding="utf-8")
    return {"by": me}, 1.0
me, wait, count = sys.argv[1], sys.argv[2] == "wait", int(sys.argv[3])
cache = Cache(default_root())
for seed in range(count):
    stored = cache.make(Work(seed=seed), run)
    assert (stored.path / "who").read_text(encoding="utf-8") == stored.result["by"]
    print("has", seed, stored.result["by"], flush=True)
"""


def start(
    folder: Path, name: str, wait: bool, count: int, lease: str = "short", boot: str = ""
) -> subprocess.Popen[str]:
    """Start a driver on a machine of its own: its home is another, and its boot if one is given.

    With a short lease it loses its turn after seconds, with an endless one never, unless its process is known to have ended.
    """
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / name), "HOME": str(folder / name)}
    arguments = [sys.executable, "-c", DRIVER, name, "wait" if wait else "go", str(count), lease, boot]
    pipe = subprocess.PIPE
    return subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, env=environment)


@pytest.fixture
def alone_there(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE", f"s3://{BUCKET}/drivers-{tmp_path.name}")


@pytest.mark.usefixtures("alone_there")
def test_two_drivers_at_once_make_each_result_once(tmp_path: Path) -> None:
    with start(tmp_path, "a", False, 8, "long") as one, start(tmp_path, "b", False, 8, "long") as two:
        said = [driver.communicate(timeout=HANG_S)[0].splitlines() for driver in (one, two)]
        assert one.returncode == two.returncode == 0
    assert sum(lines.count("making") for lines in said) == 8
    has = [[line for line in lines if line.startswith("has")] for lines in said]
    assert has[0] == has[1]
    assert len(has[0]) == 8


@pytest.mark.usefixtures("alone_there")
@pytest.mark.skipif(sys.platform == "win32", reason="Windows stops no process")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_driver_that_is_gone_for_longer_than_its_lease_loses_its_turn(tmp_path: Path, how: str) -> None:
    boot = "another" if how == "killed" else ""
    with start(tmp_path, "a", True, 1, boot=boot) as one, start(tmp_path, "b", False, 0) as warm:
        assert warm.wait(timeout=HANG_S) == 0
        assert one.stdout is not None
        assert one.stdout.readline() == "making\n"
        one.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        with start(tmp_path, "b", False, 1) as two:
            assert two.communicate(timeout=HANG_S)[0].splitlines() == ["making", "has 0 b"]
        if how == "stopped":
            one.send_signal(signal.SIGCONT)
            assert one.communicate("\n", timeout=HANG_S)[0].splitlines() == ["has 0 b"]


@pytest.mark.usefixtures("alone_there")
def test_a_driver_of_this_machine_that_was_killed_is_waited_for_no_longer(tmp_path: Path) -> None:
    with start(tmp_path, "a", True, 1) as one:
        assert one.stdout is not None
        assert one.stdout.readline() == "making\n"
        one.kill()
        one.wait()
        with start(tmp_path, "b", False, 1, "endless") as two:
            assert two.communicate(timeout=HANG_S)[0].splitlines() == ["making", "has 0 b"]


class GaveUpError(Exception):
    """Who waits has waited enough."""


@pytest.mark.parametrize("kind", ["made", "result", "files"])
def test_who_waits_for_another_machine_is_told_until_when(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """That machine is another boot of a system, so that it cannot be seen whether its process still lives."""
    (tmp_path / "data.jsonl").write_bytes(CONTENT)
    files = {"data.jsonl": tmp_path / "data.jsonl"}
    one, two = cache_on("one", monkeypatch), cache_on("two", monkeypatch)
    folders = [cache.make(TinyJob(), run).folder for cache in (one, two)]
    told: list[str] = []
    put = Objects.put

    def waiting(maker: object, seconds: float) -> None:
        told.append(str(maker))
        raise GaveUpError

    def act(cache: Cache, folder: Path, **more: Any) -> None:
        assert cache.shared is not None
        if kind == "made":
            cache.make(Work(), run, **more)
        elif kind == "result":
            cache.shared.offer(folder, always=True, **more)
        else:
            cache.put_inputs(files, **more)

    def meanwhile(self: Objects, file: Path, name: str) -> None:
        if not told:
            with pytest.raises(GaveUpError):
                act(two, folders[1], waiting=waiting)
        put(self, file, name)

    monkeypatch.setattr(Objects, "put", meanwhile)
    monkeypatch.setattr(shared_store, "MAKER_S", 1e6)
    monkeypatch.setattr(makers, "this_process", lambda: leases.Process(7, "elsewhere", "boot", "namespace", 5.0))
    act(one, folders[0])
    (line,) = told
    when = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    what = "" if kind == "made" else " for the shared cache"
    found = re.fullmatch(
        rf"process 7 on elsewhere makes it since ({when}){what}; if it was killed, this goes on at ({when})", line
    )
    assert found is not None, line
    assert found[2] > found[1]


def failing_once(monkeypatch: pytest.MonkeyPatch, method: str, start: str) -> list[str]:
    """Let the store fail once, in a method of `Objects` for an object whose name begins so. Returns the failures."""
    real, failed = getattr(Objects, method), list[str]()

    def call(self: Objects, *given: Any) -> Any:
        if given and given[0].startswith(start) and not failed:
            failed.append(given[0])
            raise MachineError(f"{self} does not answer")
        return real(self, *given)

    monkeypatch.setattr(Objects, method, call)
    return failed


def gives_up(maker: object, seconds: float) -> None:
    raise GaveUpError(str(maker))


@pytest.mark.parametrize("who", ["one", "two"])
def test_a_turn_whose_end_the_store_did_not_hear_is_ended_later(
    store: str, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """The process goes on with another result meanwhile: its lease lasts, and others would wait for what nobody makes."""
    monkeypatch.setattr(shared_store, "MAKER_S", 1e9)
    one = cache_on("one", monkeypatch)
    assert one.shared is not None

    def fails(out: Path) -> tuple[dict[str, Any], float]:
        raise StageError("failed", "it fails")

    with one.shared.making(one.folder(Work(seed=1))):
        failed = failing_once(monkeypatch, "remove", "makers/")
        with pytest.raises(StageError):
            one.make(Work(), fails)
        assert len(failed) == 1
        if who == "two":
            one.make(Work(seed=2), run)  # the next that is made
        cache = one if who == "one" else cache_on("two", monkeypatch)
        assert not cache.make(Work(), run, waiting=gives_up).cached
    objects = Objects(store, "x")
    assert not objects.names("makers/")
    assert not objects.names("leases/")


def test_a_lease_that_could_not_be_written_leaves_nothing_behind(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = cache_on("one", monkeypatch)
    failed = failing_once(monkeypatch, "write", "leases/")
    with pytest.raises(MachineError, match="does not answer"):
        one.make(Work(), run)
    assert len(failed) == 1
    assert not one.make(Work(), run).cached
    assert not Objects(store, "x").names("leases/")
