"""An estimate: the expected seconds of many jobs by stage, with the number of jobs, the uncertainty and the evidence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from autotune.costs.model import EVIDENCE, MACHINE, SIZE, Z80, Expected

ALONE = ("time", "turns", "verify", "own")
"""Stages that have the machine to themselves, and the tuner's own work; all other stages share the workers."""

ANOTHER_DAY = 0.2
"""The share by which a machine is faster or slower on another day, because its load differs (one standard deviation). Chosen
from sweeps on a busy machine (`benchmarks.plan_accuracy`)."""


@dataclass(frozen=True)
class Line:
    """One stage of an estimate."""

    times: float = 0.0
    units: float = 0.0
    seconds: float = 0.0
    doubt_s: float = 0.0
    """The error of the expectation itself, seconds (one standard deviation). All jobs of a stage share it."""
    noise: float = 0.0
    """The variance of single jobs around their expectation, squared seconds."""
    by_evidence: Counter[str] = field(default_factory=Counter)
    """Seconds by the evidence for them."""
    jobs: Mapping[str, int] = field(default_factory=dict)
    """By evidence, the largest number of measured jobs behind one expectation."""

    @property
    def measured(self) -> int:
        """The number of measured jobs behind the evidence."""
        return self.jobs.get(self.evidence, 0)

    @property
    def evidence(self) -> str:
        """The evidence for most of the seconds; where two kinds are equal, the weaker one."""
        return max(EVIDENCE, key=lambda name: self.by_evidence[name])

    def plus(self, other: Line) -> Line:
        """Return the sum of both."""
        return Line(
            self.times + other.times, self.units + other.units, self.seconds + other.seconds,
            self.doubt_s + other.doubt_s, self.noise + other.noise, self.by_evidence + other.by_evidence,
            {name: max(self.jobs.get(name, 0), other.jobs.get(name, 0)) for name in {*self.jobs, *other.jobs}},
        )  # fmt: skip

    def scaled(self, factor: float) -> Line:
        """Return this line times a factor."""
        shares = Counter({name: seconds * factor for name, seconds in self.by_evidence.items()})
        return replace(
            self, times=self.times * factor, units=self.units * factor, seconds=self.seconds * factor,
            doubt_s=self.doubt_s * factor, noise=self.noise * factor, by_evidence=shares,
        )  # fmt: skip


class Estimate:
    """The lines of a sweep, or of a part of it."""

    def __init__(self, lines: Iterable[tuple[str, Line]] = ()) -> None:
        self.lines: dict[str, Line] = dict(lines)

    def add(self, stage: str, expected: Expected, units: float = 1.0, times: float = 1.0) -> None:
        """Add jobs of a stage; `units`: the units of work in one; `times`: how many such jobs."""
        seconds = expected.seconds * times
        line = Line(
            times, units * times, seconds, expected.doubt * seconds,
            max(0.0, expected.sd**2 - expected.doubt**2) * expected.seconds * seconds,
            Counter({expected.evidence: seconds}), {expected.evidence: expected.measured},
        )  # fmt: skip
        self.lines[stage] = self.lines.get(stage, Line()).plus(line)

    def plus(self, other: Estimate) -> Estimate:
        """Return the sum of both."""
        lines = dict(self.lines)
        for stage, line in other.lines.items():
            lines[stage] = lines.get(stage, Line()).plus(line)
        return Estimate(lines.items())

    def scaled(self, factor: float) -> Estimate:
        """Return this estimate times a factor."""
        return Estimate((stage, line.scaled(factor)) for stage, line in self.lines.items())

    @property
    def seconds(self) -> float:
        """Seconds inside stages, summed over all workers."""
        return sum(line.seconds for line in self.lines.values())

    def wall_s(self, width: int = 1) -> float:
        """Return the wall-clock, seconds, with `width` workers that are always busy, except during timings."""
        alone = sum(line.seconds for stage, line in self.lines.items() if stage in ALONE)
        return alone + (self.seconds - alone) / width

    def interval(self, seconds: float) -> tuple[float, float]:
        """Return the 80 % interval of the wall-clock, where `seconds` is the wall-clock of this estimate."""
        # Stages without a measurement of this model err together, as the machine is faster or slower; the errors of measured
        # stages are independent. A sum of lognormals is approximated by a lognormal.
        lines = self.lines.values()
        together = sum(line.doubt_s for line in lines if line.evidence in (SIZE, MACHINE))
        apart = [line.doubt_s for line in lines if line.evidence not in (SIZE, MACHINE)]
        noise = math.sqrt(sum(line.noise for line in lines))
        relative = math.hypot(together, noise, *apart) / max(self.seconds, 1e-9)
        relative = math.hypot(relative, ANOTHER_DAY)
        sd = math.sqrt(math.log1p(relative**2))
        return seconds * math.exp(-Z80 * sd), seconds * math.exp(Z80 * sd)
