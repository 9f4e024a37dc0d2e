"""The passes LoRA, QLoRA and DoRA of an Olive configuration: settings of the adapter and of its training."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autotune.errors import shown
from autotune.space.parameter_tables import LORA
from autotune.sweepfile.olive.data import DataConfigs, put_source, put_validation
from autotune.sweepfile.olive.draft import Check, Draft, chosen, one_or_choice
from autotune.sweepfile.olive.sections import Node, Section, is_number
from autotune.sweepfile.olive.texts import put_shape
from autotune.sweepfile.olive.trainer_arguments import ORDERED, OTHER_NAMES, REFUSED, UNNEEDED

TRAINING = ("lora", "qlora", "dora")
_OLD = {
    "lora_r": "r", "lora_alpha": "alpha", "dropout": "lora_dropout", "train_data": "train_data_config",
    "compute_dtype": "torch_dtype", "hf_training_args": "training_args",
}  # fmt: skip
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32", "auto": "auto"}
_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant", "constant_with_warmup": "constant"}
_OPTIMISERS = re.compile(
    r"(paged_)?adamw(_torch(_fused|_npu_fused|_4bit|_8bit)?|_hf|_8bit|_32bit|_bnb_8bit|_apex_fused)?"
)
_DEFAULTS: Mapping[str, Any] = {
    "r": 64, "alpha": 16, "dropout": 0.05, "learning_rate": 2e-4, "schedule": "constant", "warmup": 0.0, "batch_size": 8,
    "accumulation": 1, "gradient_checkpointing": True, "max_grad_norm": 1.0,
}  # fmt: skip
"""What Olive and the Trainer that it calls take where a file is silent."""
_MODULES = ["q_proj", "v_proj"]
"""The modules that PEFT takes of most architectures where none are named."""


def _within(name: str) -> Check:
    """Return the check of a number that becomes a LoRA parameter."""
    parameter = LORA[name]

    def check(value: Any) -> tuple[Any, str]:
        whole = parameter.type is int
        if not is_number(value) or (whole and value != int(value)):
            return None, f"must be a {'whole ' if whole else ''}number, got {shown(value)[:60]}"
        if not parameter.low <= value <= parameter.high:
            return None, f"must be between {parameter.low:g} and {parameter.high:g}, got {shown(value)}"
        return (int(value) if whole else value), ""

    return check


def _one_of(known: Mapping[str, str]) -> Check:
    def check(value: Any) -> tuple[Any, str]:
        plain = value.removeprefix("torch.") if isinstance(value, str) else value
        if isinstance(plain, str) and plain in known:
            return known[plain], ""
        return None, f"must be one of {', '.join(known)}, got {shown(value)[:60]}"

    return check


def _truth(value: Any) -> tuple[Any, str]:
    return (value, "") if isinstance(value, bool) else (None, f"must be true or false, got {shown(value)[:60]}")


def _modules(value: Any) -> tuple[Any, str]:
    if value == "all-linear":
        return value, ""
    names = [value] if isinstance(value, str) else value
    if isinstance(names, list) and names and all(isinstance(n, str) and re.fullmatch(r"[\w.-]+", n) for n in names):
        return list(names), ""
    return None, "must be a list of names of modules"


def read_training(draft: Draft, section: Section, kind: str, data: DataConfigs) -> None:
    """Set `space.lora` from a pass of the type `kind`, and what it says of data and training."""
    section.rename(_OLD)
    put = _Putter(draft, section)
    put("r", "r", _within("r"), [16, 32, 64])
    put("alpha", "alpha", _within("alpha"))
    put("lora_dropout", "dropout", _within("dropout"))
    _read_modules(draft, section, kind)
    put("torch_dtype", "dtype", _one_of(_DTYPES))
    _read_kind(draft, section, kind)
    put("use_rslora", "rslora", _truth)
    train, validation = section.take("train_data_config"), section.take("eval_data_config")
    _read_data(draft, section, data, train, validation)
    arguments = section.take_section("training_args", ("extra_args",))
    _read_arguments(draft, arguments if arguments is not None else Section(draft.ledger, Node(section.path, {})))
    if draft.searching and draft.get("space.lora.r") is None:
        draft.default("space.lora.r", one_or_choice([16, 32, 64]), "the values that Olive searches")
    for name, value in _DEFAULTS.items():
        draft.default(f"space.lora.{name}", value, "Olive's default")
    section.unneeded(
        {
            "device_map": "train.device says where it is trained",
            "allow_tf32": "PyTorch's own setting is kept",
            "ephemeral_gpu_offload": "the model is not moved while it is trained",
            "save_quant_config": "the adapter is merged into the original weights, not into quantised ones",
            "use_ort_trainer": "PyTorch trains",
            "ortmodule": "PyTorch trains",
            "init_weights": "an adapter begins as PEFT begins it",
            "task_type": "every model here generates text",
            "bias": "biases stay as they are",
            "user_script": "no script is needed to train",
        }
    )
    section.refuse(
        {
            "modules_to_save": (
                "whole modules are not trained beside an adapter",
                "remove it, or name them in target_modules",
            ),
            "loftq_iter": ("adapters do not begin from LoftQ", "remove it"),
            "rank_pattern": ("every module has the same rank", "remove it"),
            "alpha_pattern": ("every module has the same alpha", "remove it"),
            "exclude_modules": ("modules are named, not excluded", "list the others in target_modules"),
            "layers_to_transform": ("every layer gets the adapter", "remove it"),
            "layers_pattern": ("every layer gets the adapter", "remove it"),
            "script_dir": ("no script is run", "remove it"),
            "model_parallel": ("a model is trained on one device", "remove it"),
        }
    )
    section.close(f"the pass {kind}")


class _Putter:
    """Takes parameters out of a section and sets them in `space.lora`."""

    def __init__(self, draft: Draft, section: Section) -> None:
        self.draft, self.section = draft, section

    def __call__(self, name: str, to: str, check: Check, searched: list[Any] | None = None) -> None:
        found = chosen(self.draft, self.section, name, check, searched)
        if found is not None:
            node, values = found
            self.draft.put(f"space.lora.{to}", one_or_choice(values), node)


def _read_modules(draft: Draft, section: Section, kind: str) -> None:
    """Set the modules that get the adapter: in Olive those that PEFT takes, and of QLoRA all that are quantised."""
    node = section.take("target_modules")
    if node is None or node.value in (None, "DEFAULT_VALUE"):
        if node is not None:
            draft.ledger.unneeded(node.path, "it asks for the default")
        if kind == "qlora":
            draft.default(
                "space.lora.target_modules", "all-linear", "Olive's QLoRA adapts every layer that it quantises"
            )
        else:
            draft.default("space.lora.target_modules", list(_MODULES), "what PEFT takes of most models")
        return
    value, rule = _modules(node.value)
    if rule:
        remedy = "list the last parts of their names, such as q_proj, or write all-linear"
        draft.ledger.refuse(node.path, rule, remedy)
    else:
        other = kind == "qlora" and value != "all-linear"
        why = (
            "Olive's QLoRA adapts every linear layer, whatever is named; for the same write all-linear" if other else ""
        )
        draft.put("space.lora.target_modules", value, node, why, tell=other)


def _read_kind(draft: Draft, section: Section, kind: str) -> None:
    """Set what the type of the pass says: a quantised base, or DoRA."""
    double, quant = section.take_flag("double_quant"), section.take_text("quant_type")
    node = Node((*section.path, "type"), kind)
    if kind == "dora":
        draft.put("space.lora.dora", True, node)
    elif kind == "qlora":
        draft.put("space.lora.quantized_base", "nf4", node, "QLoRA; the adapter is merged into the original weights")
    else:
        draft.ledger.map(node.path, "space.lora")
    for one in (double, quant):
        if one is not None and kind != "qlora":
            name = {"lora": "LoRA", "dora": "DoRA"}[kind]
            draft.ledger.unneeded(one.path, f"{name} leaves the base in its own precision: it counts for QLoRA", True)
    if kind != "qlora":
        return
    if quant is not None and quant.value in ("nf4", "fp4"):
        draft.put("space.lora.quantized_base", quant.value, quant)
    elif quant is not None:
        draft.ledger.refuse(quant.path, f"must be nf4 or fp4, got {shown(quant.value)}", "write nf4")
    if double is not None:
        draft.put("space.lora.double_quant", double.value, double)


def _read_data(draft: Draft, section: Section, data: DataConfigs, train: Node | None, validation: Node | None) -> None:
    ledger = draft.ledger
    share = section.take_number("eval_dataset_size")
    if train is None:
        ledger.refuse(section.path, "names no data (train_data_config)", "add the name of a data config")
    found = data.find(train) if train is not None else None
    for named in (train,) if found is None else ():
        if named is not None:
            ledger.unneeded(named.path, "the data that it names is refused")
    if found is not None and train is not None:
        put_source(draft, "data.train", found, train)
        put_shape(draft, found.shape)
    if share is not None and 0 < share.value < 1:
        draft.put("data.holdout", share.value, share)
    elif share is not None and share.value >= 1 and share.value == int(share.value):
        why = "so many rows are judged on, of the share that data.holdout holds out"
        draft.put("data.max_items.validation", int(share.value), share, why, tell=True)
    elif share is not None and share.value:
        ledger.refuse(share.path, "must be a share between 0 and 1, or a number of rows", "write e.g. 0.3")
    elif share is not None:
        ledger.unneeded(share.path, "nothing is judged without rows that are held out: 20 % are")
    if validation is None:
        return
    other = data.find(validation)
    if other is None:
        ledger.unneeded(validation.path, "the data that it names is refused")
        return
    if found is not None and other.shape.data != found.shape.data:
        rule = "makes other texts than the training data"
        ledger.refuse(validation.path, rule, "give both the same template and columns")
        data.pass_over(validation)
        return
    if share is not None:
        ledger.refuse(share.path, "rows are held out, or named by eval_data_config: not both", "keep one of them")
        ledger.unneeded(validation.path, "rows are held out")
        data.pass_over(validation)
        return
    put_validation(draft, other, validation)


# --- training_args -------------------------------------------------------------------------------------------------


def _read_arguments(draft: Draft, section: Section) -> None:
    """Set what the arguments of transformers' Trainer say."""
    section.rename(OTHER_NAMES)
    put, ledger = _Putter(draft, section), draft.ledger
    seed = section.take_number("seed", whole=True)
    if seed is not None and 0 <= seed.value < 2**31:
        draft.put("seed", int(seed.value), seed)
    elif seed is not None:
        ledger.refuse(seed.path, f"must be 0 or more and below 2^31, got {shown(seed.value)}", "write e.g. 0")
    for name, to in (
        ("per_device_train_batch_size", "batch_size"), ("gradient_accumulation_steps", "accumulation"),
        ("learning_rate", "learning_rate"), ("adam_beta1", "adam_beta1"), ("adam_beta2", "adam_beta2"),
        ("weight_decay", "weight_decay"), ("max_grad_norm", "max_grad_norm"),
    ):  # fmt: skip
        put(name, to, _within(to))
    put("gradient_checkpointing", "gradient_checkpointing", _truth)
    _read_length(draft, section)
    _read_schedule(draft, section)
    _read_optimiser(draft, section)
    _read_dtype(draft, section)
    for name in ("use_cpu", "no_cuda"):
        flag = section.take_flag(name)
        if flag is not None and flag.value:
            draft.put("train.device", "cpu", flag)
        elif flag is not None:
            ledger.unneeded(flag.path, "a GPU is used where there is one")
    order = section.take_text("train_sampling_strategy")
    if order is not None:
        ledger.unneeded(order.path, ORDERED, tell=order.value != "group_by_length")
    grouped = section.take_flag("group_by_length")
    if grouped is not None:
        ledger.unneeded(grouped.path, ORDERED, tell=not grouped.value)
    section.unneeded(UNNEEDED)
    section.refuse(REFUSED)
    section.close("training_args")


def _read_length(draft: Draft, section: Section) -> None:
    steps = chosen(draft, section, "max_steps", _steps)
    epochs = chosen(draft, section, "num_train_epochs", _within("epochs"))
    if steps is not None and steps[1] != [None]:
        if None in steps[1]:
            draft.ledger.refuse(steps[0].path, "must be numbers of steps", "leave -1 out")
            return
        draft.put("space.lora.steps", one_or_choice(steps[1]), steps[0])
        if epochs is not None:
            draft.ledger.unneeded(epochs[0].path, "max_steps takes its place")
        return
    if steps is not None:
        draft.ledger.unneeded(steps[0].path, "it asks for nothing")
    if epochs is not None:
        draft.put("space.lora.epochs", one_or_choice(epochs[1]), epochs[0])
    else:
        draft.default("space.lora.epochs", 3, "Olive's default")


def _steps(value: Any) -> tuple[Any, str]:
    return (None, "") if value in (-1, 0) and not isinstance(value, bool) else _within("steps")(value)


def _read_schedule(draft: Draft, section: Section) -> None:
    node = section.nodes.get("lr_scheduler_type")
    _Putter(draft, section)("lr_scheduler_type", "schedule", _one_of(_SCHEDULES))
    warmed = node is not None and node.value != "constant"
    steps, ratio = (
        chosen(draft, section, "warmup_steps", _within("warmup")),
        chosen(draft, section, "warmup_ratio", _within("warmup")),
    )
    for found, name in ((steps, "warmup_steps"), (ratio, "warmup_ratio")):
        if found is None:
            continue
        if not warmed:
            draft.ledger.unneeded(found[0].path, "the schedule constant has no warm-up: constant_with_warmup has", True)
        elif name == "warmup_ratio" and steps is not None and any(steps[1]):
            draft.ledger.unneeded(found[0].path, "warmup_steps takes its place")
        elif name == "warmup_ratio" and max(found[1]) >= 1:
            draft.ledger.refuse(found[0].path, "must be a share below 1", "write e.g. 0.03")
        elif name == "warmup_steps" and not any(found[1]) and ratio is not None:
            draft.ledger.unneeded(found[0].path, "it asks for nothing")
        else:
            draft.put("space.lora.warmup", one_or_choice(found[1]), found[0])
    if warmed:
        draft.default("space.lora.warmup", 0.03, "Olive's default")


def _read_optimiser(draft: Draft, section: Section) -> None:
    epsilon = section.take_number("adam_epsilon")
    if epsilon is not None and epsilon.value == 1e-8:
        draft.ledger.unneeded(epsilon.path, "it is AdamW's own")
    elif epsilon is not None:
        draft.ledger.refuse(epsilon.path, f"AdamW's epsilon is 1e-8, got {shown(epsilon.value)}", "remove it")
    node = section.take_text("optim")
    if node is None:
        return
    if _OPTIMISERS.fullmatch(node.value):
        draft.ledger.unneeded(node.path, "AdamW trains, with its state in single precision", tell="8bit" in node.value)
    else:
        draft.ledger.refuse(node.path, f"AdamW trains, and not {shown(node.value)}", "write adamw_torch, or remove it")


def _read_dtype(draft: Draft, section: Section) -> None:
    for name, to in (("bf16", "bf16"), ("fp16", "fp16")):
        node = section.take_flag(name)
        if node is None:
            continue
        if node.value and draft.get("space.lora.dtype") is None:
            draft.put("space.lora.dtype", to, node)
        elif node.value:
            draft.ledger.unneeded(node.path, "torch_dtype says it")
        else:
            draft.ledger.unneeded(node.path, "it asks for nothing")
