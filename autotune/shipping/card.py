"""Writes the model card, README.md of an export: metadata for the Hugging Face hub, then a text for people.

The metadata is YAML as `huggingface_hub.ModelCard` loads it. It lists the scores as `model-index`, each with its interval.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from autotune.data.schema import HUB_TEXT
from autotune.metrics import LABELLED, is_function, is_task, task_of
from autotune.shipping.facts import Facts, Score, Verified, meaning_of

_NUMBERS = ("itl_ms_p50", "ttft_ms_p50", "decode_tps", "size_mb", "peak_memory_mb", "gpu_memory_mb", "load_s")
_TYPES = {"rouge_l": "rouge", "f1_micro": "f1"}
"""Scores that the library `evaluate` calls otherwise."""


def card(facts: Facts, verified: Verified, parts: Mapping[str, str]) -> str:
    """Return the card. `parts`: the files and folders of the export, each with a description."""
    text = "\n".join([*_body(facts, verified, parts)])
    return f"---\n{yaml.safe_dump(_metadata(facts), sort_keys=False, allow_unicode=True, width=1000)}---\n\n{text}\n"


# --- for the hub -----------------------------------------------------------------------------------------------------


def _metadata(facts: Facts) -> dict[str, Any]:
    recipe, lora = facts.candidate.recipe, facts.candidate.lora
    if recipe is None:
        relation, library = "adapter", "peft"
    else:
        relation, library = ("finetune" if lora is not None else "quantized"), "onnxruntime-genai"
    tags = ["autotune"]
    tags += ["onnx", "onnxruntime-genai", recipe.precision] if recipe is not None else []
    tags += ["lora"] if lora is not None else []
    found: dict[str, Any] = {"base_model": facts.base_model, "base_model_relation": relation}
    if facts.licence is not None:
        found["license"] = facts.licence
    found |= {"library_name": library, "pipeline_tag": "text-generation", "tags": tags}
    if datasets := _datasets(facts):
        found["datasets"] = datasets
    scores = facts.scores()
    if scores:
        found["metrics"] = [_TYPES.get(scores[0].metric, scores[0].metric)]
        found["model-index"] = [{"name": facts.name, "results": [_result(facts, score) for score in scores]}]
    return found


def _result(facts: Facts, score: Score) -> dict[str, Any]:
    labelled = facts.metric in LABELLED
    metric: dict[str, Any] = {"type": _type(facts, score), "value": round(score.value, 6)}
    metric["name"] = f"{score.metric} on {score.split}"
    arguments: dict[str, Any] = {"items": score.items}
    if score.interval is not None:
        low, high = (round(end, 6) for end in score.interval)
        arguments |= {"confidence": 0.95, "low": low, "high": high}
    metric["args"] = arguments
    return {
        "task": {"type": "text-classification" if labelled else "text-generation"},
        "dataset": {"name": _source(facts, score.split), "type": _dataset_type(facts), "split": score.split},
        "metrics": [metric],
    }


def _type(facts: Facts, score: Score) -> str:
    if is_task(facts.metric):
        return task_of(facts.metric)[1] or "lm_eval"
    if is_function(facts.metric):
        return facts.metric.rpartition(":")[2]
    return _TYPES.get(score.metric, score.metric)


def _sources(facts: Facts) -> dict[str, str]:
    """Return the source of each split: a dataset of the hub, or the name of a file without its folders."""
    data = facts.sweep["data"]
    found = {}
    for split in ("train", "validation", "test"):
        match data.get(split):
            case str() as text:
                hub = HUB_TEXT.fullmatch(text)
                found[split] = text if hub else Path(text.replace("\\", "/")).name
            case {"dataset": name, "split": of, **more}:
                config = more.get("config")
                found[split] = f"{name}{f'/{config}' if config else ''}:{of}"
    return found


def _source(facts: Facts, split: str) -> str:
    if is_task(facts.metric):
        return task_of(facts.metric)[0]
    sources, shares = _sources(facts), {"validation": "holdout", "test": "test_holdout"}
    if split in sources:
        return sources[split]
    share = facts.sweep["data"].get(shares.get(split, ""))
    return f"{share or 'a part'} of {sources.get('train', 'train')}, held out by content"


def _datasets(facts: Facts) -> list[str]:
    """Return the names of the splits' datasets on the hub, each once."""
    data = facts.sweep["data"]
    names = []
    for split in ("train", "validation", "test"):
        match data.get(split):
            case str() as text if found := HUB_TEXT.fullmatch(text):
                names.append(found[1])
            case {"dataset": name}:
                names.append(str(name))
    return list(dict.fromkeys(names))


def _dataset_type(facts: Facts) -> str:
    return next(iter(_datasets(facts)), "task" if is_task(facts.metric) else "local")


# --- for people ------------------------------------------------------------------------------------------------------


def _body(facts: Facts, verified: Verified, parts: Mapping[str, str]) -> Iterator[str]:
    yield f"# {facts.name}\n"
    yield _what(facts) + "\n"
    yield "## Results\n"
    yield from _results(facts)
    yield "\n## Use it\n"
    yield from _use(facts, parts)
    yield "\n## Data\n"
    yield from _data(facts)
    yield "\n## How it was measured\n"
    yield from _how(facts, verified)
    yield "\n## How it was made\n"
    yield from _made(facts)


def _what(facts: Facts) -> str:
    recipe, lora = facts.candidate.recipe, facts.candidate.lora
    model = (
        f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.on_hub else f"`{facts.base_model}`"
    )
    made = []
    if lora is not None:
        made.append(f"fine-tuned with {'QLoRA' if lora.quantized_base != 'none' else 'LoRA'}")
    if recipe is not None:
        target = facts.target.get("provider", "cpu")
        made.append(f"built in {recipe} for ONNX Runtime GenAI on the execution provider `{target}`")
    licence = facts.licence or "not known here: that of the base model and of the data applies"
    return f"{model}, {' and '.join(made) or 'as it is'}. Licence: {licence}."


def _results(facts: Facts) -> Iterator[str]:
    yield "| | this model | untouched model |"
    yield "|---|---|---|"
    others = {score.split: score for score in facts.base_scores()}
    for score in facts.scores():
        other = "this is it" if facts.is_base else _shown(others[score.split]) if score.split in others else ""
        yield f"| {score.metric} on {score.split} ({score.items} items) | {_shown(score)} | {other} |"
    for name in _NUMBERS:
        value, interval = facts.row.number(name), facts.row.interval(name)
        theirs = facts.base.number(name) if facts.base is not None else None
        if value is not None:
            ends = f" [{_number(interval.low)}, {_number(interval.high)}]" if interval is not None else ""
            yield f"| {name} | {_number(value)}{ends} | {'' if theirs is None else _number(theirs)} |"
    yield ""
    for split in ("test", "validation"):
        difference = facts.difference(split)
        if difference is None:
            continue
        what = "the mean negative log-likelihood of a token (nats)" if facts.metric == "perplexity" else "the score"
        low, high = map(_signed, difference.interval)
        text = (
            f"On the same {difference.items} items of {split}, {what} is {_signed(difference.value)} [{low}, {high}] beside "
            "the untouched model's"
        )
        if difference.only_this is not None:
            text += f"; {difference.only_this} items only this model gets right, {difference.only_other} only the untouched one"
        yield text + ("." if difference.sure else ": no clear difference.")
    for split, anew in facts.anew.items():
        yield (
            f"This model was made again for this export, and {anew.differing} of {anew.score.items} answers on {split} "
            "are not those of the sweep: the scores above are of this copy."
        )


def _use(facts: Facts, parts: Mapping[str, str]) -> Iterator[str]:
    yield from (f"- `{name}`: {what}" for name, what in parts.items())
    if facts.candidate.recipe is not None:
        yield "\n```bash\npip install onnxruntime-genai\npython run.py --help\n```"
    else:
        yield "\n```bash\npip install transformers peft\npython run.py --help\n```"


def _data(facts: Facts) -> Iterator[str]:
    data = facts.sweep["data"]
    yield "Known by name here; the digests are of the items as they were used.\n"
    yield "| split | source | digest of its items |"
    yield "|---|---|---|"
    splits = ["train", *(score.split for score in reversed(facts.scores()))]
    for split in splits:
        digest = facts.inputs.get(split)
        yield f"| {split} | {_cell(_source(facts, split))} | {f'`{digest}`' if digest else ''} |"
    yield ""
    if data.get("where"):
        told = "; ".join(f"`{_code(name)}`: `{_code(str(value))}`" for name, value in data["where"].items())
        yield f"Rows whose cells are these were taken: {told}.\n"
    if data.get("text") is not None:
        yield f"Plain text: `{_code(data['text'])}`."
    elif data.get("prompt") is not None:
        yield f"Prompt: `{_code(data['prompt'])}`, completion: `{_code(data['completion'])}`."
    elif isinstance(data.get("messages"), str):
        yield f"Prompt: the conversation in the column `{_code(data['messages'])}` up to its last turn, by the chat template."
    elif all(isinstance(one, str) for one in data.get("messages") or ()):
        columns = ", ".join(f"`{_code(name)}`" for name in data.get("messages") or ())
        yield f"Prompt: the conversation in the columns {columns} up to its last turn, by the chat template."
    else:
        turns = "; ".join(f"{turn['role']}: `{_code(turn['content'])}`" for turn in data.get("messages") or ())
        yield f"Prompt, by the chat template: {turns}."


def _how(facts: Facts, verified: Verified) -> Iterator[str]:
    hardware = facts.machine.get("hardware") or {}
    column = facts.scores()[0].metric if facts.scores() else None
    if column is not None:
        yield f"- {column}: {meaning_of(column)}; intervals are of 95 % over the items. The choice was made on validation"
        yield "  items; test items, where there are any, were looked at once, at the end."
    if facts.row.number("itl_ms_p50") is not None:
        target = facts.target
        work: Mapping[str, Any] = target.get("workload") or next(iter((target.get("workloads") or {}).values()), {})
        lengths = f"a prompt of {work.get('prompt_tokens')} tokens, {work.get('new_tokens')} new ones, batch {work.get('batch')}"
        yield f"- Times and memory: fresh processes that hold nothing but ONNX Runtime ({lengths}); intervals are of 95 % over"
        yield f"  {facts.row.processes or 'the'} processes. `itl_ms_p50`: median time between tokens; `ttft_ms_p50`: to the first token."
    if hardware:
        yield f"- Machine: {hardware.get('processor')}, {hardware.get('cores')} cores, {hardware.get('system')}."
    packages = facts.machine.get("packages") or {}
    versions = [
        f"{name} {packages[name]}"
        for name in packages
        if name.startswith(("onnxruntime", "torch", "transformers", "peft", "autotune"))
    ]
    if versions:
        yield f"- Versions: {', '.join(versions)}."
    if verified.why_not:
        yield f"- This folder was not tried after it was written: {verified.why_not}."
    elif verified.wrong:
        yield f"- **This folder does not answer as recorded**: {len(verified.wrong)} of {verified.items} items differ."
    elif verified.items:
        yield f"- Loaded from this folder by onnxruntime-genai alone and given prompts as text, it answered {verified.items} items as recorded."


def _made(facts: Facts) -> Iterator[str]:
    yield f"By autotune in the sweep `{facts.sweep.get('name')}`, candidate `{facts.candidate.id}`;"
    yield "`reproduce.yaml` is a sweep of this candidate alone.\n"
    yield "| setting | value |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_cell(str(value))} |" for name, value in facts.candidate.columns().items())


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and abs(value) < 1000 else f"{value:,.0f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def _shown(score: Score) -> str:
    return f"{score.value:.3f}" + (f" [{score.interval.low:.3f}, {score.interval.high:.3f}]" if score.interval else "")


def _code(text: str) -> str:
    """Return a text in a form that Markdown takes between backquotes on one line."""
    return text.replace("\n", "\\n").replace("`", "'")


def _cell(text: str) -> str:
    return _code(text).replace("|", "\\|")
