"""The `bench` command: times one built model in fresh processes, as a sweep does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.analysis.latency import latency_cells
from autotune.analysis.stopping import stretch
from autotune.artifacts.place import check_place
from autotune.artifacts.store import default_root
from autotune.candidate import Session
from autotune.errors import MachineError, Problem, StageError, UsageError
from autotune.execution.local import LocalEngine, narrow
from autotune.machine import hardware, machine_digest
from autotune.metrics import PRECISION
from autotune.paths import is_file, size_mb
from autotune.present.tables import number
from autotune.providers import PROVIDERS
from autotune.results.trials import rounded
from autotune.space.sessions import check_served, spell_options
from autotune.stages.jobs import TimeJob
from autotune.stages.protocol import Result
from autotune.sweepfile.resolve import no_such_provider

_BELOW = ("onnx", "best/onnx")
"""Where a built model is in a model folder, and in a results folder."""


def session_of(
    provider: str, threads: int | None, arena: bool | None, options: Sequence[str], problems: list[Problem]
) -> Session:
    """Return the session of the command line's options; `options` are KEY=VALUE. Mistakes go to `problems`."""
    pairs: dict[str, str] = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals or name in pairs:
            rule = "takes one KEY=VALUE for each option"
            problems.append(Problem(rule, "--provider-option", value=text, remedy="e.g. gpu_mem_limit=4000000000"))
        pairs[name] = value
    found = PROVIDERS.get(provider)
    spelled, rule = spell_options(pairs)
    if pairs and found is not None and check_served("provider_options", found, "--provider-option", problems) and rule:
        problems.append(Problem(rule, "--provider-option", remedy="e.g. gpu_mem_limit=4000000000"))
    return Session(threads=threads, arena=arena, provider_options=spelled or None)


def bench(
    folder: Path,
    provider: str,
    threads: int | None,
    workload: tuple[int, int, int],
    processes: int,
    arena: bool | None = None,
    options: Sequence[str] = (),
    device: int | None = None,
) -> dict[str, Any]:
    """Return the measurements of a built model: latency columns, size, machine. Raises UsageError, MachineError.

    The model's own settings decide where threads, arena or options are not given.
    """
    job = _timing(folder, provider, threads, workload, processes, arena, options, device)
    check_place(default_root())
    log = default_root() / "logs" / "bench.log"
    with LocalEngine() as engine:
        try:
            samples = engine.time(job, log)[0]
        except StageError as error:
            raise MachineError(f"{error}; the log is {log}") from None
    return _card(folder, job, samples)


def _timing(
    folder: Path,
    provider: str,
    threads: int | None,
    workload: tuple[int, int, int],
    processes: int,
    arena: bool | None,
    options: Sequence[str],
    device: int | None,
) -> TimeJob:
    """Return the timing that the command line asks for. Raises UsageError with every mistake in it."""
    problems: list[Problem] = []
    session = session_of(provider, threads, arena, options, problems)
    if not is_file(folder / "genai_config.json"):
        below = next((one for one in _BELOW if is_file(folder / one / "genai_config.json")), None)
        remedy = "name a folder that the model builder wrote, such as results/<sweep>/best/onnx"
        remedy = remedy if below is None else f"name the folder in it: {folder / below}"
        problems.append(Problem("is no built model: it has no genai_config.json", file=str(folder), remedy=remedy))
    if provider not in PROVIDERS:
        problems.append(no_such_provider(provider, "--provider"))
    prompt_tokens, new_tokens, batch = workload
    bounds = {"--prompt-tokens": (prompt_tokens, 1, 100_000), "--new-tokens": (new_tokens, 2, 100_000),
              "--batch": (batch, 1, 1024), "--processes": (processes, 1, 1000),
              "--device": (device or 0, 0, 1023), "--threads": (threads if threads is not None else 1, 1, 1024)}  # fmt: skip
    problems += [
        Problem(f"must be at least {low}" if value < low else f"must be at most {high}", key, value=value)
        for key, (value, low, high) in bounds.items()
        if not low <= value <= high
    ]
    if problems:
        raise UsageError(problems)
    return TimeJob(
        graph="", provider=provider, **session.model_dump(), prompt_tokens=prompt_tokens, new_tokens=new_tokens,
        batch=batch, machine=machine_digest(), device_index=device, processes=processes, most=max(processes, 12), model_dir=folder.resolve(),
    )  # fmt: skip


def _card(folder: Path, job: TimeJob, samples: Sequence[Result]) -> dict[str, Any]:
    """Return what is shown of a timing; `samples`: what each process measured."""
    several = job.processes > 1
    latency = rounded(dict(latency_cells(samples, job.batch, job.processes if several else None, job.most)))
    return {
        "model": str(folder),
        "provider": job.provider,
        "device": job.device_index,
        "threads": job.threads,
        "arena": job.arena,
        "provider_options": job.session.options,
        "workload": {"prompt_tokens": job.prompt_tokens, "new_tokens": job.new_tokens, "batch": job.batch},
        "processes": len(samples),
        **{name: value for name, value in latency.items() if value is not None},
        "resolved": narrow(
            [[sample] for sample in samples], PRECISION, stretch(job.processes, job.most) if several else 1.0
        ),
        "size_mb": round(size_mb(folder), 3),
        "machine": hardware(),
    }


def as_text(card: dict[str, Any]) -> str:
    """Return the card for people."""
    work, machine = card["workload"], card["machine"]
    interval = ""
    if "itl_ms_p50_low" in card:
        interval = (
            f" [{number(card['itl_ms_p50_low'])}, {number(card['itl_ms_p50_high'])}] over {card['processes']} processes"
        )
        if not card["resolved"]:
            interval += f"; the interval is wider than {PRECISION:.0%}: this machine is busy, or its speed varies"
    served = [f"threads: {card['threads'] or 'as ONNX Runtime chooses'}"]
    served += [f"arena: {'on' if card['arena'] else 'off'}"] if card["arena"] is not None else []
    served += [f"{name}={value}" for name, value in card["provider_options"].items()]
    lines = [
        f"{card['model']} on {card['provider']} ({machine['processor']}, {machine['cores']} cores; {', '.join(served)})",
        f"prompt {work['prompt_tokens']} tokens, {work['new_tokens']} new, batch {work['batch']}",
        f"between tokens   p50 {number(card['itl_ms_p50'])} ms{interval}",
    ]
    if "itl_ms_p90" in card:
        lines.append(f"                 p90 {number(card['itl_ms_p90'])} ms")
    lines += [
        f"to first token   p50 {number(card['ttft_ms_p50'])} ms",
        f"decode           {number(card['decode_tps'])} tokens/s",
        f"size             {number(card['size_mb'])} MB on disk, peak memory {number(card['peak_memory_mb'])} MB, "
        f"loaded in {number(card['load_s'])} s",
    ]
    if "gpu_memory_mb" in card:
        lines.append(f"GPU memory       {number(card['gpu_memory_mb'])} MB at most")
    return "\n".join(lines)
