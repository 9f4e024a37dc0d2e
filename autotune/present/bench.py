"""Time one built model in fresh processes, as a sweep does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.engine.local import LocalEngine, narrow
from autotune.errors import MachineError, Problem, StageError, UsageError, did_you_mean
from autotune.machine import hardware, machine_digest
from autotune.metrics import PRECISION
from autotune.paths import is_file, size_mb
from autotune.present.tables import number
from autotune.providers import PROVIDERS
from autotune.search.latency import latency_cells
from autotune.stages.jobs import TimeJob
from autotune.store.cache import default_root
from autotune.store.results import rounded


def bench(
    folder: Path, provider: str, threads: int | None, workload: tuple[int, int, int], processes: int
) -> dict[str, Any]:
    """Return the card of a built model: latency columns, size, machine. Raises UsageError, MachineError."""
    problems = []
    if not is_file(folder / "genai_config.json"):
        remedy = "name a folder that the model builder wrote, such as results/<sweep>/best/onnx"
        problems.append(Problem("is no built model: it has no genai_config.json", file=str(folder), remedy=remedy))
    if provider not in PROVIDERS:
        remedy = did_you_mean(provider, list(PROVIDERS))
        problems.append(Problem("no such execution provider", "--provider", value=provider, remedy=remedy))
    prompt_tokens, new_tokens, batch = workload
    bounds = {"--prompt-tokens": (prompt_tokens, 1, 100_000), "--new-tokens": (new_tokens, 2, 100_000),
              "--batch": (batch, 1, 1024), "--processes": (processes, 1, 1000),
              "--threads": (threads if threads is not None else 1, 1, 1024)}  # fmt: skip
    problems += [
        Problem(f"must be at least {low}" if value < low else f"must be at most {high}", key, value=value)
        for key, (value, low, high) in bounds.items()
        if not low <= value <= high
    ]
    if problems:
        raise UsageError(problems)
    job = TimeJob(
        graph="", provider=provider, threads=threads, prompt_tokens=prompt_tokens, new_tokens=new_tokens, batch=batch,
        machine=machine_digest(), processes=processes, most=max(processes, 12), model_dir=folder.resolve(),
    )  # fmt: skip
    log = default_root() / "logs" / "bench.log"
    with LocalEngine() as engine:
        try:
            samples = [result for (result,) in engine.time(job, log)[0]]
        except StageError as error:
            raise MachineError(f"{error}; the log is {log}") from None
    size = size_mb(folder)
    return {
        "model": str(folder),
        "provider": provider,
        "threads": threads,
        "workload": {"prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "batch": batch},
        "processes": len(samples),
        **{k: v for k, v in rounded(dict(latency_cells(samples, batch))).items() if v is not None},
        "resolved": narrow([[sample] for sample in samples], PRECISION),
        "size_mb": round(size, 3),
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
            interval += f"; not resolved to {PRECISION:.0%}: this machine is busy, or its pace changes"
    threads = card["threads"] or "as ONNX Runtime chooses"
    lines = [
        f"{card['model']} on {card['provider']} ({machine['processor']}, {machine['cores']} cores; threads: {threads})",
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
    return "\n".join(lines)
