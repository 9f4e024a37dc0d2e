"""What of the data no model could answer: completions that its generation never gives, prompts that are one and the same to it.

The best answer is simulated: the completion's own tokens, ended where generation ends, as text again. What is not the
completion then never is, however well a model was trained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile

from autotune.data.control import cut_at
from autotune.stages.inspection_findings import Unwritten

Tokens = tuple[int, ...]


def unwritten(
    items: Iterable[tuple[str, str]],
    tokens: Callable[[str], Tokens],
    decode: Callable[[Sequence[int]], str],
    ends: Collection[int],
    limit: int | None,
    stops: Collection[str],
) -> list[Unwritten]:
    """Return the completions that are not what generation gives at best, by the reason; `items`: (id, completion).

    `tokens` and `decode` go from a completion to tokens and back; generation ends at the tokens `ends`, at the texts
    `stops`, and after `limit` tokens.
    """
    reasons: dict[str, tuple[str, str] | None] = {}
    found: dict[str, list[str]] = defaultdict(list)
    first: dict[str, tuple[str, str]] = {}
    for name, completion in items:
        if completion not in reasons:
            reasons[completion] = _why(completion, tokens(completion), decode, ends, limit, stops)
        if (why := reasons[completion]) is not None:
            found[why[0]].append(name)
            first.setdefault(why[0], (completion, why[1]))
    return [
        Unwritten(reason=reason, items=tuple(names), completion=first[reason][0], written=first[reason][1])
        for reason, names in found.items()
    ]


def _why(
    completion: str,
    ids: Tokens,
    decode: Callable[[Sequence[int]], str],
    ends: Collection[int],
    limit: int | None,
    stops: Collection[str],
) -> tuple[str, str] | None:
    """Return why a completion is not what is generated at best, and that; None where it is."""
    wanted = completion.strip()
    before_end = tuple(takewhile(lambda token: token not in ends, ids))
    written = cut_at(decode(before_end[:limit]), stops).strip()
    if written == wanted:
        return None
    if decode(ids).strip() != wanted:
        return "text", decode(ids).strip()
    if before_end != ids:
        return "end", decode(ids[len(before_end) : len(before_end) + 1])
    if cut_at(decode(ids), stops).strip() != wanted:
        return "stop", written
    return "limit", written


def same_prompts(items: Iterable[tuple[str, Tokens, str, str]]) -> list[str]:
    """Return the ids of items whose prompts are other texts and the same tokens, although their answers differ.

    `items`: id, tokens of the prompt, its text, completion.
    """
    groups: dict[Tokens, list[tuple[str, str, str]]] = defaultdict(list)
    for name, ids, text, completion in items:
        groups[ids].append((name, text, completion))
    return [
        name
        for group in groups.values()
        if len({text for _, text, _ in group}) > 1 and len({completion for _, _, completion in group}) > 1
        for name, _, _ in group
    ]
