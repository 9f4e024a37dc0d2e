"""Recipes: parsed from a sweep file and multiplied out, and checked for those that cannot run on a model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autotune.candidate import Recipe
from autotune.errors import Problem
from autotune.providers import Provider
from autotune.space.domains import MOST_COMBINATIONS, Choice, mappings, parse_domain
from autotune.space.own_stages import OWN_STAGES, stage_choices
from autotune.space.parameter_tables import RECIPE, Value


@dataclass(frozen=True)
class LeftOut:
    """A combination that cannot run here, and why; listed by `plan`, never tried."""

    settings: str
    reason: str


@dataclass(frozen=True)
class ModelShape:
    """The properties of a model, from its config.json, that decide which recipes can run."""

    inner_sizes: tuple[int, ...]
    """Row lengths K of the matrices that get quantised."""
    tied: bool
    """Whether embedding and head are one matrix."""
    refused: tuple[tuple[str, str], ...] = ()
    """The precisions in which no build of the model runs, each with the reason."""


def _resolve_recipe(settings: dict[str, Any], provider: Provider, shape: ModelShape | None) -> Recipe | LeftOut:
    """Return the recipe with inactive parameters removed and defaults spelled out, or why it cannot run."""
    precision = settings["precision"]
    active: dict[str, Any] = {"precision": precision}
    for name, parameter in RECIPE.items():
        if name == "precision" or precision not in parameter.precisions:
            continue
        if parameter.providers and provider.name not in parameter.providers:
            continue
        value = settings.get(name, parameter.default)
        if name == "accuracy_level" and value is None:
            value = provider.accuracy_level
        active[name] = value
    if provider.qdq and precision == "int4":
        active["use_qdq"] = True
        if active.get("shared_embeddings") is None:
            active["shared_embeddings"] = False  # so that a model which ties them can be built; else it says nothing
    if active.get("algorithm") == "k_quant":
        active.pop("symmetric", None)
    if active.get("kv_cache_quant_scheme") == "none":
        active.pop("kv_cache_rotation", None)
    # An option at its default outside the core of a recipe says nothing: leave it out of names and digests.
    core = ("precision", "algorithm", "block_size", "accuracy_level", "symmetric")
    active = {n: v for n, v in active.items() if v is not None and (n in core or v not in ("", RECIPE[n].default))}
    if shape is not None and active.get("shared_embeddings") == shape.tied:
        del active["shared_embeddings"]
    recipe = Recipe.model_validate(active)
    reason = recipe_impossible(recipe, shape)
    return LeftOut(str(recipe), reason) if reason else recipe


def recipe_impossible(recipe: Recipe, shape: ModelShape | None) -> str | None:
    """Return why the model builder or the runtime cannot take this recipe for this model, or None."""
    if recipe.use_qdq:  # the model builder writes MatMulNBits for other algorithms, and refuses the rest
        if recipe.algorithm != "default":
            return f"use_qdq goes with the algorithm default alone, and not with {recipe.algorithm}"
        if "int8" in (recipe.mixed_precision or ""):
            return "use_qdq keeps no group of weights at int8"
        if "Gather" in (recipe.op_types_to_quantize or ""):
            return "use_qdq rounds no embedding: leave op_types_to_quantize out"
    if shape is None:
        return None
    for precision, reason in shape.refused:
        if precision == recipe.precision:
            return reason
    if recipe.shared_embeddings and not shape.tied:
        return "shared_embeddings needs a model that ties embedding and head; this one does not"
    if recipe.use_qdq and shape.tied and recipe.shared_embeddings is not False:
        return "use_qdq fails with tied embeddings; add shared_embeddings: false"
    if (
        recipe.precision == "int4"
        and recipe.algorithm == "default"
        and shape.tied
        and recipe.shared_embeddings is not False
    ):
        # The shared matrix is one of symmetric 4 bits: anything else for the head builds, and never loads.
        remedy = "use rtn or k_quant, or add shared_embeddings: false"
        if recipe.symmetric is False:
            return f"int4 default without symmetry does not load with tied embeddings; {remedy}"
        if "last_matmul:int8" in (recipe.mixed_precision or ""):
            return f"int4 default with last_matmul:int8 does not load with tied embeddings; {remedy}"
    if recipe.precision == "int4" and recipe.algorithm == "k_quant" and recipe.block_size:
        odd = [k for k in shape.inner_sizes if math.ceil(k / recipe.block_size) % 2]
        if odd:
            blocks = math.ceil(odd[0] / recipe.block_size)
            return (
                f"int4 k_quant needs an even number of blocks in a row; {odd[0]} in blocks of "
                f"{recipe.block_size} gives {blocks}"
            )
    return None


def parse_recipes(
    raw: Any,
    provider: Provider,
    shape: ModelShape | None,
    problems: list[Problem],
    key: str = "space.build",
    several: bool = False,
) -> tuple[tuple[Recipe, ...], tuple[LeftOut, ...]]:
    """Return the recipes of a sweep file, multiplied out, that can run on `provider`, and those that cannot, with the reason.

    `shape`: of the model; None: not known yet. A value that never runs on the provider is a problem instead, unless the sweep
    has `several` targets: it may be meant for another one.
    """
    recipes: dict[Recipe, None] = {}
    left_out: dict[LeftOut, None] = {}
    for here, item in mappings(raw, RECIPE, key, "recipe", "write - { precision: int4 }", problems):
        before = len(problems)
        axes = _axes(item, provider, here, problems, several)
        if several and "precision" in axes:
            foreign = [value for value in axes["precision"] if value not in provider.precisions]
            reason = f"it does not run on the {provider.name} provider"
            left_out |= {LeftOut(str(value), reason): None for value in foreign}
            axes["precision"] = tuple(value for value in axes["precision"] if value in provider.precisions)
            if not axes["precision"]:
                continue
        for precision in axes.get("precision", ()):
            if precision not in provider.precisions:
                rule = f"{precision} does not run on the {provider.name} provider"
                remedy = "use one of " + ", ".join(provider.precisions)
                problems.append(Problem(rule, f"{here}.precision", value=precision, remedy=remedy))
        if len(problems) > before or "precision" not in axes:
            continue
        if (many := math.prod(map(len, axes.values()))) > MOST_COMBINATIONS:
            rule = f"its lists multiply to {many:,} recipes, and {MOST_COMBINATIONS:,} are the most"
            problems.append(Problem(rule, here, remedy="shorten the lists"))
            continue
        for combination in itertools.product(*axes.values()):
            resolved = _resolve_recipe(dict(zip(axes, combination, strict=True)), provider, shape)
            if isinstance(resolved, Recipe):
                recipes[resolved] = None
            else:
                left_out[resolved] = None
    return tuple(recipes), tuple(left_out)


def _axes(
    item: Mapping[str, Any], provider: Provider, here: str, problems: list[Problem], several: bool
) -> dict[str, tuple[Value, ...]]:
    """Return the values of each parameter of a recipe, before they are multiplied out. Arguments as for `parse_recipes`."""
    if "precision" not in item:
        problems.append(Problem("a recipe needs a precision", here, remedy="one of " + ", ".join(provider.precisions)))
    axes: dict[str, tuple[Value, ...]] = {}
    for name, value in item.items():
        if name not in RECIPE:
            continue
        if name in OWN_STAGES:
            axes[name] = stage_choices(value, f"{here}.{name}", problems)
            continue
        parameter = RECIPE[name]
        if parameter.providers and provider.name not in parameter.providers:
            if not several:
                rule = f"{name} means something on {' and '.join(parameter.providers)} only"
                problems.append(Problem(rule, f"{here}.{name}", remedy=f"remove it for {provider.name}"))
            continue
        domain = parse_domain(parameter, value, f"{here}.{name}", problems, ranges=False)
        if not isinstance(domain, Choice):
            continue
        if name == "use_qdq" and provider.qdq and False in domain.values and not several:
            rule = f"int4 weights for {provider.name} are always QuantizeLinear and DequantizeLinear"
            problems.append(Problem(rule, f"{here}.{name}", value=False, remedy="remove it, or write true"))
        axes[name] = domain.values
    return axes
