"""What this machine can run: a provider counts as there when a tiny model loads and runs on it, not by what is said."""

from __future__ import annotations

from typing import Any

from autotune.artifacts.store import Cache, default_root
from autotune.candidate import Recipe
from autotune.errors import StageError
from autotune.execution.executor import Stages
from autotune.execution.local import LocalEngine
from autotune.machine import describe, free_disk_mb, free_memory_mb, machine_digest
from autotune.providers import PROVIDERS
from autotune.stages.jobs import ORT_WHEELS, BuildJob, TimeJob, TinyJob, installed

_CORE_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-silicon")


def examine() -> dict[str, Any]:
    """Return hardware, versions, wheel conflicts, space, and for each provider whether a tiny model ran on it."""
    cache = Cache(default_root())
    problems = []
    for family, names in (("onnxruntime-genai", ORT_WHEELS), ("onnxruntime", _CORE_WHEELS)):
        there = [name for name in names if installed(name)]
        if len(there) > 1:
            problems.append(f"{' and '.join(there)} overwrite one another: uninstall all, then install one extra")
        elif not there and family == "onnxruntime-genai":
            problems.append("onnxruntime-genai is not installed: pip install 'autotune[cpu]' -c constraints.txt")
    missing = [
        name for name in ("torch", "transformers", "peft", "bitsandbytes", "onnx", "onnx-ir") if not installed(name)
    ]
    if missing:
        problems.append(f"not installed: {', '.join(missing)} (they come with the extras cpu, cuda and directml)")
    providers: dict[str, Any] = {}
    if not problems:
        with LocalEngine() as engine:
            log = default_root() / "logs" / "doctor.log"
            stages = Stages(cache, engine, lambda: log)
            for name in PROVIDERS:
                providers[name] = _probe(stages, name)
    found = {
        **describe(),
        "free_disk_mb": round(free_disk_mb(cache.root)),
        "free_memory_mb": round(free_memory_mb()),
        "cache": str(cache.root),
        "providers": providers,
        "problems": problems,
    }
    found["ready"] = not problems and any(p["runs"] for p in providers.values())
    return found


def _probe(stages: Stages, name: str) -> dict[str, Any]:
    """Build a tiny model for a provider and run it there, in a fresh process."""
    provider = PROVIDERS[name]
    result: dict[str, Any] = {"runs": False, "precisions": list(provider.precisions), "extra": provider.extra}
    try:
        source = stages(TinyJob())
        precision = provider.precisions[-1]
        quantized = precision in ("int4", "int8")
        settings = {
            "algorithm": "default",
            "block_size": 32,
            "accuracy_level": provider.accuracy_level,
            "symmetric": True,
        }
        recipe = Recipe.model_validate({"precision": precision} | (settings if quantized else {}))
        build = stages(BuildJob(source=TinyJob().key, recipe=recipe, provider=name, source_dir=source.path))
        job = TimeJob(
            graph=build.result["signature"], provider=name, prompt_tokens=8, new_tokens=4, machine=machine_digest(),
            processes=1, model_dir=build.path,
        )  # fmt: skip
        stages.engine.run_fresh(job, stages.log(), timeout=120)
        result["runs"] = True
    except StageError as error:
        result["why"] = str(error)[:200]
    return result


def as_text(found: dict[str, Any]) -> str:
    """Return the findings for people."""
    machine = found["hardware"]
    lines = [
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}, Python {found['python']}",
        f"memory: {machine['memory_mb']} MB ({found['free_memory_mb']} MB free)",
        f"cache: {found['cache']} ({found['free_disk_mb']} MB free)",
        "packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()),
    ]
    for name, probe in found["providers"].items():
        state = "runs" if probe["runs"] else f"does not run: {probe.get('why', '')}"
        lines.append(f"provider {name}: {state}")
        if probe["runs"]:
            lines[-1] += f" ({', '.join(probe['precisions'])})"
    lines += [f"problem: {problem}" for problem in found["problems"]]
    lines.append("ready" if found["ready"] else "not ready: see the problems above")
    return "\n".join(lines)
