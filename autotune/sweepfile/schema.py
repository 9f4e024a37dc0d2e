"""The sweep: the file as written, and the sweep as resolved with every default filled in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from autotune.analysis.limits import Aims, Limit
from autotune.candidate import Recipe, Session
from autotune.data.schema import DataSpec
from autotune.metrics import (
    PRECISION,
    Direction,
    score_column,
)
from autotune.paths import NOT_PORTABLE, is_portable
from autotune.providers import NVIDIA, PROVIDERS, Provider
from autotune.space.adapters import resolve_lora
from autotune.space.domains import Choice, Range
from autotune.space.parameter_tables import LORA, PRESETS
from autotune.space.sessions import spell_options
from autotune.space.space import Space
from autotune.sweepfile.submit import Submit
from autotune.sweepfile.trackers import plain_report_to

STRATEGIES = ("frontier", "tpe", "nsga2", "gp", "random", "grid")


MIN_SHARE = 0.9
"""The least share of the nodes with weights and of attention that the provider must run: below it, a timing is the CPU's."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Train(_Part):
    """The settings of fine-tuning that the space does not set."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch_size: int = Field(8, ge=1, le=4096)
    max_length: int = Field(256, ge=8, le=1_000_000)
    loss_on: Literal["completion", "text"] = Field(
        "completion", description="what the training loss is the mean of: the completion's tokens, or the whole text's"
    )
    time_limit_s: float = Field(1800, gt=0)


class Workload(_Part):
    """The work of a timing: tokens of the prompt, new tokens, sequences at once. `data`: lengths are drawn from the data."""

    prompt_tokens: Literal["data"] | Annotated[int, Field(ge=1, le=100_000)] = 32
    new_tokens: Literal["data"] | Annotated[int, Field(ge=2, le=100_000)] = 16
    batch: int = Field(1, ge=1, le=1024)

    @property
    def drawn(self) -> bool:
        """Whether a length comes from the data."""
        return "data" in (self.prompt_tokens, self.new_tokens)


class Timing(_Part):
    """The length of a timing: the least and the most fresh processes, and the half-width of its interval (a share) at which it
    may stop. `repeats`: how often one run of the command may repeat a timing that other work disturbed, or whose interval
    stayed wide.
    """

    processes: int = Field(5, ge=2, le=1000)
    most: int = Field(12, ge=2, le=1000)
    precision: float = Field(PRECISION, gt=0, lt=1)
    repeats: int = Field(2, ge=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Timing:
        if self.most < self.processes:
            raise ValueError(f"most must be at least processes, {self.processes}, got {self.most}")
        return self


class Target(_Part):
    """Where and how the model is deployed, and the work for which its latency is measured."""

    provider: str = "cpu"
    device: int | None = Field(
        None,
        ge=0,
        le=1023,
        description="which of the provider's devices, as `autotune doctor` counts them; default: the first",
    )
    label: str | None = Field(
        None, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$", description="of engine ray: the resource that nodes have on which the model is "
        "deployed; default: any node",
    )  # fmt: skip
    threads: int | None = Field(None, ge=1, le=1024)
    arena: bool | None = None
    mem_pattern: bool | None = None
    provider_options: dict[str, Any] | None = None
    workload: Workload = Workload()
    workloads: dict[str, Workload] | None = None
    timing: Timing = Timing()
    min_share: float | None = Field(
        None, ge=0, le=1, description="the share of the nodes with weights and of attention that the provider must run itself, "
        "for a row to count; default: 0.9",
    )  # fmt: skip

    @property
    def share(self) -> float:
        """The share of the nodes with weights and of attention that the provider must run itself."""
        return MIN_SHARE if self.min_share is None else self.min_share

    @property
    def session(self) -> Session:
        """The session of a build that the space does not set."""
        options = spell_options(self.provider_options or {})[0] or None
        return Session(
            threads=self.threads, arena=self.arena, mem_pattern=self.mem_pattern, provider_options=options
        )  # fmt: skip

    @property
    def timed(self) -> dict[str, Workload]:
        """The workloads, by the suffix of their columns: empty for the first, `@name` for the others."""
        named = self.workloads or {"": self.workload}
        return {f"@{name}" if place else "": workload for place, (name, workload) in enumerate(named.items())}


class NamedTarget(Target):
    """One of several targets, with limits of its own beside the sweep's."""

    limits: list[str] = []


class Workers(_Part):
    """How many stages run at once, and the memory and time that each may take."""

    train: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="trainings at once; auto: one a GPU, or as many as there are workers on the processor"
    )
    cpu: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="workers on the processor; auto: one for every four cores, four at most"
    )
    memory_mb: float | None = Field(None, gt=0, description="memory of one worker, 10^6 bytes")
    time_limit_s: dict[
        Literal["devices", "capability", "finetune", "merge", "build", "check", "score", "time"],
        Annotated[float, Field(gt=0)],
    ] = Field({}, description="seconds of a stage before it counts as hung; default: learned from what it took before")


class Budget(_Part):
    """When to stop: after so many candidates that were measured or failed, or hours of wall-clock, whichever is first; both are
    counted over resumes. Candidates that a strategy stops early count in hours only."""

    trials: int | None = Field(None, ge=1, le=1_000_000_000)
    hours: float | None = Field(None, gt=0)


class Document(_Part):
    """The sweep file as written, before the space is multiplied out."""

    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$|^$")
    model: str = Field(min_length=1)
    data: DataSpec
    train: Train = Train()
    target: Target = Target()
    targets: dict[str, NamedTarget] | None = None
    workers: Workers = Workers()
    space: dict[str, Any]
    objectives: dict[str, Literal["maximize", "minimize"]] | None = None
    limits: list[str] = []
    strategy: str = STRATEGIES[0]
    earlier_sweeps: bool = Field(
        True, description="whether sweeps of the same model in folders beside this one's say where frontier begins"
    )
    engine: Literal["local", "ray"] = Field("local", description="who does the jobs: this machine, or a cluster of Ray")
    budget: Budget = Budget(trials=20)
    seed: int = Field(0, ge=0, lt=2**31)
    trust_remote_code: bool = False
    report_to: list[Any] = Field([], description="experiment trackers: mlflow, tensorboard, trackio, wandb")
    submit: Submit | None = None

    @field_validator("name")
    @classmethod
    def _portable(cls, name: str) -> str:
        if not is_portable(name):
            raise ValueError(NOT_PORTABLE)
        return name


class Sweep(BaseModel):
    """A checked sweep: every default spelled out, the recipes multiplied out."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    name: str
    model: str
    data: DataSpec
    train: Train
    target: Target
    workers: Workers
    space: Space
    objectives: dict[str, Direction]
    limits: tuple[Limit, ...]
    strategy: str
    earlier_sweeps: bool = True
    engine: str
    budget: Budget
    seed: int
    trust_remote_code: bool
    root: Path
    file: str
    report_to: Mapping[str, Mapping[str, str]] = {}
    """The experiment trackers that show it, each with its options."""
    submit: Submit | None = None
    lines: Mapping[str, int] = {}
    """The line of each key in the file."""
    targets: Mapping[str, Any] = {}
    """With several targets: by name, the sweep for that target alone (`Sweep`)."""
    written: Mapping[str, Any] = {}
    """With several targets: `targets`, `space.build` and `limits` as the file has them."""
    exact: Recipe | None = None
    """The recipe of the untouched model: the most exact one that the device runs, once the device was asked."""
    notes: tuple[str, ...] = ()
    """Notes for the user on how the file was read, one line each."""

    @property
    def by_target(self) -> dict[str | None, Sweep]:
        """The sweeps of its targets by name; with one target, itself under None."""
        found: dict[str | None, Sweep] = dict(self.targets.items())
        return found or {None: self}

    @property
    def provider(self) -> Provider:
        """The target's provider."""
        return PROVIDERS[self.target.provider]

    @property
    def needs(self) -> tuple[str | None, bool]:
        """What a node of a cluster must have to work for the target: its label, and whether a GPU that the cluster assigns."""
        return self.target.label, bool(self.space.recipes) and self.target.provider in NVIDIA

    @property
    def aims(self) -> Aims:
        """Its objectives and limits, by which a winner is chosen."""
        return Aims(self.objectives, self.limits)

    @property
    def score(self) -> str:
        """The score column that `data.metric` fills."""
        return score_column(self.data.metric)

    def resolved(self) -> dict[str, Any]:
        """The sweep as plain data with every default spelled out; loading it again gives the same sweep."""
        space: dict[str, Any] = {}
        if self.space.lora is not None:
            defaults = resolve_lora(self.space.defaults).settings()
            named = set(self.space.lora)
            if "alpha_over_r" in named:
                defaults.pop("alpha", None)
            if "epochs" in named:
                defaults.pop("steps", None)
            if "alpha" not in named and "alpha_over_r" not in named:
                defaults.pop("alpha", None)
                defaults["alpha_over_r"] = LORA["alpha_over_r"].default
            plain: dict[str, Any] = {n: value for n, value in defaults.items() if n not in named and value is not None}
            plain.update({name: _plain_domain(name, domain) for name, domain in self.space.lora.items()})
            space["lora"] = {name: plain[name] for name in LORA if name in plain}
        if self.space.recipes:
            space["build"] = [recipe.model_dump(exclude_none=True) for recipe in self.space.recipes]
        if self.space.sessions:
            space["session"] = [_plain_session(session or Session()) for session in self.space.sessions]
        if self.written.get("build") is not None:
            space["build"] = self.written["build"]
        instead = {"workload"} if self.target.workloads else {"workloads"}
        target = {"target": self.target.model_dump(mode="json", exclude_none=True, exclude=instead)}
        if self.targets:
            target = {"targets": dict(self.written["targets"])}
        shown = {"report_to": plain_report_to(self.report_to)} if self.report_to else {}
        submit = {} if self.submit is None else {"submit": self.submit.model_dump(mode="json", exclude_none=True)}
        return {
            "name": self.name,
            "model": self.model,
            "data": self.data.model_dump(mode="json", exclude_none=True),
            "train": self.train.model_dump(mode="json"),
            **target,
            "workers": self.workers.model_dump(mode="json", exclude_none=True),
            "space": space,
            "objectives": dict(self.objectives),
            "limits": self.written["limits"] if self.targets else [str(limit) for limit in self.limits],
            "strategy": self.strategy,
            "earlier_sweeps": self.earlier_sweeps,
            "engine": self.engine,
            "budget": self.budget.model_dump(mode="json", exclude_none=True),
            "seed": self.seed,
            "trust_remote_code": self.trust_remote_code,
            **shown,
            **submit,
        }


def _plain_session(session: Session) -> dict[str, Any]:
    plain = session.model_dump(exclude_none=True)
    return plain | ({"provider_options": session.options} if session.provider_options else {})


def _plain_domain(name: str, domain: Choice | Range) -> Any:
    if isinstance(domain, Choice):
        values: list[Any] = [list(value) if isinstance(value, tuple) else value for value in domain.values]
        if name == "target_modules":  # a list of one module is kept as its name
            values = [value if isinstance(value, list) or value in PRESETS else [value] for value in values]
        return values[0] if len(values) == 1 else {"choice": values}
    kind = ("log" if domain.log else "") + ("int" if domain.integer else "uniform")
    bounds = [int(domain.low), int(domain.high)] if domain.integer else [domain.low, domain.high]
    return {kind: bounds}
