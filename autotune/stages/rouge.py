"""ROUGE-L for text in any script.

rouge-score's own tokenizer keeps `[a-z0-9]` and drops every other letter. Here a token is what its script counts in:

- a word, where the script puts spaces between words: letters, digits and the marks on them (vowel signs, accents,
  points), up to the next space, punctuation mark or symbol. Of text in ASCII these are rouge-score's tokens.
- a character as a reader sees it (an extended grapheme cluster, UAX #29), where it does not: Chinese, Japanese, Thai,
  Lao, Khmer, Burmese and their neighbours. Characters are the unit of ROUGE for Chinese since LCSTS (Hu et al. 2015),
  and sacrebleu's `zh` tokenizer splits Chinese in the same way.

Symbols (emoji too) are no words, as in rouge-score. Those beyond ASCII count where a reference has nothing else.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

import regex

# Scripts without spaces between words: ideographs and kana, those of Unicode's line breaking class SA (Complex_Context),
# and Javanese and Balinese, whose lines are broken between syllables. The signs in front have no script of their own.
_SCRIPTS = (
    "Han", "Hiragana", "Katakana", "Bopomofo", "Yi", "Tangut", "Nushu", "Khitan_Small_Script",
    "Thai", "Lao", "Khmer", "Myanmar", "Tai_Le", "New_Tai_Lue", "Tai_Tham", "Tai_Viet", "Ahom", "Javanese", "Balinese",
)  # fmt: skip
_UNSPACED = "[ー〆ｰ" + "".join(rf"\p{{Script={script}}}" for script in _SCRIPTS) + "]"
# Marks that draw a circle or choose a picture (keycaps, emoji) say nothing of a word. Joiners (ZWNJ, ZWJ) shape letters
# inside of words of Persian or Hindi.
_MARK = r"(?:[\p{Mn}\p{Mc}--[\p{Variation_Selector}]]|(?<=[^\x00-\x7f])[\u200c\u200d](?=\p{L}))"
_WORD = regex.compile(
    rf"(?V1)(?=\p{{L}}|\p{{N}})(?={_UNSPACED})\X{_MARK}*"
    rf"|(?:(?!{_UNSPACED})(?:\p{{L}}|\p{{Nd}}){_MARK}*)+"
)
_CLUSTER = regex.compile(r"(?V1)\X")
_SHOWN = regex.compile(r"(?V1)[[\p{L}\p{N}\p{S}]--[\x00-\x7f]]")
_COMPATIBLE = regex.compile(r"[\ufb00-\ufdff\ufe70-\ufefc\uff00-\uffef]+")
"""Ligatures, Arabic presentation forms, full and half width: other shapes of the same letters."""


def folded(text: str) -> str:
    """Return lower-case text in which letters that are canonically equivalent, or differ in width, are the same."""
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return unicodedata.normalize("NFC", text.lower())


def words(text: str) -> list[str]:
    """Return the tokens of a text, in lower case."""
    return [found[0] for found in _WORD.finditer(folded(text))]


def words_and_symbols(text: str) -> list[str]:
    """Return the tokens of a text, with each symbol that stands between them (an emoji is one) as a token of its own."""
    text, found, at = folded(text), [], 0
    for word in [*_WORD.finditer(text), None]:
        between = text[at : word.start() if word else len(text)]
        found += [cluster for cluster in _CLUSTER.findall(between) if _SHOWN.search(cluster)]
        if word:
            found.append(word[0])
            at = word.end()
    return found


class _Tokens:
    """A tokenizer as RougeScorer takes it."""

    def __init__(self, tokens: Callable[[str], list[str]]) -> None:
        self.tokens = tokens

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return self.tokens(text)


def scorer() -> Callable[[str, str], float]:
    """Return a function of (prediction, reference): the F-measure of their longest common subsequence of tokens.

    Source: Lin, ROUGE (2004), as the package rouge-score computes it.
    """
    from rouge_score.rouge_scorer import RougeScorer

    plain = RougeScorer(["rougeL"], tokenizer=_Tokens(words))
    symbols = RougeScorer(["rougeL"], tokenizer=_Tokens(words_and_symbols))

    def score(prediction: str, reference: str) -> float:
        chosen = plain if words(reference) else symbols
        return float(chosen.score(reference, prediction)["rougeL"].fmeasure)

    return score
