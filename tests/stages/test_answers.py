"""What generation could never give, and prompts that are the same to a model."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from autotune.stages.answers import same_prompts, unwritten

WORDS = ("<end>", "joy", "JOY", " ", "today", ".", "\n", "fear")


def tokens(text: str) -> tuple[int, ...]:
    """Return the tokens of a text, which are words and single characters; capitals are lost."""
    ids = []
    while text:
        word = max((w for w in WORDS if text.lower().startswith(w)), key=len)
        ids.append(WORDS.index(word))
        text = text[len(word) :]
    return tuple(ids)


def decode(ids: Sequence[int]) -> str:
    return "".join(WORDS[token] for token in ids)


def reasons(
    *completions: str, ends: Sequence[int] = (0,), limit: int | None = None, stops: Sequence[str] = ()
) -> dict[str, list[str]]:
    items = [(str(place), completion) for place, completion in enumerate(completions)]
    return {one.reason: list(one.items) for one in unwritten(items, tokens, decode, ends, limit, stops)}


def test_what_generation_gives_is_answered() -> None:
    assert reasons(" joy", "joy today.", " fear\n") == {}
    assert reasons(" joy today", limit=4) == {}, "the end needs no token"
    assert reasons(" joy", stops=["\n"]) == {}
    assert reasons(" joy\n", stops=["\n"]) == {}, "white space at the end never counts"


def test_what_generation_never_gives_has_its_reason() -> None:
    assert reasons(" joy", " JOY", " JOY") == {"text": ["1", "2"]}
    assert reasons("joy today", "fear", ends=(0, 4)) == {"end": ["0"]}
    assert reasons("joy\ntoday", "fear", stops=["\n"]) == {"stop": ["0"]}
    assert reasons("joy today.", "fear", limit=3) == {"limit": ["0"]}


def test_the_first_of_them_is_shown_with_what_is_written() -> None:
    (text,) = unwritten([("a", " JOY")], tokens, decode, (), None, ())
    assert (text.completion, text.written) == (" JOY", "joy")
    (end,) = unwritten([("a", "joy today")], tokens, decode, (4,), None, ())
    assert end.written == "today"


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        (("b", (1, 2), "other", " fear"), ["a", "b"]),
        (("b", (1, 2), "other", " joy"), []),
        (("b", (1, 2), "text", " fear"), []),
        (("b", (1, 3), "other", " fear"), []),
    ],
)
def test_prompts_are_the_same_where_tokens_are_and_texts_and_answers_are_not(
    second: tuple[str, tuple[int, ...], str, str], expected: list[str]
) -> None:
    assert same_prompts([("a", (1, 2), "text", " joy"), second]) == expected
