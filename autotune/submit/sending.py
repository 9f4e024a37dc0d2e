"""Sends a job to Azure ML, and from here shows its state, follows its log, cancels it and fetches its results.

A note beside the job's file (`NAME.azureml.job.json`, without secrets) records the job, so that a later command finds it.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from autotune.durable import write_aside
from autotune.errors import Exit, Interrupted, MachineError, Problem, UsageError, printable_lines
from autotune.remote.addresses import Address, Workspace, is_address, parse
from autotune.remote.files import fetch_file, fetch_folder, read_address
from autotune.remote.workspace import client, need_sdk, need_workspace, speaking, workspace_at_hand
from autotune.results.claim import check_folder
from autotune.results.rows import Trial
from autotune.results.table import read_table
from autotune.scratch import scratch
from autotune.secrets import redact
from autotune.submit.azureml import Draft, compute_of

NOTED = ".azureml.job.json"
"""The end of the name of a job's note."""
ENDED = ("Completed", "Failed", "Canceled", "NotResponding")
"""Final states of a job."""
_NO_GIT = {"mlflow.source.git.repoURL": "not recorded"}
"""Keeps the SDK from writing the address of the user's repository into the job: it may hold a password."""
_SPOT_TIERS = ("low_priority", "lowpriority")


@dataclass(frozen=True)
class Sent:
    """A job that was sent."""

    job: str
    sweep: str
    subscription_id: str
    resource_group: str
    workspace_name: str
    output: str
    """The folder of results and cache, as an address."""
    studio: str = ""
    submitted: str = ""

    @property
    def workspace(self) -> Workspace:
        """The workspace of the job."""
        return Workspace(self.subscription_id, self.resource_group, self.workspace_name)

    @property
    def again(self) -> str:
        """The command that follows the job."""
        return f"autotune job logs {self.job}"


def note_of(file: Path) -> Path:
    """Return the path of the note for a job's file."""
    return file.with_name(file.name.removesuffix(".yaml").removesuffix(".azureml") + NOTED)


def read_note(file: Path) -> Sent | None:
    """Return the job of a note; None where the note is missing or damaged."""
    try:
        return Sent(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def find_job(named: str, workspace: Workspace | None = None) -> Sent:
    """Return the job that a user names: by its name, its sweep's name, its file, or its note in this folder.

    Raises UsageError where this folder has no note of it, and no workspace is known that could be asked.
    """
    place = Path(named)
    notes = [place, note_of(place)] if place.suffix in (".json", ".yaml") else []
    found = [one for file in [*notes, *sorted(Path().glob(f"*{NOTED}"))] if (one := read_note(file)) is not None]
    if (notes and found and read_note(notes[0]) is not None) or (notes and read_note(notes[-1]) is not None):
        return found[0]
    for one in found:
        if named in (one.job, one.sweep) and workspace in (None, one.workspace):
            return one
    place_at_hand = workspace or workspace_at_hand()
    if place_at_hand is None:
        known = ", ".join(sorted(one.job for one in found)) or "none"
        rule = f"no job of that name was sent from this folder (sent: {known})"
        remedy = "go to the folder that it was sent from, or add --workspace SUBSCRIPTION/GROUP/WORKSPACE"
        raise UsageError(Problem(rule, "JOB", value=named, remedy=remedy))
    return Sent(named, "", *place_at_hand, output="")


# --- sending ---------------------------------------------------------------------------------------------------------


def send(file: Path, draft: Draft, sweep: str) -> Sent:
    """Send the job of `file`, with its code, environment and local inputs, and note it. Returns the sent job.

    Raises UsageError: no workspace, no such compute, model or datastore, the same sweep running in another job.
    MachineError: login, rights, quota, connection; the next try uses what was uploaded by then.
    """
    need_sdk("--to azureml")
    given = draft.given
    names = (given.subscription_id, given.resource_group, given.workspace_name)
    workspace = need_workspace(workspace_at_hand(*names), "submit.azureml", str(file))
    azure = client(workspace)
    note = note_of(file)
    _refuse_second(read_note(note), workspace, draft)
    with speaking(f"workspace {workspace.workspace_name}"):
        azure.workspaces.get(workspace.workspace_name)
    _check_compute(azure, draft)
    kind = _model_kind(draft, workspace)
    with speaking("the job", "submit it again: what was sent already is used again"), _quiet():
        from azure.ai.ml import load_job

        job: Any = load_job(file)
        if kind is not None:
            job.inputs["model"].type = kind
        job.properties = {**(job.properties or {}), **_NO_GIT}
        done = azure.jobs.create_or_update(job)
    services: Any = done.services or {}
    studio = getattr(services.get("Studio"), "endpoint", "") or ""
    output = str(parse(draft.output).within(workspace))
    when = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    sent = Sent(str(done.name), sweep, *workspace, output, str(studio), when)
    write_aside(note, json.dumps(asdict(sent), indent=1) + "\n")
    return sent


def _refuse_second(before: Sent | None, workspace: Workspace, draft: Draft) -> None:
    """Raise UsageError while an earlier job uses the same output folder: the new job would fail on its lock after minutes."""
    if before is None or before.workspace != workspace:
        return
    if before.output != str(parse(draft.output).within(workspace)):
        return
    try:
        state = read_state(before)["status"]
    except UsageError:  # it is no longer there
        return
    if state not in ENDED:
        rule = f"the job {before.job} of this sweep is at work ({state})"
        remedy = f"wait for it (autotune job logs {before.job}), or end it: autotune job cancel {before.job}"
        raise UsageError(Problem(rule, "submit.azureml.output", remedy=remedy))


def _check_compute(azure: Any, draft: Draft) -> None:
    named = compute_of(draft.given)
    if named in ("", "serverless"):
        return
    try:
        with speaking(f"compute {named}"):
            found = azure.compute.get(named)
    except UsageError as error:
        with speaking("the computes"):
            there = sorted(str(one.name) for one in azure.compute.list())
        has = f"the workspace has {', '.join(there)}" if there else "the workspace has none"
        rule = f"there is no such compute ({has})"
        remedy = "correct the name, make the cluster, or write serverless"
        raise UsageError(Problem(rule, "submit.azureml.compute", value=named, remedy=remedy)) from error
    state = _text(getattr(found, "provisioning_state", "")) or "Succeeded"
    if state.lower() not in ("succeeded", "updating", "creating"):
        raise MachineError(f"compute {named} is not ready ({state}); mend it in Azure ML studio, or name another")
    tier = _text(getattr(found, "tier", "")).lower()
    if draft.given.spot and tier and tier not in _SPOT_TIERS:
        rule = f"spot is asked for, and the compute is {tier}"
        remedy = "name a low-priority compute, or serverless; or set submit.azureml.spot=false"
        raise UsageError(Problem(rule, "submit.azureml.spot", value=named, remedy=remedy))


def _model_kind(draft: Draft, workspace: Workspace) -> str | None:
    """Return the kind of a registered model, which its input must name too. Raises UsageError where there is none such."""
    model = (draft.content.get("inputs") or {}).get("model")
    if model is None or model["type"] != "custom_model":
        return None
    address = parse(model["path"]).within(workspace)
    with speaking(f"model {address.name}, version {address.version}"):
        found = client(address.workspace, address.registry).models.get(address.name, version=address.version)
    return _text(found.type) or "custom_model"


# --- looking after it ------------------------------------------------------------------------------------------------


def read_state(sent: Sent) -> dict[str, Any]:
    """Return a job's state as plain data. Raises UsageError where there is no such job, MachineError."""
    with speaking(f"job {sent.job}"):
        job: Any = client(sent.workspace).jobs.get(sent.job)
    services: Any = job.services or {}
    state = {
        "job": sent.job, "status": _text(job.status), "ended": _text(job.status) in ENDED, "sweep": sent.sweep,
        "compute": str(job.compute or "serverless").rpartition("/")[2],
        "output": sent.output or _output_of(job, sent.workspace),
        "studio": getattr(services.get("Studio"), "endpoint", None) or sent.studio,
    }  # fmt: skip
    error = getattr(job, "error", None)
    message = getattr(error, "message", None) or (error.get("message") if isinstance(error, dict) else None)
    return {**state, "error": redact(str(message)) if message else None}


def _text(value: Any) -> str:
    """Return a text of the SDK's, which may be a member of an enumeration; empty where there is none."""
    return str(getattr(value, "value", value) or "")


def _output_of(job: Any, workspace: Workspace) -> str:
    path = getattr((job.outputs or {}).get("folder"), "path", None)
    if not is_address(path):
        return ""
    with contextlib.suppress(ValueError):
        return str(parse(str(path)).within(workspace))
    return str(path)


def cancel(sent: Sent) -> str:
    """Cancel a job unless it has ended. Returns its state afterwards. Raises UsageError, MachineError."""
    state = read_state(sent)
    if state["ended"]:
        return str(state["status"])
    with speaking(f"job {sent.job}"):
        client(sent.workspace).jobs.begin_cancel(sent.job)
    return str(read_state(sent)["status"])


def follow(sent: Sent, say: Callable[[str], None]) -> Exit:
    """Print a job's log until it ends, also across preemptions. Returns 0 where the job completed.

    Raises MachineError where the connection is lost or the job failed, Interrupted on Ctrl-C (the job continues).
    """
    lines = _Lines(say)
    again = f"the job goes on; look on with: {sent.again}"
    with speaking(f"job {sent.job}", again), contextlib.redirect_stdout(lines):
        try:
            client(sent.workspace).jobs.stream(sent.job)
        except Exception as error:  # a failed job is reported below, with our remedy
            if type(error).__name__ != "JobException":
                raise
            if isinstance(error.__cause__ or error.__context__, KeyboardInterrupt):
                raise Interrupted(f"interrupted; {again}") from None
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted; {again}") from None
    lines.flush()
    state = read_state(sent)
    if state["status"] == "Completed":
        return Exit.OK
    why = f": {state['error']}" if state["error"] else ""
    remedy = "submit the sweep again: it goes on from what is kept" if state["ended"] else again
    raise MachineError(f"the job {sent.job} is {state['status']}{why}; {remedy}")


class _Lines(io.TextIOBase):
    """A stream that prints whole lines, without secrets."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._rest, self._out = say, "", sys.stdout

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, self._rest = (self._rest + text).split("\n")
        with contextlib.redirect_stdout(self._out):
            for line in whole:
                self._say(printable_lines(redact(line)))
        return len(text)

    def flush(self) -> None:
        """Do nothing: half a line may hold half a secret, which would not be recognised."""


def fetch(sent: Sent, to: Path | None, cache: bool = False) -> tuple[Path, int]:
    """Fetch a job's results, whether it has ended or not. Returns the results folder, and the number of fetched files.

    `cache`: also fetch the job's cache into this machine's, so that the sweep can go on here.
    Raises UsageError, MachineError, OSError.
    """
    output = sent.output or str(read_state(sent)["output"])
    if not output:
        remedy = "name a job that autotune submit has sent"
        raise UsageError(Problem("has no output called folder", "JOB", value=sent.job, remedy=remedy))
    address = read_address(output, "JOB", sent.workspace)
    folder = to or Path("results") / (sent.sweep or address.path.rpartition("/")[2])
    check_folder(folder, "", who="fetching")
    try:
        _refuse_other_results(address.below("results"), folder)
        results = address.below("results")
        # sweep.yaml first: by it the folder counts as one of results where fetching is interrupted, and can be fetched into again.
        count = fetch_folder(results, folder, lambda path: path != ".lock", True, replaced="best", first="sweep.yaml")
    except OSError as error:
        rule = f"cannot be written ({error.strerror or error})"
        raise UsageError(
            Problem(rule, file=str(error.filename or folder), remedy="name another folder with --out")
        ) from None
    if count == 0:
        raise MachineError(
            f"the job {sent.job} has written no results yet; look again later: autotune job status {sent.job}"
        )
    if cache:
        from autotune.artifacts.store import default_root

        there = address.below("cache")
        count += fetch_folder(there, default_root(), lambda path: not path.endswith(".lock"), in_use=True)
    return folder, count


def _refuse_other_results(there: Address, folder: Path) -> None:
    """Raise UsageError where a sweep runs in the folder, or where fetching would lose rows that only this folder has."""
    if (folder / ".lock").is_file():
        try:
            FileLock(str(folder / ".lock")).acquire(timeout=0).lock.release()
        except Timeout:
            rule = "another process is at work in this folder"
            raise UsageError(
                Problem(rule, file=str(folder), remedy="wait for it, or name another with --out")
            ) from None
    if not (folder / "results.csv").is_file():
        return
    here = {_row(row) for row in read_table(folder / "results.csv", Trial)}
    with scratch("fetch") as aside:
        table = aside / "results.csv"
        known: set[tuple[object, ...]] = set()
        with contextlib.suppress(UsageError):  # it has none yet
            fetch_file(str(there.below("results.csv")), table)
            known = {_row(row) for row in read_table(table, Trial)}
    if here - known:
        rule = f"holds {len(here - known)} rows that the job's results do not have, and they would be lost"
        raise UsageError(Problem(rule, file=str(folder), remedy="name another folder with --out"))


def _row(row: Trial) -> tuple[object, ...]:
    return row.candidate, row.trial, row.attempt, row.ended


@contextlib.contextmanager
def _quiet() -> Any:
    """Discard what the SDK prints: our own messages say what matters."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
    sys.stderr.flush()
