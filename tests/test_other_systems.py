"""Windows and macOS, as far as Linux can show them: what they lack is missing, and what they answer is answered.

Types are checked for all three systems: mypy knows which names of the standard library each has (a slow test). What every
system has, but another one does otherwise, is refused by `WATCHED`.
"""

from __future__ import annotations

import ast
import ctypes
import errno
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import Ran, TinySweep

from autotune import cli, durable, errors, machine
from autotune.artifacts import store
from autotune.artifacts.store import BELOW, too_deep
from autotune.durable import empty_folder, put
from autotune.errors import Exit, MachineError, UsageError, reader_gone
from autotune.execution import worker
from autotune.execution.fresh_process import died
from autotune.execution.stop import stop_on_signals
from autotune.execution.worker import _living, printed_to
from autotune.paths import is_portable
from autotune.present import terminal
from autotune.present.doctor import examine
from autotune.providers import PROVIDERS
from autotune.results.loading import load_script
from autotune.stages.timing_conditions import Conditions
from autotune.submit import skypilot, slurm
from autotune.submit.plan import make_plan
from autotune.sweepfile.resolve import parse_sweep

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "autotune").rglob("*.py"))


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the code believe that it is on Windows."""
    monkeypatch.setattr(sys, "platform", "win32")


# --- names that other systems lack, or take in another way --------------------------------------------------------------


def spoken(node: ast.AST) -> str:
    """Return a dotted name as it is written; empty for anything else."""
    if isinstance(node, ast.Attribute):
        before = spoken(node.value)
        return f"{before}.{node.attr}" if before else f".{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def given(call: ast.Call, name: str) -> ast.expr | None:
    """Return the value of a call's keyword."""
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def is_text(call: ast.Call) -> bool:
    """Whether a process is talked with in texts."""
    return any(given(call, name) is not None for name in ("text", "encoding", "universal_newlines"))


WATCHED: dict[str, Callable[[ast.Call, str], bool]] = {
    "os.kill ends a process at once on Windows, whatever the signal": lambda _, name: name in ("os.kill", "os.killpg"),
    "rename fails on Windows where the new name is taken: use replace, or durable.put": lambda _, name: (
        name == "os.rename" or name.endswith(".rename")
    ),
    "links need rights on Windows": lambda _, name: name.rpartition(".")[2] in ("symlink", "symlink_to", "hardlink_to"),
    "an open temporary file cannot be opened again on Windows": lambda _, name: name.endswith("NamedTemporaryFile"),
    "no shell: each system has another": lambda call, name: (
        name.startswith(("subprocess.", "os.system")) and (given(call, "shell") is not None or name == "os.system")
    ),
    "only POSIX forks": lambda call, name: (
        name.endswith(("get_context", "set_start_method"))
        and any(isinstance(word, ast.Constant) and word.value in ("fork", "forkserver") for word in call.args)
    ),
    "what another program prints may be in any encoding: give errors": lambda call, name: (
        name.startswith("subprocess.") and is_text(call) and given(call, "errors") is None
    ),
    "strftime's - and # are not everywhere": lambda call, name: (
        name.endswith("strftime") and any("%-" in ast.unparse(word) or "%#" in ast.unparse(word) for word in call.args)
    ),
}


def faults(tree: ast.Module) -> Iterator[str]:
    """Yield what of a module's calls another system takes in another way."""
    paths = "Path" in {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = spoken(node.func)
            if name.endswith(".rename") and name != "os.rename" and not paths:  # of something that is no file
                continue
            yield from (why for why, is_so in WATCHED.items() if is_so(node, name))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_call_means_something_else_on_another_system(file: Path) -> None:
    expected = (
        ["links need rights on Windows"] if file.name == "in_job.py" else []
    )  # it runs on Azure ML, and goes on without
    assert list(faults(ast.parse(file.read_text(encoding="utf-8")))) == expected


@pytest.mark.parametrize(
    "line",
    [
        "os.kill(pid, 9)", "from pathlib import Path\nPath(a).rename(b)", "os.system('ls')", "os.rename(a, b)", "link.symlink_to(file)", "os.symlink(a, b)",
        "tempfile.NamedTemporaryFile()", "subprocess.run('ls', shell=True)", "multiprocessing.get_context('fork')",
        "subprocess.run(['ls'], text=True)", "subprocess.run(['ls'], encoding='utf-8')", "day.strftime('%-d')",
    ],
)  # fmt: skip
def test_such_calls_are_seen(line: str) -> None:
    assert len(list(faults(ast.parse(line)))) == 1
    assert not list(faults(ast.parse("subprocess.run(['ls'], encoding='utf-8', errors='replace'); a.replace(b)")))


@pytest.mark.slow
@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_types_hold_on_other_systems(system: str, tmp_path: Path) -> None:
    """A name that the standard library lacks there, such as signal.SIGKILL or os.getuid, stands behind a question of sys.platform."""
    command = [sys.executable, "-m", "mypy", "--platform", system, "--cache-dir", str(tmp_path), "-p", "autotune"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_mypy_sees_what_is_not_there(system: str, tmp_path: Path) -> None:
    """The slow test above would notice."""
    line = {
        "win32": "import os, signal\nprint(signal.SIGKILL, os.getuid())\n",
        "darwin": "import os\nos.sched_getaffinity(0)\n",
    }
    (tmp_path / "bad.py").write_text(line[system], encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--platform", system, "--cache-dir", str(tmp_path), "bad.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "has no attribute" in done.stdout


# --- processes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (0xC000013A, "lost", "ended from outside (Ctrl-C)"),
        (0x40010004, "lost", "ended from outside (the session ended)"),
        (0xC0000017, "out_of_memory", "no memory left (status 0xc0000017)"),
        (0xC000012D, "out_of_memory", "no memory left"),
        (0xC0000005, "failed", "the process crashed (status 0xc0000005)"),
        (1, "lost", "ended with exit code 1"),
    ],
)
@pytest.mark.usefixtures("windows")
def test_how_a_process_of_windows_ended(code: int, status: str, said: str) -> None:
    error = died(code, "build")
    assert (error.status, said in str(error)) == (status, True), error


def test_ctrl_break_and_a_closed_window_ask_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has SIGBREAK, and no SIGHUP."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
    monkeypatch.delattr(signal, "SIGHUP")
    said: list[bool] = []
    with stop_on_signals(lambda: said.append(True)) as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGUSR2)
    assert said == [True]
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_command_takes_ctrl_break_for_an_interruption(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2)}
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(cli, "_doctor", lambda _: os.kill(os.getpid(), signal.SIGUSR2))
    try:
        assert cli.main(["doctor"]) == Exit.INTERRUPTED
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    assert "run the same command again" in capsys.readouterr().err


def test_ctrl_break_is_the_tuners_business_not_a_workers() -> None:
    code = (
        "import os, signal\nsignal.SIGBREAK = signal.SIGUSR2\nfrom autotune.execution.worker import start\n"
        "start(os.getppid(), 1e6)\nos.kill(os.getpid(), signal.SIGUSR2)\nos.kill(os.getpid(), signal.SIGINT)\nprint('works on')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "works on\n", done.stderr


@pytest.mark.usefixtures("windows")
def test_a_worker_of_windows_knows_whether_its_tuner_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are given again there: another process of the same number is not the tuner."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = _living(child.pid)
    assert alive()
    child.communicate(b"\n")
    assert not alive()
    assert not _living(child.pid)()
    here = _living(os.getpid())
    assert here()
    monkeypatch.setattr(
        psutil.Process, "__eq__", lambda self, other: False
    )  # as a later process of that number is not equal
    assert not here()


# --- consoles -----------------------------------------------------------------------------------------------------------


class Console(io.RawIOBase):
    """A console's stream, as Windows has it: once its descriptor points elsewhere, nothing can be written."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise OSError(errno.EBADF, "The handle is invalid")


@pytest.mark.parametrize("without", [False, True], ids=["a console", "no stream at all"])
def test_what_a_worker_prints_reaches_the_log_from_a_console_too(
    without: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(io, "_WindowsConsoleIO", Console, raising=False)
    for name in ("stdout", "stderr"):
        stream = None if without else io.TextIOWrapper(io.BufferedWriter(Console()), "utf-8", write_through=True)
        monkeypatch.setattr(sys, name, stream)
    with printed_to(tmp_path / "log"):
        print("by Python \u2265 90 %", flush=True)  # noqa: T201
        print("an error", file=sys.stderr)  # noqa: T201
        os.write(1, b"by a library\n")
    print("afterwards", flush=True)  # noqa: T201
    assert (tmp_path / "log").read_text(encoding="utf-8") == "by Python \u2265 90 %\nan error\nby a library\n"
    assert capfd.readouterr().out == "afterwards\n"


def test_streams_of_other_systems_stay_as_they_are(tmp_path: Path) -> None:
    before = sys.stdout, sys.stderr
    with printed_to(tmp_path / "log"):
        assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), True),
        (OSError(errno.EINVAL, "Invalid argument"), True),
        (OSError(errno.EINVAL, "Invalid argument", "a:b.csv"), False),  # a file's name that Windows does not take
        (OSError(errno.ENOSPC, "No space left on device"), False),
    ],
)
def test_a_reader_that_has_gone_is_known_on_windows(
    error: OSError, gone: bool, monkeypatch: pytest.MonkeyPatch, windows: None
) -> None:
    assert reader_gone(error) == gone
    monkeypatch.setattr(sys, "platform", "linux")
    assert reader_gone(error) == isinstance(error, BrokenPipeError)
    assert errors.sys is sys


def test_a_command_whose_reader_has_gone_ends_well_on_windows(monkeypatch: pytest.MonkeyPatch, windows: None) -> None:
    def doctor(_: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    turned: list[int] = []
    monkeypatch.setattr(cli, "_doctor", doctor)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(os, "dup2", lambda _, to: turned.append(to))
    assert cli.main(["doctor"]) == Exit.OK
    assert turned == [sys.stdout.fileno()]


@pytest.mark.parametrize(("modes", "takes"), [((1, 1), True), ((1, 0), False), ((0, 1), False)])
def test_a_console_of_windows_is_told_to_take_escapes(
    modes: tuple[int, int], takes: bool, monkeypatch: pytest.MonkeyPatch, windows: None
) -> None:
    class Kernel:
        def GetConsoleMode(self, handle: Any, mode: Any) -> int:
            mode._obj.value = 3
            return modes[0]

        def SetConsoleMode(self, handle: Any, mode: Any) -> int:
            assert mode.value == 7
            return modes[1]

    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 1

    monkeypatch.setattr(ctypes, "WinDLL", lambda name: Kernel(), raising=False)
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(get_osfhandle=lambda number: 7))
    assert terminal.takes_escapes(Stream()) == takes
    assert not terminal.takes_escapes(io.StringIO())
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.takes_escapes(Stream())
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.takes_escapes(Stream())


FAKE_GENAI = """
class Any:
    def __init__(self, *given): pass
    def __getattr__(self, name): return lambda *given, **named: Any()
    def is_done(self): return True
    def decode(self, tokens): return "\\u2265 90 % \\u8a9e"
Config = Model = Tokenizer = GeneratorParams = Generator = Any
register_execution_provider_library = lambda *given: None
"""


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_shipped_script_writes_every_language_into_a_pipe_of_windows(name: str, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime_genai.py").write_text(FAKE_GENAI, encoding="utf-8")
    (tmp_path / "load.py").write_text(load_script(PROVIDERS[name]), encoding="utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "load.py", "a prompt"], cwd=tmp_path, env=environment, capture_output=True, check=False
    )
    assert done.stdout.decode("utf-8") == "\u2265 90 % \u8a9e\n", done.stderr


# --- files --------------------------------------------------------------------------------------------------------------


def test_a_folder_is_made_anew_once_a_process_has_let_it_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: None
) -> None:
    folder, tries = tmp_path / "folder", list[Path]()
    folder.mkdir()
    (folder / "old").touch()
    remove = durable.shutil.rmtree

    def busy(place: Path, ignore_errors: bool = False) -> None:
        tries.append(place)
        if len(tries) > 2:
            remove(place, ignore_errors=ignore_errors)

    monkeypatch.setattr(durable.shutil, "rmtree", busy)
    monkeypatch.setattr(durable, "_AGAIN_S", 0.001)
    assert list(empty_folder(folder).iterdir()) == []
    assert len(tries) == 3
    (folder / "old").touch()
    monkeypatch.setattr(durable.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(durable, "_BUSY_S", 0.01)
    with pytest.raises(FileExistsError):  # never a result with what another left in it
        empty_folder(folder)


def test_a_file_that_is_open_is_replaced_when_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, windows: None
) -> None:
    replace, tries = Path.replace, list[Path]()

    def busy(self: Path, target: Path) -> Path:
        tries.append(self)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(durable, "_AGAIN_S", 0.001)
    (tmp_path / "new").write_text("new", encoding="utf-8")
    (tmp_path / "file").write_text("old", encoding="utf-8")
    put(tmp_path / "new", tmp_path / "file", sync=False)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "new"


@pytest.mark.parametrize("name", ["con", "NUL", "aux", "Prn", "com1", "LPT9", "con.v2", "nul.yaml", "sweep."])
def test_names_that_windows_does_not_take_are_refused(name: str, tmp_path: Path) -> None:
    least = {"model": "smollm2-135m-instruct", "data": {"train": "t.jsonl", "prompt": "{a}", "completion": " {b}"},
             "space": {"build": [{"precision": "int8"}]}}  # fmt: skip
    assert not is_portable(name)
    with pytest.raises(UsageError) as refused:
        parse_sweep(least | {"name": name}, root=tmp_path, shown="s.yaml")
    assert [str(p) for p in refused.value.problems if p.key == "name"], refused.value
    assert "name that Windows takes" in str(refused.value)
    if name.isalnum() and name.islower():
        with pytest.raises(UsageError, match="name that Windows takes") as refused:
            parse_sweep(least | {"targets": {name: {"provider": "cpu"}}}, root=tmp_path, shown="s.yaml")
        assert [p.key for p in refused.value.problems] == [f"targets.{name}"]
    # A sweep that is called as its file gets a name that works.
    assert is_portable(parse_sweep(least, root=tmp_path, shown=f"{name}.yaml").name)


@pytest.mark.parametrize("name", ["console", "nullable", "com10", "auxiliary", "a.con", "v1.2"])
def test_names_that_only_look_so_are_taken(name: str) -> None:
    assert is_portable(name)


def test_what_runs_on_a_cluster_is_named_as_linux_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`autotune submit sweeps\\night.yaml` on Windows writes a script for another system."""
    monkeypatch.chdir(ROOT)
    plan = make_plan(ROOT / "search_spaces" / "phrase-tone-cpu.yaml", [])
    there = replace(plan, file=PureWindowsPath("sweeps\\night.yaml"))  # type: ignore[arg-type]
    assert "autotune run sweeps/night.yaml " in slurm.script(there)
    assert "autotune run search_spaces/phrase-tone-cpu.yaml " in skypilot.task(plan)


def test_a_drive_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.free_disk_mb(tmp_path / "not" / "yet") > 0
    monkeypatch.setattr(machine, "exists", lambda path: False)  # as Z:\\ on a machine without one
    with pytest.raises(MachineError, match="there is no drive /"):
        machine.free_disk_mb(Path("/cache/autotune"))


def registry(values: dict[str, Any]) -> Any:
    """Return a stand-in for winreg that knows these values."""

    class Key:
        def __enter__(self) -> Key:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def ask(key: Key, name: str) -> tuple[Any, int]:
        if name not in values:
            raise FileNotFoundError(name)
        return values[name], 1

    return SimpleNamespace(HKEY_LOCAL_MACHINE=0, OpenKey=lambda *_: Key(), QueryValueEx=ask)


def test_the_longest_paths_of_a_cache_are_known(tiny_sweep: TinySweep, cache_root: Path) -> None:
    """`BELOW` is no guess: what a sweep leaves in its cache, and the names while it is made, have fewer characters."""
    assert tiny_sweep.out.is_dir()
    below = [len(str(path.relative_to(cache_root))) for path in cache_root.rglob("*")]
    assert 80 < max(below) <= BELOW - len(".new") - len("model-00001-of-00002.safetensors") + len("model.safetensors")


@pytest.mark.usefixtures("windows")
def test_a_cache_too_deep_for_windows_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autotune: Callable[..., Ran]
) -> None:
    deep = tmp_path / ("a" * 60) / ("b" * 60)
    monkeypatch.setitem(sys.modules, "winreg", registry({}))
    assert machine.longest_path() == 259
    assert too_deep(Path("/short")) == ""
    assert "set AUTOTUNE_CACHE to a folder with a path of at most 109 characters" in too_deep(deep)
    monkeypatch.setattr("autotune.present.doctor.default_root", lambda: deep)
    assert any("set AUTOTUNE_CACHE" in problem for problem in examine()["problems"])
    monkeypatch.setitem(sys.modules, "winreg", registry({"LongPathsEnabled": 1}))
    assert too_deep(deep) == ""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "winreg", registry({}))
    assert too_deep(deep) == ""
    assert store.longest_path() is None


def test_a_run_whose_cache_is_too_deep_ends_before_it_begins(
    tiny_sweep: TinySweep, monkeypatch: pytest.MonkeyPatch, autotune: Callable[..., Ran]
) -> None:
    monkeypatch.setattr("autotune.artifacts.store.longest_path", lambda: 120)
    done = autotune("run", tiny_sweep.file, "--out", "out")
    assert (done.code, "set AUTOTUNE_CACHE" in done.err) == (Exit.MACHINE, True), done.err


# --- the machine --------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """The processor is asked for once in a process."""
    machine._processor.cache_clear()
    yield
    machine._processor.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_the_processor_is_known_by_its_name_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """`platform.processor()` is `arm` on every Mac of today: timings of two machines would be taken for one another's."""
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "winreg", registry({"ProcessorNameString": "AMD Ryzen 7  7840U "}))
    assert machine._processor() == "AMD Ryzen 7 7840U"
    machine._processor.cache_clear()
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="Apple M3 Pro\n"))
    assert machine._processor() == "Apple M3 Pro"
    machine._processor.cache_clear()

    def fails(*_: object, **__: object) -> None:
        raise FileNotFoundError("sysctl")

    monkeypatch.setattr(subprocess, "run", fails)
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert machine._processor() == "arm"


def test_conditions_are_told_as_far_as_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise RuntimeError("no frequency")  # as psutil on some Macs

    monkeypatch.setattr(psutil, "cpu_freq", unknown)
    with Conditions() as seen:
        pass
    assert "cpu_mhz" not in seen.so_far()
    assert "load_avg" in seen.so_far()
    monkeypatch.setattr(sys, "platform", "win32")
    assert "load_avg" not in seen.so_far(), (
        "psutil's own count begins with 0, which would be a number that nobody measured"
    )


def test_a_worker_writes_to_descriptors_only_where_it_must() -> None:
    assert worker._console() == ()
