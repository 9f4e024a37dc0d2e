"""Find out which recipes a target's device runs, and leave the others out of the space before anything is trained.

A tiny model is built and run on the device itself. The cache keeps the answers by device, driver and versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autotune.candidate import Recipe
from autotune.errors import MachineError, StageError
from autotune.pipeline.devices import DoJob
from autotune.pipeline.on_provider import left_to_cpu
from autotune.providers import PROVIDERS, Provider
from autotune.space.recipes import LeftOut
from autotune.space.space import Space
from autotune.stages.preparation_jobs import CapabilityJob, TinyJob
from autotune.sweepfile.schema import Target

TOKENS = 512
"""The longest text on which a device is compared with PyTorch; shorter where a sweep's texts are."""
ASK_S = 600.0
"""Seconds after which a device that is asked counts as hung."""
HANGS = 2
"""After so many precisions that hang, while none has run, the others are not tried: each would take `ASK_S`."""
_QUANTISED: dict[str, Any] = {"algorithm": "default", "block_size": 32, "symmetric": True}
_DIVIDED = ("PhiForCausalLM", "PhiMoEForCausalLM", "OlmoForCausalLM")
"""Architectures whose head size is the hidden size divided by the number of heads; their configs have no `head_dim`."""
_DECIDING = (
    "attention_bias", "hidden_act", "mlp_bias", "partial_rotary_factor", "qk_layernorm", "tie_word_embeddings",
    "use_qk_norm",
)  # fmt: skip
"""The other keys of a config.json that decide which operators a graph has."""


@dataclass(frozen=True)
class Answers:
    """What a device answered, by recipe."""

    target: Target
    device: str
    results: dict[Recipe, dict[str, Any]] = field(default_factory=dict)

    def runs(self, recipe: Recipe) -> bool:
        """Whether a recipe was tried and runs, and not on the CPU instead."""
        return recipe in self.results and not self.why(recipe)

    def why(self, recipe: Recipe) -> str:
        """Return why a recipe that was tried does not run; empty where it does."""
        found = self.results[recipe]
        said = left_to_cpu(found, self.target) if found["runs"] else str(found["why"])
        return f"on {self.device}: {said}" if said else ""


def plainest(precision: str, provider: Provider, io: bool | None = None) -> Recipe:
    """Return the recipe that tests whether a device runs a precision; `io`: with fp32 inputs, outputs and activations."""
    quantised = precision in ("int8", "int4")
    settings = _QUANTISED | {"accuracy_level": provider.accuracy_level} if quantised else {}
    if provider.qdq and precision == "int4":
        settings = settings | {"use_qdq": True, "shared_embeddings": False}
    wide = {provider.io_option: True} if io and provider.io_option else {}
    return Recipe.model_validate({"precision": precision, **settings, **wide})


def tiny_of(config: Mapping[str, Any]) -> TinyJob:
    """Return the job that makes a tiny model of a model's architecture, with heads of its size and groups of its kind."""
    named = config.get("architectures")
    architecture = str(named[0]) if isinstance(named, list) and named else "LlamaForCausalLM"
    heads = int(config.get("num_attention_heads") or 0)
    groups = int(config.get("num_key_value_heads") or heads)
    size = int(config.get("head_dim") or (int(config.get("hidden_size") or 0) // heads if heads else 0)) or 16
    changes: dict[str, Any] = {name: config[name] for name in _DECIDING if config.get(name) is not None}
    changes["num_key_value_heads"] = 4 if groups == heads else 1 if groups == 1 else 2
    if architecture in _DIVIDED:
        changes["hidden_size"] = 4 * size
    else:
        changes["head_dim"] = size
    return TinyJob(architecture=architecture, changes=changes)


def ask_device(
    target: Target,
    hardware: str,
    recipes: Iterable[Recipe],
    tiny: TinyJob,
    tokens: int,
    do: DoJob,
    every: bool = False,
) -> Answers:
    """Test on a device the precisions of `recipes`, and the most exact precision that runs; `every`: all precisions.

    Raises MachineError where the device is gone or hangs, StageError where no tiny model of the architecture can be made.
    """
    provider, source = PROVIDERS[target.provider], tiny.key
    do(tiny)
    wanted = {recipe.precision for recipe in recipes}
    answers = Answers(target, hardware)
    exact: Recipe | None = None
    hung = 0
    for precision in provider.precisions:
        if exact is not None and not every and precision not in wanted:
            continue
        wide = [None, True] if provider.io_option and precision in ("int8", "int4") else [None]
        for io in wide:
            recipe = plainest(precision, provider, io)
            job = CapabilityJob(
                provider=provider.name, recipe=recipe, source=source, tokens=min(tokens, TOKENS), device_index=target.device,
                hardware=hardware, label=target.label,
            )  # fmt: skip
            try:
                answers.results[recipe] = do(job, ASK_S).result
            except StageError as error:
                if error.status == "lost":
                    raise MachineError(str(error)) from None
                hung += error.status == "timeout"
                if hung >= HANGS and exact is None:
                    what = f"provider {provider.name} hangs when it computes on {hardware}"
                    raise MachineError(f"{what}: {error}; update its driver, or choose another device") from None
                answers.results[recipe] = {"runs": False, "why": str(error)}
            exact = exact or (recipe if answers.runs(recipe) else None)
    return answers


def exact_recipe(provider: Provider, answers: Answers) -> Recipe | None:
    """Return the recipe of the untouched model that limits refer to: the most exact precision that the device runs."""
    found = (chosen(plainest(precision, provider), provider, answers) for precision in provider.precisions)
    return next((recipe for recipe in found if isinstance(recipe, Recipe)), None)


def chosen(recipe: Recipe, provider: Provider, answers: Answers) -> Recipe | str:
    """Return a recipe as the device runs it, or the reason why it does not run.

    Where the recipe leaves the type of its inputs and outputs open, the fastest type that works is chosen.
    """
    option = provider.io_option
    said = getattr(recipe, option) if option else None
    plain = recipe.model_copy(update={option: None}) if option else recipe
    narrow, wide = plainest(recipe.precision, provider), plainest(recipe.precision, provider, True)
    kinds = {None: narrow} if narrow == wide else {None: narrow, True: wide}
    allowed = {io: one for io, one in kinds.items() if said is None or bool(io) == said}
    asked = {io: one for io, one in allowed.items() if one in answers.results}
    if not asked:
        return plain if said is None else recipe
    working = {io: one for io, one in asked.items() if answers.runs(one)}
    if not working:
        return answers.why(next(iter(asked.values())))
    fastest = min(working, key=lambda io: float(answers.results[working[io]]["token_ms"]))
    return plain.model_copy(update={option: fastest}) if option and fastest else plain


def fit_device(space: Space, provider: Provider, answers: Answers) -> Space:
    """Return the space with the recipes that a device runs, as it runs them; the others are left out, each with a reason."""
    fitting: dict[Recipe, None] = {}
    left_out = list(space.left_out)
    for recipe in space.recipes:
        found = chosen(recipe, provider, answers)
        if isinstance(found, Recipe):
            fitting[found] = None
        else:
            left_out.append(LeftOut(str(recipe), found))
    return replace(space, recipes=tuple(fitting), left_out=tuple(left_out))
