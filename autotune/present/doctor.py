"""The `doctor` command: tests what this machine can run. A provider counts only if a tiny model runs on it and computes what
PyTorch computes."""

from __future__ import annotations

import textwrap
from typing import Any

from autotune.artifacts.place import check_place
from autotune.artifacts.store import Cache, default_root, too_deep
from autotune.candidate import Recipe
from autotune.distribution import pip_install
from autotune.errors import AutotuneError, MachineError, StageError
from autotune.machine import describe, free_disk_mb, free_memory_mb, machine_digest
from autotune.pipeline.capability import ASK_S, Answers, ask_device
from autotune.pipeline.devices import DoJob, offered_devices, plugin_problem
from autotune.present.device import asking
from autotune.providers import PROVIDERS, Provider, installed
from autotune.stages.jobs import BuildJob, TimeJob
from autotune.stages.preparation_jobs import TinyJob
from autotune.stages.protocol import ORT_WHEELS
from autotune.sweepfile.schema import Target

_CORE_WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-silicon")
WIDTH = 80
"""The width of the text, in columns of a terminal."""
TOKENS = 64
"""The length of the longest text on which a device is compared with PyTorch."""


def examine() -> dict[str, Any]:
    """Return hardware, versions, wheel conflicts, free space, and for each provider the result of a tiny model on it."""
    cache = Cache(default_root())
    problems = []
    for family, names in (("onnxruntime-genai", ORT_WHEELS), ("onnxruntime", _CORE_WHEELS)):
        there = [name for name in names if installed(name)]
        if len(there) > 1:
            problems.append(f"{' and '.join(there)} overwrite one another: uninstall all, then install one extra")
        elif not there and family == "onnxruntime-genai":
            problems.append(f"onnxruntime-genai is not installed: {pip_install('cpu')}")
    missing = [
        name for name in ("torch", "transformers", "peft", "bitsandbytes", "onnx", "onnx-ir") if not installed(name)
    ]
    if missing:
        problems.append(f"not installed: {', '.join(missing)} (they come with the extras cpu, cuda and directml)")
    if deep := too_deep(cache.root):
        problems.append(deep)
    try:
        check_place(cache.root)
    except MachineError as error:
        problems.append(str(error))
    providers: dict[str, Any] = {}
    if not problems:
        with asking("doctor") as do:
            for provider in PROVIDERS.values():
                providers[provider.name] = _examined(provider, do)
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


def _examined(provider: Provider, do: DoJob) -> dict[str, Any]:
    """Return a provider's devices, and the result of every precision on the first one."""
    result: dict[str, Any] = {
        "runs": False, "precisions": [], "does_not_run": {}, "devices": [], "extra": provider.extra,
        "install": provider.remedy,
    }  # fmt: skip
    offered = offered_devices(provider, None, do)
    result["devices"] = offered.names
    if offered.trouble:
        absent = bool(plugin_problem(provider)) or provider.runtime_name in offered.trouble
        return result | {"why": offered.trouble, "installed": not absent}
    try:
        answers = ask_device(Target(provider=provider.name), offered.hardware, (), TinyJob(), TOKENS, do, every=True)
    except (StageError, AutotuneError) as error:
        return result | {"why": str(error), "installed": True}
    running = [recipe for recipe in answers.results if answers.runs(recipe)]
    if running and (why := _does_not_generate(provider, running[-1], do)):
        return result | {"why": why, "installed": True}
    result["runs"] = bool(running)
    result["precisions"] = [_spelled(recipe, provider) for recipe in running]
    result["does_not_run"] = _refused(answers, provider)
    return result | {"installed": True}


def _does_not_generate(provider: Provider, recipe: Recipe, do: DoJob) -> str:
    """Return why ONNX Runtime GenAI generates no text on a device, in a process that holds nothing else; empty if it does."""
    try:
        source = do(TinyJob())
        build = do(BuildJob(source=TinyJob().key, recipe=recipe, provider=provider.builds_as, source_dir=source.path))
        job = TimeJob(
            graph=build.result["signature"], provider=provider.name, prompt_tokens=8, new_tokens=4,
            machine=machine_digest(), processes=1, model_dir=build.path,
        )  # fmt: skip
        do(job, ASK_S, anew=True)
    except StageError as error:
        return str(error)
    return ""


def _spelled(recipe: Recipe, provider: Provider) -> str:
    wide = bool(provider.io_option and getattr(recipe, provider.io_option))
    return recipe.precision + f" ({provider.io_option})" * wide


def _refused(answers: Answers, provider: Provider) -> dict[str, str]:
    return {
        _spelled(recipe, provider): answers.why(recipe).removeprefix(f"on {answers.device}: ")
        for recipe in answers.results
        if not answers.runs(recipe)
    }


def _wrapped(text: str, indent: str = "") -> list[str]:
    """Return a line as lines of a terminal. A command at its end stays whole, however long, so that it can be copied."""
    before, command, after = text.partition("pip install ")
    if command and len(indent + text) > WIDTH:
        return [*_wrapped(before.rstrip(), indent), f"{indent}  {command}{after}"]
    return textwrap.wrap(
        text, WIDTH, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    ) or [indent]  # fmt: skip


def as_text(found: dict[str, Any]) -> str:
    """Return the findings for people, in lines of a terminal."""
    machine = found["hardware"]
    part = f" ({machine['usable']} of {machine['threads']} logical processors usable)" if "usable" in machine else ""
    lines = _wrapped(
        f"{machine['processor']}, {machine['cores']} cores{part}, {machine['system']}, Python {found['python']}"
    )
    lines += _wrapped(f"memory: {machine['memory_mb']} MB ({found['free_memory_mb']} MB free)")
    lines += _wrapped(f"cache: {found['cache']} ({found['free_disk_mb']} MB free)")
    lines += _wrapped("packages: " + ", ".join(f"{name} {version}" for name, version in found["packages"].items()))
    absent: list[str] = []
    for name, probe in found["providers"].items():
        if not probe["runs"] and not probe.get("installed", True):
            absent.append(f"{name}: {probe['install']}")
            continue
        state = f"runs ({', '.join(probe['precisions'])})" if probe["runs"] else "does not run"
        lines += _wrapped(f"provider {name}: {state}")
        for index, device in enumerate(probe["devices"]):
            if name != "cpu":
                lines += _wrapped(f"device {index}: {device}", "  ")
        if probe.get("why"):
            lines += _wrapped(str(probe["why"]).removeprefix(f"provider {name}: "), "  ")
        for precision, why in probe["does_not_run"].items():
            lines += _wrapped(f"not {precision}: {why}", "  ")
    if absent:
        lines.append("providers that are not installed here:")
        lines += [line for one in absent for line in _wrapped(one, "  ")]
    lines += [line for problem in found["problems"] for line in _wrapped(f"problem: {problem}")]
    lines.append("ready" if found["ready"] else "not ready: see the problems above")
    return "\n".join(lines)
