"""A device that hangs when it is asked: it costs some minutes and one message, not an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.artifacts.store import Stored
from autotune.candidate import Recipe
from autotune.errors import MachineError, StageError
from autotune.pipeline.capability import HANGS, Answers, ask_device
from autotune.stages.preparation_jobs import CapabilityJob, TinyJob
from autotune.stages.protocol import Job
from autotune.sweepfile.schema import Target


class Device:
    """Answers by precision: `runs`, or a status of StageError."""

    def __init__(self, **answers: str) -> None:
        self.answers, self.asked = answers, list[str]()

    def __call__(self, job: Job, timeout: float | None = None, anew: bool = False) -> Stored:
        if isinstance(job, CapabilityJob):
            precision = job.recipe.precision
            self.asked.append(precision)
            said = self.answers.get(precision, "runs")
            if said != "runs":
                raise StageError(said, f"capability: {precision} {said}")  # type: ignore[arg-type]
        return Stored(Path(), {"runs": True, "token_ms": 1.0, "provider_share": 1.0}, 0.0, cached=False)


def ask(device: Device) -> Answers:
    recipes = [Recipe(precision="int4", algorithm="default", block_size=32)]
    return ask_device(Target(provider="webgpu"), "a GPU", recipes, TinyJob(), 32, device, every=True)


def test_a_device_on_which_everything_hangs_is_given_up_soon() -> None:
    device = Device(fp32="timeout", fp16="timeout", int8="timeout", int4="timeout")
    with pytest.raises(
        MachineError, match=r"provider webgpu hangs when it computes on a GPU: .*timeout; update its driver"
    ):
        ask(device)
    assert len(device.asked) == HANGS


def test_a_precision_that_hangs_on_a_device_that_runs_others_is_left_out() -> None:
    device = Device(fp16="timeout", int8="timeout")
    answers = ask(device)
    assert {recipe.precision for recipe in answers.results if answers.runs(recipe)} == {"fp32", "int4"}
    device = Device(fp32="timeout", fp16="unsupported")
    answers = ask(device)
    assert {recipe.precision for recipe in answers.results if answers.runs(recipe)} == {"int8", "int4"}


def test_a_device_that_goes_is_the_machines_trouble_at_once() -> None:
    device = Device(fp32="lost")
    with pytest.raises(MachineError, match="fp32 lost"):
        ask(device)
    assert device.asked == ["fp32"]
