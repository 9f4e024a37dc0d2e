"""A user's metric in the worker: imported once, called for every item, its mistakes told in one line."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import TONES, Do
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from autotune.analysis.scores import per_item, summarise
from autotune.analysis.statistics import wilson
from autotune.candidate import Recipe
from autotune.data.control import cut_at
from autotune.errors import StageError
from autotune.stages.jobs import ScoreJob
from autotune.stages.own_metric import evaluate, load_metric, nearest_reference, rouge_l, with_references
from autotune.stages.preparation_jobs import MetricJob
from autotune.usercode import find_function

ITEMS = [{"id": f"{n}", "prompt": "Tone:", "completion": f" {tone} "} for n, tone in enumerate(TONES)]
GOOD = "def close(prediction, reference, item):\n    return float(prediction == reference)\n"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Python's path and modules as they were: a worker serves one sweep, and this process many."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if not getattr(sys.modules[name], "__file__", None) or "pytest" in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def own(tmp_path: Path) -> Callable[..., Any]:
    """Write a module and load a function of it: `own("def close(...): ...")`."""

    def load(text: str, metric: str = "my_words:close") -> Any:
        (tmp_path / f"{metric.partition(':')[0]}.py").write_text(text, encoding="utf-8")
        code = find_function(metric, tmp_path)
        return load_metric(metric, code.digest, code.file, code.root)

    return load


def test_it_gets_the_prediction_the_reference_and_the_item(own: Callable[..., Any]) -> None:
    function = own("seen = []\ndef close(prediction, reference, item):\n    seen.append(item)\n"
                   "    return len(prediction) + (reference == item['completion'].strip()) / 2\n")  # fmt: skip
    assert evaluate("my_words:close", function, ["", "a", "ab", "abc"], ITEMS) == [0.5, 1.5, 2.5, 3.5]
    assert function.__globals__["seen"] == ITEMS


def test_it_may_import_what_lies_beside_it(own: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "my_helper.py").write_text("ONE = 1.0\n", encoding="utf-8")
    function = own("import my_helper\ndef close(p, r, i):\n    import my_helper\n    return my_helper.ONE\n")
    assert evaluate("my_words:close", function, ["x"] * 4, ITEMS) == [1.0] * 4


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('no vowel\\nin it')", "score: my_words:close raised ValueError: no vowel on item 0"),
        ("raise SystemExit", "score: my_words:close raised SystemExit on item 0"),
        ("return 1 / 0", "score: my_words:close raised ZeroDivisionError: division by zero on item 0"),
        ("return None", "returned None on item 0; it must return a finite number"),
        ("return '1'", "returned '1' on item 0; it must return a finite number"),
        ("return float('nan')", "returned nan on item 0"),
        ("return float('inf')", "returned inf on item 0"),
        ("return [prediction] * 99", "...  on item 0".replace("  ", " ")),
        ("return 1j", "returned 1j on item 0"),
    ],
)
def test_what_goes_wrong_in_it_names_function_and_item(body: str, says: str, own: Callable[..., Any]) -> None:
    function = own(f"def close(prediction, reference, item):\n    {body}\n")
    with pytest.raises(StageError) as caught:
        evaluate("my_words:close", function, ["x"] * 4, ITEMS)
    assert caught.value.status == "failed"
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_and_truth_values_are_numbers(own: Callable[..., Any]) -> None:
    function = own("import numpy as np\nall_ = iter([np.float32(0.5), np.int64(2), np.bool_(True), True])\n"
                   "def close(prediction, reference, item):\n    return next(all_)\n")  # fmt: skip
    assert evaluate("my_words:close", function, ["x"] * 4, ITEMS) == [0.5, 2.0, 1.0, 1.0]


def test_memory_that_does_not_suffice_is_not_the_functions_mistake(own: Callable[..., Any]) -> None:
    function = own("def close(prediction, reference, item):\n    raise MemoryError\n")
    with pytest.raises(MemoryError):
        evaluate("my_words:close", function, ["x"] * 4, ITEMS)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import nothing_of_this_name\n" + GOOD, "cannot be imported: ModuleNotFoundError: No module named 'nothing_"),
        ("raise SystemExit(3)\n" + GOOD, "cannot be imported: SystemExit: 3"),
        ("from math import pi as close\n", "has no function, but 3.14159"),
        ("if False:\n" + "".join(f"    {line}\n" for line in GOOD.splitlines()), "has no function close"),
        ("from math import sqrt as close\n", "my_words:close must take prediction, reference, item"),
    ],
)
def test_a_module_that_is_of_no_use_is_told_in_one_line(text: str, says: str, own: Callable[..., Any]) -> None:
    with pytest.raises(StageError) as caught:
        own(text)
    assert caught.value.status == "failed"
    assert says in str(caught.value)


def test_a_file_with_the_name_of_a_library_is_refused_and_hides_nothing(own: Callable[..., Any]) -> None:
    with pytest.raises(StageError, match=r"the name json is taken by .*; give json.py another name"):
        own(GOOD, "json:close")
    assert json.loads("1") == 1


def test_a_file_that_changed_while_the_sweep_ran_is_refused(own: Callable[..., Any], tmp_path: Path) -> None:
    own(GOOD)
    code = find_function("my_words:close", tmp_path)
    code.file.write_text(GOOD + "# changed\n", encoding="utf-8")
    load_metric("my_words:close", code.digest, code.file, code.root)  # it is in memory, as it was
    with pytest.raises(StageError, match=r"my_words.py has changed since the sweep began; undo the change"):
        load_metric("my_words:close", "another digest", code.file, code.root)
    code.file.unlink()
    with pytest.raises(StageError, match=r"cannot be read any more"):
        load_metric("my_words:close", "another digest", code.file, code.root)


def test_the_score_stage_calls_it_on_what_the_build_generates(
    own: Callable[..., Any], tmp_path: Path, do: Do, built: Do, tiny_qwen2: Path, items_file: Path
) -> None:
    own("def close(prediction, reference, item):\n    return len(prediction) - len(item['prompt']) / 2\n")
    code = find_function("my_words:close", tmp_path)
    do(MetricJob(metric="my_words:close", code=code.digest, file=code.file, root=code.root))
    folder, _ = built(Recipe(precision="fp32"), tiny_qwen2)
    shared: dict[str, Any] = {
        "source": "s", "provider": "cpu", "data": "d", "max_length": 64, "model_dir": folder, "data_file": items_file,
    }  # fmt: skip
    plain = do(ScoreJob(metric="exact_match", **shared))[0]
    mine = ScoreJob(metric="my_words:close", code=code.digest, code_file=code.file, code_root=code.root, **shared)
    found = json.loads((do(mine)[0] / "outcomes.json").read_text(encoding="utf-8"))
    exact = json.loads((plain / "outcomes.json").read_text(encoding="utf-8"))
    items = json.loads(items_file.read_text(encoding="utf-8"))
    assert found["predicted"] == exact["predicted"]
    assert found["values"] == [len(p) - len(i["prompt"]) / 2 for p, i in zip(found["predicted"], items, strict=True)]
    assert mine.key != mine.model_copy(update={"code": "another"}).key


def test_its_score_is_the_mean_with_an_interval() -> None:
    values = [0.0, 0.25, 0.5, 4.0]
    value, (low, high), n = summarise("my_words:close", {"values": values})
    assert (value, n) == (1.1875, 4)
    assert 0.0 <= low < value < high <= 4.0
    shares = per_item("my_words:close", {"values": values})
    assert shares is not None
    assert shares.tolist() == values
    hits = summarise("my_words:close", {"values": [1.0] * 9})
    assert hits == (1.0, wilson(9, 9), 9)


# --- ROUGE-L, and where generation ends -----------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.text(st.characters(codec="ascii")), st.text(st.characters(codec="ascii")))
def test_rouge_l_of_ascii_is_that_of_the_library(prediction: str, reference: str) -> None:
    plain = RougeScorer(["rougeL"]).score(reference, prediction)["rougeL"].fmeasure
    assert rouge_l()(prediction, reference, {}) == plain


def test_rouge_l_by_hand() -> None:
    # Longest common subsequence "the cat sat": 3 of 4 words predicted, 3 of 5 in the reference.
    assert rouge_l()("the cat sat here", "The cat, he sat down.", {}) == pytest.approx(2 / (4 / 3 + 5 / 3))
    assert rouge_l()("", "words", {}) == 0


def test_rouge_l_counts_the_reference_that_fits_best() -> None:
    items = with_references(
        [
            {"id": "1", "prompt": "Say hello.", "completion": " good day"},
            {"id": "2", "prompt": "Say goodbye.", "completion": " hello"},
            {"id": "3", "prompt": "Say hello.", "completion": " hello there"},
            {"id": "4", "prompt": [{"role": "user", "content": "Say hello."}], "completion": " hello"},
        ]
    )
    assert [item["references"] for item in items] == [[" good day", " hello there"], [" hello"]] * 2
    assert evaluate("rouge_l", rouge_l(), ["hello there", "good day", "good", "hello"], items) == [
        1.0, 0.0, pytest.approx(2 / 3), 1.0
    ]  # fmt: skip
    texts = ["hello there", "hello", "good", "hello"]
    nearest = [nearest_reference(text, item) for text, item in zip(texts, items, strict=True)]
    assert nearest == ["hello there", "hello", "hello there", "hello"]


@pytest.fixture
def generated(do: Do, built: Do, tiny_qwen2: Path, items_file: Path) -> Callable[..., list[str]]:
    """Generate with the tiny model: `generated(max_new_tokens=9)`."""
    folder, _ = built(Recipe(precision="fp32"), tiny_qwen2)

    def run(**options: Any) -> list[str]:
        job = ScoreJob(
            source="s", provider="cpu", data="d", max_length=64, model_dir=folder, data_file=items_file,
            metric="rouge_l", code="rouge-score", **options,
        )  # fmt: skip
        found = json.loads((do(job)[0] / "outcomes.json").read_text(encoding="utf-8"))
        items = json.loads(items_file.read_text(encoding="utf-8"))
        assert found["values"] == [
            rouge_l()(p, i["completion"], {}) for p, i in zip(found["predicted"], items, strict=True)
        ]
        predicted: list[str] = found["predicted"]
        return predicted

    return run


def test_generation_ends_after_so_many_tokens(generated: Callable[..., list[str]]) -> None:
    few, many = generated(max_new_tokens=2), generated(max_new_tokens=20)
    # The last token may end inside of a letter.
    assert all(long.startswith(short.rstrip("\ufffd").strip()) for short, long in zip(few, many, strict=True))
    assert max(map(len, many)) > max(map(len, few))


def test_generation_ends_at_the_first_stop_wherever_in_a_token_it_is(generated: Callable[..., list[str]]) -> None:
    whole = generated(max_new_tokens=20)
    pairs = {text[at : at + 2] for text in whole for at in range(2, len(text) - 2, 3)}
    letters = sorted(pair for pair in pairs if not any(map(str.isspace, pair)))  # outer white space is taken away first
    assert len(letters) > 3
    for stop in (letters[:1], letters[1:4], ["no such text"]):
        for batched in (True, False):
            ended = generated(max_new_tokens=20, stop=tuple(stop), batched=batched)
            assert ended == [cut_at(text, stop).strip() for text in whole]
    assert generated(max_new_tokens=20, stop=tuple(letters[:2])) != whole


def test_more_tokens_than_the_model_holds_are_refused(generated: Callable[..., list[str]]) -> None:
    with pytest.raises(StageError, match=r"new ones do not fit into the model's \d+; lower data.max_new_tokens"):
        generated(max_new_tokens=99_999)
