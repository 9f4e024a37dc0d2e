"""ROUGE-L by script: rouge-score's for English, words with their vowel signs, characters where no spaces are written."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize

from autotune.data.items import countable
from autotune.stages.rouge import folded, scorer, words, words_and_symbols

SCORE = scorer()

# What stands in English text beside ASCII: typographic punctuation, symbols, fractions, emoji.
ENGLISH = st.text(
    st.one_of(
        st.characters(codec="ascii"),
        st.sampled_from(
            "“”‘’‚„–—…«»‹›•·†‡§¶€£¥¢©®™°±×÷≤≥≠→←↑↓✓✗★☆½¼¾²³①⑩№Ⅳ\u00a0\u2009\u200b\ufeff\u00ad\u2028👍👎🏽🎉❤\ufe0f\u200d\u20e3🇩🇪"
        ),
    )
)


@settings(max_examples=500)
@given(ENGLISH, ENGLISH)
def test_english_is_scored_as_by_rouge_score(prediction: str, reference: str) -> None:
    assert words(prediction) == tokenize(prediction, None)
    if words(reference):
        plain = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
        assert SCORE(prediction, reference) == plain


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # Without spaces: the characters of a reader.
        ("今天天气很好。", "今 天 天 气 很 好"),
        ("東京タワーへ、行きました！", "東 京 タ ワ ー へ 行 き ま し た"),
        ("２０２４年のＡＩデータ", "2024 年 の ai デ ー タ"),
        ("สวัสดีครับ", "ส วั ส ดี ค รั บ"),
        ("กำลังดื่มน้ำ ๒๕๖๗", "กำ ลั ง ดื่ ม น้ำ ๒ ๕ ๖ ๗"),
        ("ພາສາລາວ", "ພ າ ສ າ ລ າ ວ"),
        ("ខ្ញុំស្រឡាញ់", "ខ្ញុំ ស្រ ឡា ញ់"),
        ("မြန်မာ", "မြ န် မာ"),
        ("ꆈꌠꉙ", "ꆈ ꌠ ꉙ"),
        # With spaces: words, their vowel signs and points within.
        ("हिन्दी की किताब।", "हिन्दी की किताब"),
        ("நான் தமிழ் பேசுகிறேன்", "நான் தமிழ் பேசுகிறேன்"),
        ("বাংলা ভাষা", "বাংলা ভাষা"),
        ("한국어 문장입니다.", "한국어 문장입니다"),
        ("كِتَابٌ جَمِيلٌ،", "كِتَابٌ جَمِيلٌ"),
        ("می\u200cخواهم بروم", "می\u200cخواهم بروم"),
        ("שָׁלוֹם עוֹלָם", "שָׁלוֹם עוֹלָם"),
        ("བོད་སྐད་", "བོད སྐད"),
        ("Ναι, ΌΧΙ! Да—НЕТ", "ναι όχι да нет"),
        ("Việt Nam: naïve Straßen", "việt nam naïve straßen"),
        ("m\u0300bó g\u0303a", "m\u0300bó g\u0303a"),
        # Mixed.
        ("iPhone手机，12个 👍", "iphone 手 机 12 个"),
        ("वह iPhone-15 है", "वह iphone 15 है"),
        ("don't 3.14 a_b 1\ufe0f\u20e3", "don t 3 14 a b 1"),
    ],
)
def test_tokens_are_what_a_script_counts_in(text: str, tokens: str) -> None:
    for form in ("NFC", "NFD"):
        normal = unicodedata.normalize(form, text)
        assert [unicodedata.normalize("NFC", word) for word in words(normal)] == unicodedata.normalize(
            "NFC", tokens
        ).split(" ")
        assert SCORE(normal, text) == 1


@pytest.mark.parametrize(
    ("prediction", "reference", "score"),
    [
        ("今天天气不好", "今天天气很好", 5 / 6),
        ("天气", "今天天气很好", 2 * 1 * (1 / 3) / (1 + 1 / 3)),
        ("สวัสดีค่ะ", "สวัสดีครับ", 2 * (4 / 6) * (4 / 7) / (4 / 6 + 4 / 7)),
        ("कि", "की", 0),
        ("की किताब", "की कलम", 1 / 2),
        ("ดื่ม", "ดื้ม", 1 / 2),
        ("ﾗｰﾒﾝ ＡＢＣ", "ラーメン abc", 1),
        ("👍", "👍", 1),
        ("👍🏽 🎉", "👍 🎉", 1 / 2),
        ("great 👍", "👍", 2 / 3),
        ("👎", "👍", 0),
        ("great 👎", "great 👍", 1),  # as rouge-score: symbols are no words
        ("½", "½", 1),
        ("!!!", "!!!", 0),
        ("<$>", "<$>", 0),
        ("", "今", 0),
    ],
)
def test_scores_by_hand(prediction: str, reference: str, score: float) -> None:
    assert SCORE(prediction, reference) == pytest.approx(score)


@given(st.text())
def test_what_has_something_to_count_scores_1_against_itself(text: str) -> None:
    assert (len(words_and_symbols(text)) > 0) >= countable(text)
    if countable(text):
        assert SCORE(text, text) == 1


@given(st.text())
def test_no_letter_is_lost(text: str) -> None:
    def letters(of: str) -> list[str]:
        return [letter for letter in of if unicodedata.category(letter)[0] == "L"]

    assert letters("".join(words(text))) == letters(folded(text))
