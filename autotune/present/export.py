"""The `export` command: finds a candidate's parts or makes them again, writes them as a folder, tests it, describes it, uploads
it."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.candidate import Candidate, Session
from autotune.errors import Exit, Problem, StageError, UsageError, did_you_mean
from autotune.metrics import METRICS, is_task
from autotune.models import HUB_NAME
from autotune.paths import exists, is_file, is_folder, size_mb
from autotune.pipeline.shipped import verify_job
from autotune.present.explained import explain
from autotune.present.parts import Made, make_parts
from autotune.present.recorded import Recorded, open_results
from autotune.present.select import Selection, as_json, select
from autotune.present.tables import settings
from autotune.present.workshop import Workshop, say, workshop
from autotune.providers import PROVIDERS
from autotune.results.folder import read_outcomes
from autotune.results.layout import ABOUT, SUMS, aside_of, fill, put_in_place, write_sums, write_texts
from autotune.results.loading import LOAD
from autotune.results.rows import Trial
from autotune.shipping.about import about_model
from autotune.shipping.card import card
from autotune.shipping.facts import Facts, Verified, gather
from autotune.shipping.files import conversation, foundry, parts_of, reproduction, run_script
from autotune.shipping.task import Task
from autotune.stages.delivery_jobs import PromptJob, PushJob
from autotune.sweepfile.schema import Target

_PARTS = {
    "onnx/": "the model for ONNX Runtime GenAI, with tokenizer and `genai_config.json`; `inference_model.json` is for Foundry Local",
    "adapter/": "the LoRA adapter, for PEFT",
    "merged/": "base model and adapter as one, safetensors for transformers",
    "run.py": "asks the model; it needs nothing else of this project",
    "reproduce.yaml": "the sweep that makes this candidate again",
    "candidate.json": "settings, and how prompts are written and answers scored, for programs",
    SUMS: "`sha256sum --check SHA256SUMS`",
}  # fmt: skip


@dataclass(frozen=True)
class Wishes:
    """The options of the command line."""

    to: Path
    candidate: str | None = None
    target: str | None = None
    limits: Sequence[str] = ()
    prefer: str | None = None
    merged: bool = False
    zipped: bool = False
    force: bool = False
    items: int | None = None
    """Items on which the folder is tested; 0: none; None: the usual number."""
    base_model: str | None = None
    push: str | None = None
    public: bool = False


@dataclass(frozen=True)
class Exported:
    """The result of `export`; without a `folder` no candidate could be chosen, and `text` says why."""

    text: str
    exit_code: Exit
    document: dict[str, Any]


def export(folder: Path, wishes: Wishes) -> Exported:
    """Export a candidate of a results folder. Raises UsageError, MachineError."""
    wishes = replace(wishes, to=_meant(wishes.to))
    _check(wishes)
    recorded = open_results(folder).of_target(wishes.target, wishes.candidate)
    selection = select(folder, wishes.limits, wishes.prefer, recorded.target)
    row = choose_row(recorded, selection, wishes.candidate)
    for note in selection.notes:
        say(note)
    if row is None:
        return Exported(
            explain(selection), selection.exit_code, {"folder": None, "selection": json.loads(as_json(selection))}
        )
    facts = gather(folder, recorded.plain, recorded.rows, row, wishes.base_model)
    if wishes.push is not None and not facts.on_hub:
        rule = f"the base model {recorded.plain['model']} is a folder, so that the card could not say what it is on the hub"
        raise UsageError(Problem(rule, "--push", remedy="name it: --base-model owner/name"))
    with workshop("export", str(recorded.plain["model"]), offline=wishes.push is None) as shop:
        made = make_parts(recorded, facts, shop, wishes.merged)
        facts = replace(facts, anew=made.anew)
        verified = _write(facts, made, shop, wishes)
        archive = _zip(wishes.to) if wishes.zipped else None
        ok = not verified.wrong
        url = _push(shop, wishes, facts) if wishes.push is not None and ok else None
    document = {
        "folder": str(wishes.to), "candidate": facts.candidate.id, "name": facts.name, "size_mb": round(size_mb(wishes.to), 3),
        "made_again": made.again,
        "scored_anew": {
            split: {"metric": one.score.metric, "value": one.score.value, "low": one.score.interval.low if one.score.interval else None,
                    "high": one.score.interval.high if one.score.interval else None, "items": one.score.items,
                    "differing": one.differing}
            for split, one in made.anew.items()
        },
        "verified": None if verified.why_not else ok, "verified_items": verified.items, "wrong": list(verified.wrong),
        "not_verified": verified.why_not or None, "zip": str(archive) if archive else None, "url": url,
    }  # fmt: skip
    return Exported(_text(document, facts, verified), Exit.OK if ok else Exit.MACHINE, document)


def _meant(to: Path) -> Path:
    """Return the folder to write; for a link, its destination. Raises UsageError for the working directory and the folders
    above it, because the export replaces the folder as a whole.
    """
    try:
        whole = to.resolve()
        if Path.cwd().is_relative_to(whole):
            rule = "an export is a folder of its own, and this is the one where the command runs, or one that holds it"
            raise UsageError(Problem(rule, "--to", str(to), remedy=f"name a new folder, such as {to / 'my-model'}"))
        return whole if to.is_symlink() or to.name in ("", "..") else to
    except (OSError, RuntimeError) as error:  # too long a name, a link that leads to itself
        rule = f"the folder cannot be written ({getattr(error, 'strerror', None) or error})"
        raise UsageError(Problem(rule, "--to", str(to), remedy="name another folder")) from None


def _check(wishes: Wishes) -> None:
    problems = []
    if wishes.candidate is not None and (wishes.limits or wishes.prefer):
        remedy = "give one of them"
        problems.append(
            Problem("--candidate names the model, and --limit or --prefer choose one", "--candidate", remedy=remedy)
        )
    for key, name in (("--push", wishes.push), ("--base-model", wishes.base_model)):
        if name is not None and not HUB_NAME.fullmatch(name):
            problems.append(Problem("must be a name on the hub", key, value=name, remedy="write owner/name"))
    if wishes.public and wishes.push is None:
        problems.append(
            Problem("says how --push uploads, and nothing is uploaded", "--public", remedy="add --push owner/name")
        )
    if wishes.items is not None and wishes.items < 0:
        problems.append(Problem("must be 0 or more", "--items", value=wishes.items))
    to = wishes.to
    if exists(to) and not is_folder(to):
        problems.append(Problem("is a file, and a folder is written", "--to", str(to), remedy="name another folder"))
    elif (file := next((above for above in to.parents if exists(above)), None)) is not None and not is_folder(file):
        problems.append(
            Problem(f"{file} is a file, and no folder can be in it", "--to", str(to), remedy="name another folder")
        )
    elif is_folder(to) and any(to.iterdir()):
        ours = is_file(to / ABOUT) and is_file(to / SUMS)
        if not (ours and wishes.force):
            remedy = "name another folder" + (", or replace that export: --force" if ours else "")
            problems.append(Problem("the folder holds something already", "--to", str(to), remedy=remedy))
    if wishes.zipped and exists(_archive(to)) and not wishes.force:
        problems.append(
            Problem("is there already", "--zip", str(_archive(to)), remedy="remove it, or replace it: --force")
        )
    if problems:
        raise UsageError(problems)


def choose_row(recorded: Recorded, selection: Selection, wanted: str | None) -> Trial | None:
    """Return the row to export: the candidate whose id begins with `--candidate`, or the best under the limits. Raises
    UsageError.
    """
    if wanted is None:
        winner = selection.choice.winner
        return None if winner is None else selection.row(winner.id)
    file = str(recorded.folder / "results.csv")
    found = {row.candidate: row for row in recorded.rows if row.candidate.startswith(wanted) and wanted}
    if len(found) != 1:
        names = list(dict.fromkeys(row.candidate for row in recorded.rows if row.status == "ok"))
        rule = "no candidate has this name" if not found else f"{len(found)} candidates begin so: {', '.join(found)}"
        remedy = did_you_mean(wanted, names[:20]) if not found else "write more of the name"
        raise UsageError(Problem(rule, "--candidate", file, value=wanted, remedy=remedy))
    (row,) = found.values()
    if row.status != "ok":
        why = f": {row.error}" if row.error else ""
        rule = f"candidate {row.candidate} is {row.status}{why}; only what was measured to the end is exported"
        raise UsageError(Problem(rule, "--candidate", file, remedy="name a candidate whose status is ok"))
    return row


# --- the folder ------------------------------------------------------------------------------------------------------


def _write(facts: Facts, made: Made, shop: Workshop, wishes: Wishes) -> Verified:
    """Write the folder under another name, test it, describe it, and rename it. Returns the result of the test. Raises OSError,
    StageError.
    """
    task, to, candidate = made.hand.task, wishes.to, facts.candidate
    about = about_model(candidate, str(facts.sweep["model"]), task) | {"name": facts.name}
    provider = PROVIDERS.get(task.provider)
    aside = fill(aside_of(to), made.parts, about, _session(facts, candidate), provider)
    try:
        (aside / LOAD).unlink(missing_ok=True)  # run.py does that, and fills the prompt
        texts = {"run.py": run_script(facts, task), "reproduce.yaml": reproduction(facts)}
        if "onnx" in made.parts:
            texts["onnx/inference_model.json"] = foundry(facts.name, _template(task, aside / "onnx", shop))
        write_texts(aside, texts)
        verified = _verified(facts, made, shop, aside, wishes.items)
        write_texts(aside, {"README.md": card(facts, verified, parts_of(aside, _PARTS) | {SUMS: _PARTS[SUMS]})})
        write_sums(aside)
        put_in_place(aside, to)
    finally:
        shutil.rmtree(aside_of(to), ignore_errors=True)
    return verified


def _session(facts: Facts, candidate: Candidate) -> Session:
    """Return the candidate's session, with the target's settings where its own leaves them open."""
    return (candidate.session or Session()).over(_target(facts.target).session)


def _target(plain: Mapping[str, Any]) -> Target:
    """Return a target of a resolved sweep, without keys that only later versions know."""
    return Target.model_validate({name: value for name, value in plain.items() if name in Target.model_fields})


def _template(task: Task, folder: Path, shop: Workshop) -> str:
    """Return the prompt template for Foundry Local."""
    asked = conversation(task)
    if isinstance(asked, str):
        return asked
    try:
        found = shop.alone(
            PromptJob(messages=tuple(asked), provider=task.provider, device_index=task.device, model_dir=folder)
        )
    except StageError as error:
        found = {"why_not": str(error)}
    if "prompt" in found:
        return str(found["prompt"])
    say(f"inference_model.json has no prompt template of the model: {found['why_not']}")
    return "{Content}"


def _verified(facts: Facts, made: Made, shop: Workshop, folder: Path, items: int | None) -> Verified:
    """Test the model in the folder with ONNX Runtime GenAI alone, in a fresh process, on prompts as text."""
    if "onnx" not in made.parts:
        return Verified(why_not="it is an adapter, which ONNX Runtime GenAI does not run")
    if items == 0:
        return Verified(why_not="--items 0")
    if is_task(facts.metric):
        return Verified(why_not="the items of a task of lm-evaluation-harness have no text here")
    again = made.anew.get("validation")
    outcomes = again.outcomes if again is not None else read_outcomes(facts.folder, facts.candidate.id, "validation")
    if made.hand.items is None or outcomes is None:
        return Verified(why_not=made.hand.why_not or "the outcomes of its items are not in the results folder")
    job = verify_job(made.hand.task, made.hand.items, outcomes, folder / "onnx", items)
    if job is None or not job.items:
        return Verified(why_not="no recorded item is among the items at hand")
    say("trying the folder from text ...")
    try:
        found = shop.alone(job)
    except StageError as error:
        if error.status in ("lost", "timeout", "unsupported"):
            return Verified(why_not=str(error))
        return Verified(1, (str(error),))
    wrong = tuple(re.sub(r"\s+", " ", str(one)) for one in found["wrong"])
    if not found["items"] and not wrong:
        return Verified(why_not="every prompt was cut for the score")
    return Verified(int(found["items"]), wrong)


def _archive(to: Path) -> Path:
    return to.with_name(to.name + ".zip")


def _zip(to: Path) -> Path:
    """Write the folder as an uncompressed zip file beside it, because weights do not compress. Raises OSError."""
    archive = _archive(to)
    aside = archive.with_name(f".{archive.name}.new")
    with zipfile.ZipFile(aside, "w", zipfile.ZIP_STORED) as stream:
        for path in sorted(to.rglob("*")):
            if path.is_file():
                stream.write(path, f"{to.name}/{path.relative_to(to).as_posix()}")
    aside.replace(archive)
    return archive


def _push(shop: Workshop, wishes: Wishes, facts: Facts) -> str:
    """Upload the folder to the hub. Returns its URL. Raises StageError."""
    assert wishes.push is not None
    say(f"uploading to {wishes.push} ...")
    message = f"{facts.name}, exported by autotune"
    job = PushJob(repository=wishes.push, private=not wishes.public, message=message, folder=wishes.to)
    return str(shop.alone(job)["url"])


def _text(document: Mapping[str, Any], facts: Facts, verified: Verified) -> str:
    lines = [
        f"{document['folder']}: {facts.candidate.id}  {settings(facts.row.settings) or 'the untouched model'}, {document['size_mb']:.4g} MB"
    ]
    for score in facts.scores():
        ends = f" [{score.interval.low:.3f}, {score.interval.high:.3f}]" if score.interval else ""
        again = ", scored anew" if score.split in facts.anew else ""
        better = "higher" if METRICS[score.metric].direction == "maximize" else "lower"
        lines.append(
            f"  {score.metric} on {score.split} {score.value:.3f}{ends} of {score.items} items ({better} is better{again})"
        )
    if verified.why_not:
        lines.append(f"  not tried: {verified.why_not}")
    elif verified.wrong:
        lines.append(
            f"  NOT VERIFIED: loaded by onnxruntime-genai alone it does not answer as recorded: {'; '.join(verified.wrong[:3])}"
        )
        if document["url"] is None:
            lines.append("  the folder is kept so that you can look at it")
    else:
        lines.append(
            f"  verified: loaded by onnxruntime-genai alone from the text of prompts, it answers {verified.items} items as recorded"
        )
    lines += [f"  {what}: {document[what]}" for what in ("zip", "url") if document[what]]
    return "\n".join(lines)
