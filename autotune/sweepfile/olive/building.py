"""The pass ModelBuilder of an Olive configuration, and those after it that have an equal among its options."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from autotune.errors import shown
from autotune.space.parameter_tables import RECIPE
from autotune.sweepfile.olive.draft import Draft, chosen
from autotune.sweepfile.olive.sections import Node, Section, is_number

Builds = list[dict[str, Any]]
"""Recipes as a sweep file has them: a parameter with a list is each of its values in turn."""

_ALGORITHMS = {
    "default": ("default", ""), "rtn": ("rtn", ""), "k_quant": ("k_quant", ""),
    "rtn_last": ("rtn", "last_matmul:int8"), "k_quant_last": ("k_quant", "last_matmul:int8"),
    "k_quant_mixed": ("k_quant", "last_matmul:int8,mixed_layers:int8"),
    "k_quant_linear": ("k_quant", "last_matmul:int8,linear_attn:int8"),
}  # fmt: skip
"""Algorithm, and what is kept at other bits, by Olive's name: as the model builder documents its own older names."""
_SEARCHED: Mapping[str, list[Any]] = {
    "block_size": [32, 64, 128], "symmetric": [True, False],
    "algorithm": ["default", "rtn", "k_quant_mixed", "k_quant_last"],
}  # fmt: skip
"""What Olive searches of the model builder where nothing is said."""
_OLD = {
    "int4_algo_config": "algorithm", "algo_config": "algorithm", "int4_is_symmetric": "symmetric", "is_symmetric": "symmetric",
    "int4_block_size": "block_size", "int4_accuracy_level": "accuracy_level",
    "int4_op_types_to_quantize": "op_types_to_quantize", "int4_nodes_to_exclude": "nodes_to_exclude",
    "matmul_mixed_precision": "mixed_precision", "int4_tied_embeddings": "shared_embeddings", "use_8bits_moe": "moe_quant_type",
}  # fmt: skip
_JOINED = {"op_types_to_quantize": "/", "nodes_to_exclude": ","}
_WHOLE = ("whole models are built", "remove it, or write false")
_FILES = (
    "save_as_external_data",
    "all_tensors_to_one_file",
    "external_data_name",
    "size_threshold",
    "convert_attribute",
)


def _check(name: str, value: Any) -> tuple[Any, str]:
    """Return an option of the model builder as a parameter of a recipe, or the rule that it breaks."""
    parameter = RECIPE[name]
    if name == "algorithm":
        known = isinstance(value, str) and value in _ALGORITHMS
        return (value, "") if known else (None, f"must be one of {', '.join(_ALGORITHMS)}, got {shown(value)[:60]}")
    if name == "moe_quant_type" and isinstance(value, bool):
        return ("int8" if value else None), ""
    if isinstance(value, str) and parameter.type in (int, bool):  # extra_options as on the model builder's command line
        written = {"true": True, "false": False}.get(value.strip().lower(), value.strip())
        value = int(written) if isinstance(written, str) and re.fullmatch(r"-?[0-9]{1,9}", written) else written
    if parameter.type is bool and value in (0, 1) and not isinstance(value, float):
        return bool(value), ""
    fits = {
        bool: isinstance(value, bool), int: is_number(value) and value == int(value), str: isinstance(value, str),
    }  # fmt: skip
    if not fits.get(parameter.type, False):
        return (
            None,
            f"must be a {'truth value' if parameter.type is bool else 'number' if parameter.type is int else 'text'}",
        )
    value = int(value) if parameter.type is int else value
    if parameter.choices and value not in parameter.choices:
        choices = ", ".join(str(one) for one in parameter.choices if one != "")
        return None, f"must be one of {choices}, got {shown(value)[:60]}"
    return value, ""


_UNNEEDED = {
    "search": "how text is generated is the application's choice; it changes neither the graph nor its scores",
    "filename": "the graph is model.onnx",
    "config_only": "the graph is built",
    "hf_remote": "no code of a model's own is run",
    **dict.fromkeys(_FILES, "weights lie beside the graph"),
}
"""What a ModelBuilder pass may say and is not needed, each with the reason."""
_REFUSED = {
    "include_hidden_states": _WHOLE,
    "exclude_embeds": _WHOLE,
    "exclude_lm_head": _WHOLE,
    "adapter_path": ("an adapter is trained here, and merged before the build", "remove it"),
}
"""What a ModelBuilder pass may say and is refused, each with the reason and the remedy."""


def read_builder(draft: Draft, section: Section, builds: Builds, nodes: dict[str, Node]) -> None:
    """Add the recipes of a ModelBuilder pass to `builds`; `nodes` says of each parameter where it was read."""
    ledger = draft.ledger
    extra = section.take("extra_options")
    if extra is not None and isinstance(extra.value, Mapping):
        for name, node in Section(ledger, extra, (), {}).nodes.items():
            section.nodes[f"extra_options.{name}"] = node  # each is the model builder's own, and counts before Olive's
    elif extra is not None:
        ledger.refuse(extra.path, "must be a mapping", "write { ... }")
    _rename(section)
    recipe: dict[str, list[Any]] = {}
    wrong: set[str] = set()
    metadata = section.take_flag("metadata_only")
    if metadata is not None:
        ledger.unneeded(metadata.path, "the model builder writes the graph, and its settings with it")
    for name in ("precision", *(name for name in RECIPE if name != "precision")):
        searched = _SEARCHED.get(name)
        _join(section, name)
        given = section.nodes.get(name)
        found = chosen(draft, section, name, partial(_check, name), searched)
        if found is None and given is not None and ledger.entries[given.path].fate == "refused":
            wrong.add(name)
        providers = RECIPE[name].providers
        if found is not None and providers and draft.get("target.provider") not in providers:
            why = f"it means something on {' and '.join(providers)} only"
            ledger.unneeded(found[0].path, why, tell=any(found[1]))
            continue
        if found is not None:
            values = [value for value in found[1] if value is not None]
            nodes[name] = found[0]
            ledger.map(found[0].path, f"space.build.{name}")
            if values:
                recipe[name] = values
    if "precision" not in recipe and "precision" not in wrong:
        recipe["precision"] = ["fp32"]
    if draft.searching and "int4" in recipe.get("precision", ()):
        for name, values in _SEARCHED.items():
            recipe.setdefault(name, values)
    section.unneeded(_UNNEEDED)
    section.refuse(_REFUSED)
    section.no_token("hf_token")
    section.close("the pass ModelBuilder")
    if "precision" in recipe:
        builds += _recipes(recipe)


def _join(section: Section, name: str) -> None:
    """Make one text of a list that the model builder takes as one: it is no list of values to search."""
    node = section.nodes.get(name)
    if name not in _JOINED or node is None or not isinstance(node.value, list):
        return
    if all(isinstance(one, str) for one in node.value):
        listed = [one for one in node.value if name != "op_types_to_quantize" or one != "Gemm"]  # no graph here has any
        if name == "op_types_to_quantize":  # in whatever order: the model builder takes them as a set
            listed = sorted(dict.fromkeys(listed), key=lambda one: (one != "MatMul", one))
        section.nodes[name] = Node(node.path, _JOINED[name].join(listed or node.value))


def _rename(section: Section) -> None:
    """Give options of the model builder the names that recipes have; one that is given twice must say the same."""
    for name in list(section.nodes):
        node = section.nodes.pop(name)
        plain = name.removeprefix("extra_options.")
        to = _OLD.get(plain, plain)
        before = section.nodes.get(to)
        if before is None or (name.startswith("extra_options.") and before.value == node.value):
            if before is not None:
                section.ledger.unneeded(before.path, "extra_options say the same")
            section.nodes[to] = node
        elif name.startswith("extra_options."):
            section.ledger.unneeded(before.path, "extra_options take its place")
            section.nodes[to] = node
        else:
            section.ledger.refuse(node.path, f"{to} is given twice", "keep one of them")


def _recipes(recipe: dict[str, list[Any]]) -> Builds:
    """Return recipes as a sweep file has them: an algorithm that keeps groups at other bits is one of its own."""
    names = recipe.pop("algorithm", None)
    plain: dict[str, Any] = {name: values[0] if len(values) == 1 else values for name, values in recipe.items()}
    if names is None:
        return [plain]
    found: Builds = []
    alone = [_ALGORITHMS[name][0] for name in names if not _ALGORITHMS[name][1]]
    if alone:
        found.append(plain | {"algorithm": alone[0] if len(alone) == 1 else alone})
    for name in names:
        algorithm, groups = _ALGORITHMS[name]
        if groups:
            found.append({"algorithm": algorithm, "mixed_precision": groups} | plain | {"algorithm": algorithm})
    return found


# --- Passes after the model builder ---------------------------------------------------------------------------------


def read_rounding(draft: Draft, section: Section, kind: str, builds: Builds) -> None:
    """Give the recipes before this pass the rounding of weights that it is: as the model builder does it itself."""
    algorithm, block = {"onnxblockwisertnquantization": ("rtn", 128), "onnxkquantquantization": ("k_quant", 32)}[kind]
    ledger = draft.ledger
    recipe: dict[str, Any] = {"precision": "int4", "algorithm": algorithm, "block_size": block, "accuracy_level": 0}
    bits = section.take_number("bits", whole=True)
    if bits is not None and bits.value in (4, 8):
        recipe["precision"] = f"int{int(bits.value)}"
        ledger.map(bits.path, "space.build.precision")
    elif bits is not None:
        ledger.refuse(bits.path, f"must be 4 or 8, got {shown(bits.value)}", "write 4")
    section.rename(_OLD)
    _join(section, "nodes_to_exclude")
    for name in ("block_size", "symmetric", "accuracy_level", "nodes_to_exclude"):
        found = chosen(draft, section, name, partial(_check, name))
        if found is not None:
            recipe[name] = found[1][0] if len(found[1]) == 1 else found[1]
            ledger.map(found[0].path, f"space.build.{name}")
    if algorithm == "rtn":
        recipe.setdefault("symmetric", True)
    section.unneeded({"axis": "blocks lie along rows", **dict.fromkeys(_FILES, "weights lie beside the graph")})
    nothing = ("nodes are excluded by name, not included", "name the others in nodes_to_exclude")
    own = ("nodes have no precisions of their own", "use mixed_precision in a recipe of the sweep file")
    section.refuse({"nodes_to_include": nothing, "customized_weight_config": own})
    section.close("the pass")
    builds[:] = [_rounded(before, recipe) for before in builds]


def _rounded(before: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    return before | recipe


_AS_QDQ = "the model builder writes QuantizeLinear and DequantizeLinear for the algorithm default alone, which takes its place"


def build_qdq(draft: Draft, builds: Builds, nodes: Mapping[str, Node]) -> None:
    """Let int4 weights be QuantizeLinear and DequantizeLinear, as the model builder writes them; told where that changes
    how they are rounded.
    """
    for build in builds:
        precision = build.get("precision")
        if "int4" not in (precision if isinstance(precision, list) else [precision]):
            continue
        build["use_qdq"] = True
        changed = build.get("algorithm", "default") != "default" or bool(build.get("mixed_precision"))
        for name in ("algorithm", "mixed_precision") if changed else ():
            build.pop(name, None)
            if name in nodes:
                draft.ledger.unneeded(nodes[name].path, _AS_QDQ, tell=True)
        if changed:
            build["algorithm"] = "default"


def read_qdq(draft: Draft, section: Section, builds: Builds, nodes: Mapping[str, Node]) -> None:
    """Turn MatMulNBits of the recipes before this pass into QuantizeLinear and DequantizeLinear, by the model builder."""
    ledger = draft.ledger
    section.unneeded(
        {
            "use_int4": "symmetric weights are int4, others uint4",
            "use_signed_int": "symmetric weights are int4, others uint4",
            "add_zero_point": "the model builder adds what a recipe needs",
            "use_transpose_op": "the model builder lays the weights out",
            **dict.fromkeys(_FILES, "weights lie beside the graph"),
        }
    )
    section.refuse({"nodes_to_exclude": ("all nodes are turned", "remove it")})
    section.close("the pass MatMulNBitsToQDQ")
    ledger.map((*section.path, "type"), "space.build.use_qdq")
    build_qdq(draft, builds, nodes)


def read_surgeries(draft: Draft, section: Section, builds: Builds) -> None:
    """Tie the embedding and the head, which is the one surgery with an equal; refuse others by name."""
    ledger = draft.ledger
    section.unneeded(dict.fromkeys(_FILES, "weights lie beside the graph"))
    node = section.take("surgeries")
    section.close("the pass GraphSurgeries")
    if node is None or not isinstance(node.value, list):
        ledger.refuse(node.path if node else section.path, "surgeries must be a list", "remove the pass")
        return
    for place, part in enumerate(node.value):
        surgery = Section(ledger, Node((*node.path, place), part))
        name = surgery.take_text("surgeon")
        if name is not None and name.value in ("TieWordEmbeddings", "ShareEmbeddingLmHead"):
            why = "the model builder shares embedding and head of a model that ties them"
            ledger.map(name.path, "space.build.shared_embeddings", why)
            for build in builds:
                build["shared_embeddings"] = True
        else:
            place_of = name.path if name is not None else surgery.path
            rule = f"the pass GraphSurgeries with {shown(name.value if name else None)} has no equal here"
            remedy = _SURGERY.get(
                str(name.value) if name else "", "remove the surgery: the model builder writes the graph"
            )
            ledger.refuse(place_of, rule, remedy)
            surgery.unneeded(dict.fromkeys(list(surgery.nodes), "the surgery is refused"))
        surgery.close("a surgery")


_SURGERY = {
    "QuantizeEmbeddingInt8": "remove the surgery; a recipe with op_types_to_quantize: MatMul/Gather rounds the embedding with "
    "the other weights",
}


def read_half(draft: Draft, section: Section, builds: Builds) -> None:
    """Build in fp16 what the pass OnnxFloatToFloat16 would turn into it."""
    for node in section.rest():
        draft.ledger.unneeded(node.path, "the model builder writes fp16 throughout")
    section.nodes.clear()
    draft.ledger.map((*section.path, "type"), "space.build.precision")
    for build in builds:
        if build.get("precision") == "fp32":
            build["precision"] = "fp16"
