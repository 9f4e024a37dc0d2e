from __future__ import annotations

import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autotune.analysis.limits import Limit, parse_limit
from autotune.analysis.statistics import Interval
from autotune.metrics import METRICS

KNOWN = (*METRICS, "my_tasks:score")
FINITE = st.floats(allow_nan=False, allow_infinity=False)
MODEST = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("text", "metric", "op", "constant", "factor"),
    [
        ("size_mb <= 200", "size_mb", "<=", 200.0, 0.0),
        ("size_mb<=200", "size_mb", "<=", 200.0, 0.0),
        ("accuracy >= base", "accuracy", ">=", 0.0, 1.0),
        ("accuracy >= base + 0.2", "accuracy", ">=", 0.2, 1.0),
        ("accuracy>=base-.05", "accuracy", ">=", -0.05, 1.0),
        ("perplexity <= base * 1.1", "perplexity", "<=", 0.0, 1.1),
        ("itl_ms_p50 <= 0.5*base", "itl_ms_p50", "<=", 0.0, 0.5),
        ("  load_s\t<=  1.5e-1 ", "load_s", "<=", 0.15, 0.0),
        ("decode_tps >= 1E+2", "decode_tps", ">=", 100.0, 0.0),
        ("my_tasks:score >= -3.", "my_tasks:score", ">=", -3.0, 0.0),
    ],
)
def test_parse(text: str, metric: str, op: str, constant: float, factor: float) -> None:
    limit = parse_limit(text, KNOWN)
    assert (limit.metric, limit.op, limit.constant, limit.factor) == (metric, op, constant, factor)
    assert limit.needs_base == (factor != 0)
    assert str(limit) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy > 0.9", "must compare with <= or >=, got 'accuracy > 0.9'; write >="),
        ("size_mb < 9", "; write <="),
        ("size_mb =< 9", "; write <="),
        ("accuracy ≥ 0.9", "; write >="),
        ("accuracy = 0.9", "; write <= or >="),
        ("accuracy == 0.9", "; write <= or >="),
        ("acuracy >= 0.9", "unknown metric 'acuracy' in a limit, got 'acuracy >= 0.9'; did you mean 'accuracy'"),
        ("Accuracy >= 0.9", "did you mean 'accuracy'"),
        ("zzz >= 0.9", "use one of: accuracy, custom, decode_tps"),
        ("0.9 <= accuracy", "must start with its metric"),
        ("accuracy", "must be a metric, <= or >=, and a bound"),
        ("", "must be a metric, <= or >=, and a bound"),
        (">= 0.9", "must be a metric, <= or >=, and a bound"),
        ("accuracy >=", "the bound of a limit must be a finite number, base"),
        ("accuracy >= BASE", "the bound of a limit"),
        ("accuracy >= base / 2", "the bound of a limit"),
        ("accuracy >= 0.2 + base", "the bound of a limit"),
        ("accuracy >= base + base", "the bound of a limit"),
        ("accuracy >= base 0.1", "the bound of a limit"),
        ("accuracy >= 90%", "the bound of a limit"),
        ("accuracy >= nan", "the bound of a limit"),
        ("accuracy >= inf", "the bound of a limit"),
        ("accuracy >= -inf", "the bound of a limit"),
        ("accuracy >= 1_0", "the bound of a limit"),
        ("accuracy >= 1e999", "must be finite"),
        ("accuracy >= base * 1e999", "must be finite"),
    ],
)
def test_refused_with_the_rule_and_the_remedy(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared as it stands)
        parse_limit(text, KNOWN)
    assert message in str(caught.value)


def test_threshold_and_gap() -> None:
    more = parse_limit("accuracy >= base + 0.2", KNOWN)
    assert more.threshold(0.6) == pytest.approx(0.8)
    assert more.gap(0.75, 0.6) == pytest.approx(0.05)
    assert more.gap(0.85, 0.6) == pytest.approx(-0.05)
    assert more.threshold(None) is None
    assert more.threshold(math.nan) is None
    assert more.gap(0.75, None) is None
    assert more.gap(None, 0.6) is None
    assert more.gap(math.nan, 0.6) is None
    less = parse_limit("size_mb <= 200", KNOWN)
    assert less.threshold(None) == 200.0
    assert less.gap(250.0, None) == 50.0
    assert less.gap(150.0, None) == -50.0


def test_rounding_breaks_no_limit() -> None:
    assert parse_limit("accuracy >= base + 0.2", KNOWN).gap(0.3, 0.1) == 0.0  # 0.1 + 0.2 is above 0.3
    assert parse_limit("accuracy <= base - 0.9", KNOWN).gap(0.1, 1.0) == 0.0  # 1.0 - 0.9 is below 0.1
    assert parse_limit("accuracy <= base - 0.3", KNOWN).gap(0.0, 0.1 + 0.2 - 1e-16) == 0.0
    assert parse_limit("accuracy >= 0.9", KNOWN).gap(0.9 - 1e-9, None) == pytest.approx(1e-9)
    assert parse_limit("accuracy >= 0", KNOWN).gap(0.0, None) == 0.0


@pytest.mark.parametrize(
    ("text", "low", "high", "expected"),
    [
        ("accuracy >= 0.9", 0.85, 0.95, True),
        ("accuracy >= 0.9", 0.9, 0.95, False),
        ("accuracy >= 0.9", 0.85, 0.9, True),
        ("accuracy >= 0.9", 0.8, 0.89, False),
        ("size_mb <= 20", 20.0, 21.0, True),
        ("size_mb <= 20", 19.0, 20.0, False),
        ("size_mb <= base * 2", 19.0, 21.0, False),
    ],
)
def test_uncertain_where_the_interval_straddles(text: str, low: float, high: float, expected: bool) -> None:
    assert parse_limit(text, KNOWN).uncertain(Interval(low, high), None) is expected


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, float, float]:
    """A limit's text, with its constant and its factor."""
    number, gap = draw(MODEST), draw(st.sampled_from(["", " ", "  "]))
    bound, constant, factor = draw(
        st.sampled_from(
            [
                (f"{number!r}", number, 0.0),
                ("base", 0.0, 1.0),
                (f"base{gap}+{gap}{number!r}", number, 1.0),
                (f"base{gap}-{gap}{number!r}", -number, 1.0),
                (f"base{gap}*{gap}{number!r}", 0.0, number),
                (f"{number!r}{gap}*{gap}base", 0.0, number),
            ]
        )
    )
    metric, op = draw(st.sampled_from(KNOWN)), draw(st.sampled_from(["<=", ">="]))
    return f"{gap}{metric}{gap}{op}{gap}{bound}{gap}", constant, factor


@settings(deadline=None)
@given(texts(), MODEST, MODEST)
def test_a_limit_survives_its_text(case: tuple[str, float, float], value: float, base: float) -> None:
    text, constant, factor = case
    limit = parse_limit(text, KNOWN)
    assert (limit.constant, limit.factor, str(limit)) == (constant, factor, text)
    assert parse_limit(str(limit), KNOWN) == limit
    threshold, gap = limit.threshold(base), limit.gap(value, base)
    assert threshold is not None
    assert gap is not None
    assert threshold == pytest.approx(constant + factor * base)
    scale = max(abs(value), abs(constant), abs(factor * base))
    assert gap == pytest.approx((value - threshold) * (1 if limit.op == "<=" else -1), abs=1e-11 * scale)


@settings(deadline=None)
@given(
    st.text(max_size=30)
    | st.text("<>=!+-*./ \tbase0123456789ein", max_size=30)
    | st.builds("{} {} {}".format, st.sampled_from(KNOWN), st.sampled_from(["<=", ">=", "<", "="]), st.text())
)
def test_any_text_is_a_limit_or_a_value_error(text: str) -> None:
    try:
        limit = parse_limit(text, KNOWN)
    except ValueError:
        return
    assert str(limit) == text
    assert limit.metric in KNOWN
    assert math.isfinite(limit.constant)
    assert math.isfinite(limit.factor)


def test_long_texts_are_refused_quickly() -> None:
    with pytest.raises(ValueError, match="bound of a limit"):
        parse_limit(f"accuracy >= {'1' * 100_000}x", KNOWN)


@settings(deadline=None)
@given(st.sampled_from(["<=", ">="]), FINITE, st.floats(0, 1e9), MODEST)
def test_uncertain_exactly_where_the_ends_disagree(op: str, low: float, width: float, threshold: float) -> None:
    assume(math.isfinite(low + width))
    limit = Limit("", "accuracy", "<=" if op == "<=" else ">=", threshold)
    gaps = [limit.gap(low, None), limit.gap(low + width, None)]
    kept = [gap is not None and gap <= 0 for gap in gaps]
    assert limit.uncertain(Interval(low, low + width), None) == (kept[0] != kept[1])
