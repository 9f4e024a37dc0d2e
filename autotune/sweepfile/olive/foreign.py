"""Models that are not taken because they generate no text, told by what a file says of them: its task, its class, its name.

What else such a file says leads nowhere, so its user is told of the model, and of passes without an equal, alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autotune.errors import shown
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.ledger import Entry
from autotune.sweepfile.olive.sections import Node, Section

_TASKS: Mapping[str, str] = {
    **dict.fromkeys(
        ("text-classification", "sequence-classification", "token-classification", "ner", "fill-mask", "masked-lm",
         "feature-extraction", "text-embedding", "sentence-similarity", "sentence-embedding", "question-answering",
         "zero-shot-classification", "multiple-choice", "next-sentence-prediction", "text-ranking"),
        "encoder models",
    ),
    **dict.fromkeys(
        ("text2text-generation", "translation", "summarization"), "models with an encoder and a decoder",
    ),
    **dict.fromkeys(
        ("image-classification", "zero-shot-image-classification", "image-feature-extraction", "image-segmentation",
         "semantic-segmentation", "mask-generation", "object-detection", "zero-shot-object-detection", "depth-estimation",
         "image-to-image", "text-to-image", "image-to-text", "image-text-to-text", "visual-question-answering", "vision",
         "keypoint-detection"),
        "models of images",
    ),
    **dict.fromkeys(
        ("automatic-speech-recognition", "audio-classification", "speech-recognition", "text-to-speech", "text-to-audio",
         "audio-xvector", "audio-frame-classification"),
        "models of sound",
    ),
}  # fmt: skip
"""Kinds of models that are not taken, by the task that transformers and Optimum have for them."""
_OF_TEXT = ("encoder models", "models with an encoder and a decoder")
_CLASS = re.compile(
    r"(?:Bert|Roberta|Deberta|Electra|MPNet|Albert)\w*|"
    r"\w+For(?:SequenceClassification|TokenClassification|MaskedLM|QuestionAnswering|MultipleChoice|ImageClassification|CTC)"
)
_NAME = re.compile(r"(?:[a-z]*(?:bert|berta|electra)(?:v[0-9])?|bge|minilm|mpnet)")
_SIZED = ("base", "large", "xlarge", "xxlarge", "small")
_REMEDY = "name a language model, which chooses among labels as completions here; this one stays with Olive"
WHY = "its model is not taken"


def refuse_foreign(draft: Draft, task: Node | None, model: Node | None, kind: Node | None) -> None:
    """Refuse a model that generates no text. `kind`: the class that the file names."""
    passes = draft.ledger.document.get("passes")
    what = _TASKS.get(_plain(task.value)) if task is not None else None
    if what in _OF_TEXT and (builds_text(passes) or trains(passes)):
        what = None  # a language model has such a task in files of some authors, and is exported as one
    if task is not None and what is not None:
        rule = f"{shown(task.value)} is a task of {what}, which are not taken: models that generate text are"
        _refuse(draft, task, rule)
        return
    for node, matches in ((kind, _names_encoder_class), (model, _names_encoder)):
        if node is not None and matches(node.value):
            rule = f"{shown(node.value)} is an encoder by its name, and encoder models are not taken: those that generate text are"
            _refuse(draft, node, rule)
            return


def _refuse(draft: Draft, node: Node, rule: str) -> None:
    draft.ledger.refuse(node.path, rule, _REMEDY)
    draft.foreign = node.path


def keep_what_matters(draft: Draft) -> None:
    """Say of every key but the model's refusal and those of passes without an equal that it is not needed."""

    def matters(entry: Entry) -> bool:
        return entry.path == draft.foreign or (entry.path[0] == "passes" and entry.path[-1] == "type")

    draft.ledger.set_aside(WHY, matters)
    for path, entry in draft.ledger.entries.items():
        if entry.fate == "refused" and path != draft.foreign:
            draft.ledger.entries[path] = replace(entry, remedy="use a language model first: the file's is not taken")


def builds_text(passes: Any) -> bool:
    """Whether a file has the pass ModelBuilder, which exports models that generate text whatever their task says."""
    return any(kind.endswith(("modelbuilder", "genaimodelexporter")) for kind in _kinds(passes))


def trains(passes: Any) -> bool:
    """Whether a file has a pass that trains an adapter."""
    return any("lora" in kind for kind in _kinds(passes))


def _kinds(passes: Any) -> list[str]:
    values = list(passes.values()) if isinstance(passes, Mapping) else passes if isinstance(passes, list) else []
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return [str(part.get("type")).lower() for part in parts if isinstance(part, Mapping)]


def _plain(task: str) -> str:
    return task.lower().replace("_", "-").removesuffix("-with-past")


def _names_encoder_class(value: Any) -> bool:
    return isinstance(value, str) and _CLASS.fullmatch(value) is not None


def _names_encoder(value: Any) -> bool:
    """Whether the last part of a model's name has the name of a family of encoders among its words."""
    if not isinstance(value, str):
        return False
    words = re.split(r"[-_. ]", value.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower())
    named = [word for word in words if _NAME.fullmatch(word)]
    return any(word != "albert" or not set(words).isdisjoint(_SIZED) for word in named)


def class_of(section: Section) -> Node | None:
    """Take the class that an input model names out of its section."""
    node = section.take_text("model_class")
    if node is not None:
        section.ledger.unneeded(node.path, "config.json says the class of the model")
    return node
