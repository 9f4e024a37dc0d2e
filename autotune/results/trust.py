"""Which recipes can still be right, where the untouched model at full precision was built wrong.

The model builder writes one graph for a model, and then rounds its weights. An error in that graph at full precision is in
every recipe that differs only in rounding, even where rounding hides it.
"""

from __future__ import annotations

from autotune.candidate import Recipe
from autotune.results.rows import Trial

CHECKED = "check: "
"""How the error begins of a build that is not the model that it was made from."""
ROUNDING = {
    "precision", "algorithm", "block_size", "accuracy_level", "symmetric", "mixed_precision", "nodes_to_exclude",
    "op_types_to_quantize", "shared_embeddings", "kv_cache_quant_scheme", "moe_quant_type", "qmoe_block_size",
}  # fmt: skip
"""What of a recipe says how numbers are held; the rest says which operations there are."""


def is_another_model(row: Trial | None) -> bool:
    """Whether a row says that its build is not the model that it was made from."""
    return row is not None and row.status == "failed" and (row.error or "").startswith(CHECKED)


def is_in_doubt(row: Trial | None) -> bool:
    """Whether the untouched model's row says that it was not built, does not run, or is another model when built."""
    unchecked = row is not None and row.check_items is None and bool(row["build_precision"])
    return is_another_model(row) or (row is not None and row.status in ("failed", "unsupported") and unchecked)


def only_rounds(recipe: Recipe, other: Recipe) -> bool:
    """Whether two recipes differ in nothing but rounding."""
    return recipe.model_dump(exclude=ROUNDING) == other.model_dump(exclude=ROUNDING)


def inherited(recipe: Recipe, error: str) -> str:
    """Return in words why a recipe is not trusted that only rounds what was seen to be wrong."""
    return f"{CHECKED}the untouched model at {recipe.precision} is not the model ({error.removeprefix(CHECKED)})"
