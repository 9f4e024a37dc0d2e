"""Look at a model, its tokenizer and the data before anything is trained: what would go wrong later is said now.

Nothing is computed with the model: its tensors are compared by name and shape with what its settings ask for. Every text
is encoded twice, by transformers and by ONNX Runtime GenAI, because a built model is used with the second alone.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from autotune.architectures import ropes
from autotune.data.control import found_in, without_end
from autotune.errors import StageError
from autotune.metrics import LABELLED, generates
from autotune.providers import installed
from autotune.stages.answers import same_prompts, unwritten
from autotune.stages.chat_template import changing, chat_text, first_difference, hidden_roles
from autotune.stages.inspection_findings import AS_SAVED, Control, Inspection
from autotune.stages.library_errors import reason
from autotune.stages.padding import padding
from autotune.stages.preparation_jobs import InspectJob
from autotune.stages.protocol import ORT_WHEELS, Result
from autotune.stages.saved_tokenizer import open_tokenizer
from autotune.stages.tensors import weights
from autotune.stages.text import (
    RuntimeTokenizer,
    context_length,
    end_tokens,
    read_items,
)

Prompt = str | list[dict[str, str]]


def inspect(job: InspectJob, out: Path) -> Result:
    """Result: an `Inspection`, as plain data."""
    del out
    found: dict[str, Any] = {}
    try:
        found |= weights(job.model_dir)
    except Exception as error:  # noqa: BLE001 - safetensors raises a bare Exception, and settings can be wrong in any way
        said = reason(error)
        remedy = "correct its config.json, or fetch or save the model again"
        if isinstance(error, KeyError):
            said = f"its files lack the key {said}" if " " not in said else str(error.args[0])
            config = json.loads((job.model_dir / "config.json").read_text(encoding="utf-8"))
            if (key := key_of(config, error.args[0])) is not None:
                said = f"config.json names {error.args[0]!r} ({key}), which transformers does not know"
                remedy = f"correct {key} in its config.json"
            elif any(rope.get("rope_type", rope.get("type")) == "su" for rope in ropes(config)):
                remedy = "write longrope for su in its config.json"
        return Inspection(
            trouble=f"the model cannot be loaded: {said}",
            remedy=remedy,
        ).model_dump(mode="json")
    try:
        tokenizer, named_class = open_tokenizer(job.model_dir)
    except Exception as error:  # noqa: BLE001 - the tokenizers package raises a bare Exception
        return Inspection(
            trouble=f"the tokenizer cannot be loaded: {reason(error)}",
            remedy="save it again: tokenizer.save_pretrained(folder)",
        ).model_dump(mode="json")
    if tokenizer.eos_token_id is None:
        return Inspection(
            trouble="the model's tokenizer names no end-of-text token",
            remedy="set eos_token in its tokenizer_config.json",
        ).model_dump(mode="json")
    found |= _Looker(job, tokenizer, found["rows"]).look()
    if named_class:
        found |= {"named_class": named_class, "encoding": ", ".join(filter(None, (found["encoding"], AS_SAVED)))}
    return Inspection(**found).model_dump(mode="json")


def key_of(settings: Any, value: object) -> str | None:
    """Return the key that has a value in settings, with those that it stands below; None where none has."""
    for key, held in settings.items() if isinstance(settings, dict) else ():
        if held == value and isinstance(held, str):
            return str(key)
        if (inner := key_of(held, value)) is not None:
            return f"{key}.{inner}"
    return None


# --- Tokenizer and data --------------------------------------------------------------------------------------------


def added_around(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens that transformers puts before and behind a text."""
    whole, inner = tokenizer.encode("a"), tokenizer.encode("a", add_special_tokens=False)
    if not inner:
        return (), ()
    at = next((k for k in range(len(whole)) if whole[k : k + len(inner)] == inner), 0)
    return tuple(whole[:at]), tuple(whole[at + len(inner) :])


_Both = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a text by transformers, and by ONNX Runtime GenAI."""
_NOT_RENDERED = "it gives an error"


class _Encoded(NamedTuple):
    id: str
    prompt: _Both
    completion: _Both


class _Looker:
    """One look at a tokenizer and data; what is seen is gathered in `found`, by the names of `Inspection`."""

    def __init__(self, job: InspectJob, tokenizer: Any, rows: int) -> None:
        self.job, self.tokenizer, self.rows = job, tokenizer, rows
        self.found: dict[str, Any] = {}
        self.runtime: RuntimeTokenizer | None = None
        self.used: set[int] = set()
        self.differing, self.texts, self.example = 0, 0, ""
        self.template = ""
        self.hidden: dict[str, None] = {}
        self.dated: str | None = None

    def look(self) -> dict[str, Any]:
        """Return the findings."""
        tokenizer, found = self.tokenizer, self.found
        splits = {name: read_items(file) for (name, _), file in zip(self.job.data, self.job.files, strict=True)}
        self.ends = ends = sorted(end_tokens(self.job.model_dir, tokenizer))
        self.used |= {tokenizer.eos_token_id}
        found["ends_beyond"] = [end for end in ends if not 0 <= end < self.rows]
        named = [str(tokenizer.convert_ids_to_tokens(end)) for end in ends if 0 <= end < len(tokenizer)]
        found["ends"] = [text for text in named if text in tokenizer.all_special_tokens or text in _added(tokenizer)]
        found["tokens"] = max(tokenizer.get_vocab().values()) + 1
        found["counts"] = {name: len(items) for name, items in splits.items()}
        if self.job.ships:
            try:
                self.runtime = RuntimeTokenizer(tokenizer, self.job.model_dir)
            except StageError as error:
                found["unread"] = str(error)
        found["controls"] = self._controls(splits)
        for items in splits.values():
            for item in items:
                item["completion"] = without_end(item["completion"], found["ends"])
        labels = [without_end(label, found["ends"]) for label in self.job.labels]
        try:
            self._texts(splits, labels)
        except (StageError, RuntimeError) as error:
            found["unread"], self.runtime = str(error), None
            self._texts(splits, labels)
        beyond = sorted(token for token in self.used if token >= self.rows)
        found["beyond"] = [str(tokenizer.convert_ids_to_tokens(token)) for token in beyond]
        return found

    def _texts(self, splits: dict[str, list[dict[str, Any]]], labels: list[str]) -> None:
        """Encode and check all texts. Raises StageError if the runtime cannot encode one."""
        self._render(splits)
        self._labels(list(dict.fromkeys(labels)))
        self._encode(splits, labels)

    def _controls(self, splits: dict[str, list[dict[str, Any]]]) -> list[Control]:
        """Return where special tokens are written out in texts; those that only end a completion are told there, too."""
        special = sorted(
            {str(token.content) for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        )
        seen: dict[tuple[str, str, str], list[str]] = {}
        any_of = re.compile("|".join(map(re.escape, filter(None, special)))) if any(special) else None
        for split, items in splits.items():
            for item in items:
                prompt = item["prompt"]
                parts = [prompt] if isinstance(prompt, str) else [message["content"] for message in prompt]
                for where, text in (("prompt", "\0".join(parts)), ("completion", item["completion"])):
                    if any_of is not None and any_of.search(text):
                        for token in found_in(text, special):
                            seen.setdefault((token, split, where), []).append(item["id"])
        return [Control(token=t, split=s, where=w, items=tuple(ids)) for (t, s, w), ids in seen.items()]

    def _render(self, splits: dict[str, list[dict[str, Any]]]) -> None:
        """Put the text of each conversation into its item; take out those that the chat template refuses."""
        refused: list[tuple[str, str, str]] = []
        self.found["conversations"] = 0
        for split, items in splits.items():
            kept = []
            for item in items:
                item["text"] = item["prompt"]
                if not isinstance(item["prompt"], str):
                    self.found["conversations"] += 1
                    try:
                        item["text"] = self._chat(item["prompt"])
                    except Exception as error:  # noqa: BLE001 - a template is a program, and may fail in any way
                        refused.append((split, item["id"], reason(error)))
                        continue
                kept.append(item)
            items[:] = kept
        self.found |= {"refused": refused, "template": self.template}
        self.found |= {"hidden_roles": tuple(self.hidden), "dated": self.dated or ""}

    def _chat(self, messages: list[dict[str, str]]) -> str:
        if self.tokenizer.chat_template is None:
            elsewhere = (self.job.model_dir / "chat_template.json").is_file()
            raise ValueError(
                "the model has none" + ", and its chat_template.json is read by processors alone" * elsewhere
            )
        text = chat_text(self.tokenizer, messages)
        self.hidden |= dict.fromkeys(hidden_roles(messages, text))
        if self.dated is None:
            self.dated = changing(self.tokenizer, messages, text)
        if self.runtime is not None and not self.template:
            try:
                rendered = str(
                    self.runtime.runtime.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
                )
            except RuntimeError as error:
                self.template = f"{_NOT_RENDERED}: {reason(error)}"
            else:
                if rendered != text:
                    self.template = f"{first_difference(text, rendered)}"
        return text

    def _labels(self, labels: list[str]) -> None:
        """Find labels without tokens, and labels with the same tokens."""
        alike: list[tuple[str, ...]] = []
        blank: list[str] = []
        for encode in self._encoders():
            groups: dict[tuple[int, ...], list[str]] = {}
            for label in labels:
                groups.setdefault(encode(label), []).append(label)
            blank += groups.pop((), [])
            alike += [tuple(group) for group in groups.values() if len(group) > 1]
        self.found |= {"alike": list(dict.fromkeys(alike)), "blank": list(dict.fromkeys(blank))}

    def _encoders(self) -> list[Any]:
        """Return the encoders of a completion: that of transformers, and the runtime's if it reads the tokenizer."""
        theirs = [lambda text: tuple(self.tokenizer.encode(text, add_special_tokens=False))]
        runtime = self.runtime
        return theirs if runtime is None else [*theirs, lambda text: tuple(runtime.encode(text))]

    def _encode(self, splits: dict[str, list[dict[str, Any]]], labels: list[str]) -> None:
        """Encode every text both ways; decide which way the sweep goes, and count what `max_length` cuts."""
        tokenizer, runtime = self.tokenizer, self.runtime
        before, behind = added_around(tokenizer)
        plain = any(isinstance(item["prompt"], str) for items in splits.values() for item in items)
        rendered = bool(self.template) and not self.template.startswith(_NOT_RENDERED)
        completions: dict[str, _Both] = {}
        encoded: dict[str, list[_Encoded]] = {}
        for split, items in splits.items():
            encoded[split] = []
            for item in items:
                if not item["prompt"]:  # plain text: all of it may be cut
                    whole = self._both(item["completion"])
                    encoded[split].append(_Encoded(item["id"], ((*before, *whole[0], *behind), whole[1]), ((), ())))
                    continue
                prompt = self._both(item["text"])
                if isinstance(item["prompt"], str):
                    prompt = ((*before, *prompt[0], *behind), prompt[1])
                elif rendered and runtime is not None:
                    text = runtime.apply_chat_template(item["prompt"], add_generation_prompt=True, tokenize=False)
                    prompt = (prompt[0], tuple(runtime.encode(text)))
                if item["completion"] not in completions:
                    completions[item["completion"]] = self._both(item["completion"])
                encoded[split].append(_Encoded(item["id"], prompt, completions[item["completion"]]))
        answers = [completions.get(label) or self._both(label) for label in labels]
        around = ["", ""]
        if runtime is not None and plain:
            around = ["".join(map(str, tokenizer.convert_ids_to_tokens(list(part)))) for part in (before, behind)]
        decoded = any(self._decoded_otherwise(*ways) for ways in completions.values())
        shipped = runtime is not None and (any(around) or rendered or decoded or self.differing > 0)
        self.found |= {
            "around": around, "differing": self.differing, "texts": self.texts, "example": self.example,
            "encoding": runtime_name() if shipped else None,
        }  # fmt: skip
        way = 1 if shipped else 0
        self._fit(encoded, answers, way)
        self._unanswerable(splits, encoded, completions, way)

    def _unanswerable(
        self,
        splits: dict[str, list[dict[str, Any]]],
        encoded: dict[str, list[_Encoded]],
        completions: dict[str, _Both],
        way: int,
    ) -> None:
        """Find what no model could answer, see `answers`."""
        job, tokenizer = self.job, self.tokenizer
        decode = self.runtime.decode if way and self.runtime is not None else tokenizer.decode
        special = {one.token for one in self.found["controls"] if one.where == "completion"}
        if generates(job.metric):
            self.found["unwritten"] = {
                split: unwritten(
                    ((item["id"], item["completion"]) for item in items if not found_in(item["completion"], special)),
                    lambda text: completions[text][way],
                    lambda ids: str(decode(list(ids), skip_special_tokens=True)),
                    self.ends, job.max_new_tokens, job.stop or (),
                )
                for split, items in splits.items() if split != "train"
            }  # fmt: skip
            scored = (one for split, items in encoded.items() if split != "train" for one in items)
            self.found["longest_answer"] = max((len(one.completion[way]) for one in scored), default=0)
        same, unknown = {}, []
        unk = tokenizer.unk_token_id
        for split, items in splits.items():
            asked = []
            for item, one in zip(items, encoded[split], strict=True):
                if not item["prompt"]:
                    continue
                room = max(1, job.max_length - len(one.completion[way]) - 1)
                asked.append((item["id"], one.prompt[way][-room:], str(item["prompt"]), item["completion"]))
                if unk is not None and unk in one.prompt[way] and str(tokenizer.unk_token) not in item["text"]:
                    unknown.append((split, item["id"]))
            same[split] = same_prompts(asked)
        if self.runtime is not None:
            last = {one.prompt[way][-1] for items in encoded.values() for one in items if one.prompt[way]}
            self.found["pad"] = padding(job.model_dir, tokenizer, self.rows, self.used, last)
        self.found |= {"same": same, "unknown": (str(tokenizer.unk_token) if unknown else "", unknown)}

    def _both(self, text: str) -> _Both:
        """Return the tokens of a text by transformers and by the runtime, and count where they differ."""
        ids = tuple(self.tokenizer.encode(text, add_special_tokens=False))
        self.used |= set(ids)
        if self.runtime is None:
            return ids, ids
        shipped = tuple(self.runtime.encode(text))
        self.used |= set(shipped)
        self.texts += 1
        if shipped != ids:
            self.differing += 1
            if not self.example:
                at = next((k for k, (a, b) in enumerate(zip(ids, shipped, strict=False)) if a != b), 0)
                theirs, ours = (
                    " ".join(map(str, self.tokenizer.convert_ids_to_tokens(list(way[at : at + 3]))))
                    for way in (ids, shipped)
                )
                self.example = f"{theirs!r} there, {ours!r} here"
        return ids, shipped

    def _decoded_otherwise(self, ids: tuple[int, ...], shipped: tuple[int, ...]) -> bool:
        """Whether the runtime makes another text of a completion's tokens than transformers does, white space around aside."""
        if self.runtime is None or not generates(self.job.metric) or ids != shipped:
            return False
        theirs = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        return theirs.strip() != self.runtime.decode(list(ids)).strip()

    def _fit(self, splits: dict[str, list[_Encoded]], labels: list[_Both], way: int) -> None:
        """Count the prompts that lose their beginning, and find what does not fit at all; `way`: 0 or 1, of two."""
        job = self.job
        answers = [label[way] for label in labels]
        longest = max(map(len, answers), default=0) if job.metric in LABELLED else 0
        if any(a != b and b[: len(a)] == a for a in answers for b in answers):
            longest += 1  # the end-of-text token that tells one from the other
        cut: dict[str, int] = {}
        reach = 0
        too_long: list[tuple[str, str, int]] = []
        for split, items in splits.items():
            cut[split] = 0
            for item in items:
                answer = max(len(item.completion[way]), 0 if split == "train" else longest)
                room = job.max_length - answer - 1
                cut[split] += len(item.prompt[way]) > room
                reach = max(reach, min(len(item.prompt[way]), room) + answer)
                if room < 1:
                    too_long.append((split, item.id, answer))
        self.found |= {"cut": cut, "too_long": too_long, "longest": max(0, reach)}
        context = context_length(job.model_dir)
        scored = [item for split, items in splits.items() if split != "train" for item in items]
        if generates(job.metric) and scored and context is not None:
            prompts = (min(len(item.prompt[way]), job.max_length - len(item.completion[way]) - 1) for item in scored)
            longest_prompt = max(prompts)
            limit = job.max_new_tokens or max(len(item.completion[way]) for item in scored) + 1
            if longest_prompt + limit > context:
                self.found["too_far"] = (longest_prompt, limit, context)


def _added(tokenizer: Any) -> set[str]:
    return {str(token.content) for token in tokenizer.added_tokens_decoder.values()}


def runtime_name() -> str:
    """Return the name of ONNX Runtime GenAI in a key, with its version."""
    wheel = next((name for name in ORT_WHEELS if installed(name)), ORT_WHEELS[0])
    return f"onnxruntime-genai {installed(wheel)}"
