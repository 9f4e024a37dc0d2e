"""`init` on data as people have it: what it writes is accepted as it is, and says why each line is there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ran

from autotune.cli import parser
from autotune.data.guess import guess
from autotune.errors import Exit
from autotune.sweepfile.resolve import load_sweep

pytestmark = pytest.mark.usefixtures("keeps_workers")

ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("AUTOTUNE_TEST_DATA", ROOT.parent / "shared" / "data"))
MODEL = "smollm2-135m-instruct"


def jsonl(rows: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


def csv_text(head: str, *rows: str) -> str:
    return "\n".join([head, *rows]) + "\n"


WORDS = ("kettle", "lamp", "chair", "tent", "desk", "hose", "boots", "cable", "clock", "table")


def sentence(n: int) -> str:
    return f"The {WORDS[n % 10]} number {n} that I ordered is {'broken' if n % 2 else 'fine'}, and it came on day {n % 28}."


def cell(n: int) -> str:
    """A conversation as JSON, as a cell of a CSV file between quotes holds it."""
    turns = [{"role": "user", "content": sentence(n)}, {"role": "assistant", "content": WORDS[n % 10]}]
    return json.dumps(turns).replace('"', '""')


SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: file, its content, what the sweep must say
    "labels": ("t.csv", csv_text("text,label", *(f'"{sentence(n)}",{("ok", "bad")[n % 2]}' for n in range(80))),
               {"metric": "choice", "completion": " {label}", "prompt": "Text: {text}\nLabel:"}),
    "numbers as labels": ("t.csv", csv_text("review,stars", *(f'"{sentence(n)}",{n % 5 + 1}' for n in range(80))),
                          {"metric": "choice", "completion": " {stars}"}),
    "a number beside its name": (
        "t.jsonl", jsonl([{"label": n % 3, "label_text": WORDS[n % 3], "text": sentence(n), "id": n} for n in range(90)]),
        {"metric": "choice", "completion": " {label_text}", "prompt": "Text: {text}\nLabel text:"}),
    "booleans": ("t.jsonl", jsonl([{"message": sentence(n), "spam": n % 2 == 0} for n in range(60)]),
                 {"metric": "choice", "completion": " {spam}"}),
    "two texts": ("t.tsv", csv_text("id\tpremise\thypothesis\tlabel", *(f"{n}\t{sentence(n)}\t{sentence(n + 7)}\t{WORDS[n % 3]}" for n in range(90))),
                  {"metric": "choice", "prompt": "Premise: {premise}\nHypothesis: {hypothesis}\nLabel:"}),
    "a rare label": ("t.csv", csv_text("text,label", *(f'"{sentence(n)}",{"rare" if n in (3, 50) else WORDS[n % 2]}' for n in range(100))),
                     {"labels": [" kettle", " lamp", " rare"]}),
    "chat messages": ("t.jsonl", jsonl([{"messages": [{"role": "user", "content": sentence(n)}, {"role": "assistant", "content": f"{sentence(n + 1)} Sorry."}]} for n in range(60)]),
                      {"messages": "messages"}),
    "sharegpt": ("t.json", json.dumps([{"conversations": [{"from": "human", "value": sentence(n)}, {"from": "gpt", "value": WORDS[n % 10]}], "id": n} for n in range(60)]),
                 {"messages": "conversations", "metric": "exact_match"}),
    "messages in a cell": ("t.csv", csv_text("id,chat", *(f'{n},"{cell(n)}"' for n in range(60))), {"messages": "chat"}),
    "free answers": ("t.jsonl", jsonl([{"question": sentence(n), "answer": f"item {n * 7} {WORDS[n % 10]}"} for n in range(80)]),
                     {"metric": "exact_match", "prompt": "Question: {question}\nAnswer:", "completion": " {answer}"}),
    "alpaca": ("t.json", json.dumps([{"instruction": sentence(n), "input": sentence(n + 3) if n % 3 else "", "output": sentence(n + 1) + f" {n}"} for n in range(80)]),
               {"prompt": "Instruction: {instruction}{input?\nInput: }\nOutput:", "completion": " {output}"}),
    "plain text": ("t.csv", csv_text("body", *(f'"{sentence(n)}"' for n in range(60))), {"text": "{body}", "metric": "perplexity"}),
    "semicolons and umlauts": ("t.csv", csv_text("Anfrage;Abteilung", *(f"Größe {sentence(n).replace(',', '')};{('Küche', 'Büro')[n % 2]}" for n in range(60))),
                               {"completion": " {Abteilung}", "prompt": "Anfrage: {Anfrage}\nAbteilung:"}),
    "a column that no template can name": ("t.csv", csv_text("a.b,text,label", *(f'x{n},"{sentence(n)}",{WORDS[n % 2]}' for n in range(60))),
                                           {"prompt": "Text: {text}\nLabel:"}),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_what_it_writes_is_planned_as_it_is(shape: str, autotune: Callable[..., Ran]) -> None:
    name, content, expected = SHAPES[shape]
    Path(name).write_text(content, encoding="utf-8")
    done = autotune("init", "--model", MODEL, "--data", name, "--out", "s.yaml")
    assert done.code == Exit.OK, done.err
    assert "autotune plan s.yaml" in done.out
    text = Path("s.yaml").read_text(encoding="utf-8")
    said = yaml.safe_load(text)["data"]
    assert {key: said.get(key) for key in expected} == expected
    assert text.count("#") >= 8, "each line is explained"
    planned = autotune("plan", "s.yaml", "--json")
    assert planned.code == Exit.OK, planned.err
    plan = json.loads(planned.out)
    assert plan["trials"] > 0
    assert plan["data"]["validation"] > 0
    assert not [note for note in plan["data"]["left_out"] if "empty" in note["reason"]], "optional cells are optional"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("xed_four_tones/train.jsonl", {"prompt": "Phrase: {phrase}\nTone:", "completion": " {tone}"}),
        ("snips/train.jsonl", {"prompt": "Text: {text}\nIntent:", "completion": " {intent}"}),
        ("banking77/train.csv", {"prompt": "Text: {text}\nCategory:", "completion": " {category}"}),
    ],
)
def test_public_data_is_understood(file: str, expected: dict[str, str], autotune: Callable[..., Ran]) -> None:
    if not (DATA / file).is_file():
        pytest.skip(f"there is no {DATA / file}")
    done = autotune("init", "--model", MODEL, "--data", DATA / file, "--out", "s.yaml")
    assert done.code == Exit.OK, done.err
    said = yaml.safe_load(Path("s.yaml").read_text(encoding="utf-8"))["data"]
    assert {**expected, "metric": "choice"}.items() <= said.items()
    validation = (DATA / file).with_name("validation.jsonl")
    assert ("validation" in said) == validation.is_file(), "splits that lie beside it are found"
    assert autotune("plan", "s.yaml").code == Exit.OK


def test_a_short_run_of_it_completes(autotune: Callable[..., Ran], tiny_llama: Path) -> None:
    name, content, _ = SHAPES["two texts"]
    Path(name).write_text(content, encoding="utf-8")
    assert autotune("init", "--model", tiny_llama, "--data", name, "--out", "s.yaml").code == Exit.OK
    small = (
        "target.timing.processes=2",
        "target.timing.most=2",
        "target.timing.repeats=0",
        "space.lora.steps=2",
        "limits=[]",
    )
    sets = [word for change in small for word in ("--set", change)]
    done = autotune("run", "s.yaml", "--trials", "1", "--set", "strategy=random", *sets)
    assert done.code == Exit.OK, done.err


LONG_ANSWERS: dict[str, list[str]] = {
    "one of them is long": [f"{n * 7919:08d}" * (40 if n == 77 else 1) for n in range(120)],
    "another script": [f"{'商品坏了，我要退货' * (4 if n == 50 else 2)}{n}" for n in range(80)],
    "letters with marks": [f"{'ชื้อแล้วพัง' * 5} {n}" for n in range(80)],
    "digits": [f"{n * 7919:060d}" * (3 if n == 9 else 1) for n in range(80)],
}


@pytest.mark.parametrize("answers", LONG_ANSWERS)
@pytest.mark.parametrize("chat", [False, True])
def test_every_answer_fits_into_what_it_writes(
    answers: str, chat: bool, autotune: Callable[..., Ran], tiny_llama: Path
) -> None:
    """`plan` refuses a completion that does not fit: the length is told by the longest answer, and by what it is written in."""
    rows: list[dict[str, Any]] = [{"question": sentence(n), "answer": a} for n, a in enumerate(LONG_ANSWERS[answers])]
    if chat:
        roles = (("user", "question"), ("assistant", "answer"))
        rows = [{"messages": [{"role": role, "content": row[name]} for role, name in roles]} for row in rows]
    Path("t.jsonl").write_text(jsonl(rows), encoding="utf-8")
    assert autotune("init", "--model", tiny_llama, "--data", "t.jsonl", "--out", "s.yaml").code == Exit.OK
    planned = autotune("plan", "s.yaml")
    assert planned.code == Exit.OK, planned.err


def test_long_prompts_leave_room_for_the_answers_that_are_generated(
    autotune: Callable[..., Ran], tiny_llama: Path
) -> None:
    """A prompt that is cut to the model's context would leave no room for more tokens than its own answer has."""
    rows = [
        {"question": sentence(n) * (40 if n % 9 == 0 else 1), "answer": f"{n * 7919} " * (1 + n % 7)} for n in range(80)
    ]
    Path("t.jsonl").write_text(jsonl(rows), encoding="utf-8")
    done = autotune("init", "--model", tiny_llama, "--data", "t.jsonl", "--out", "s.yaml")
    assert done.code == Exit.OK, done.err
    said = yaml.safe_load(Path("s.yaml").read_text(encoding="utf-8"))
    assert said["data"]["metric"] == "exact_match"
    planned = autotune("plan", "s.yaml")
    assert planned.code == Exit.OK, planned.err


@pytest.mark.parametrize("chat", [False, True])
def test_answers_that_no_context_holds_are_told(chat: bool, autotune: Callable[..., Ran], tiny_llama: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"question": sentence(n), "answer": sentence(n) * (60 if n == 7 else 1)} for n in range(80)
    ]
    if chat:
        roles = (("user", "question"), ("assistant", "answer"))
        rows = [{"messages": [{"role": role, "content": row[name]} for role, name in roles]} for row in rows]
    Path("t.jsonl").write_text(jsonl(rows), encoding="utf-8")
    done = autotune("init", "--model", tiny_llama, "--data", "t.jsonl", "--out", "s.yaml")
    assert done.code == Exit.OK, done.err
    for text in (done.out, Path("s.yaml").read_text(encoding="utf-8")):
        assert (
            "tokens, and the model takes 512: `autotune plan` counts them, and refuses answers that do not fit" in text
        )
    refused = autotune("plan", "s.yaml")
    assert (refused.code, "every completion must fit into it, and 1 does not" in refused.err) == (Exit.USAGE, True)


def test_another_encoding_is_told_with_the_option_of_this_command(autotune: Callable[..., Ran]) -> None:
    text = csv_text("text,label", *(f"{sentence(n)[:20]} f\u00fcr \u00d6l,{WORDS[n % 2]}" for n in range(60)))
    Path("t.csv").write_bytes(text.encode("cp1252"))
    done = autotune("init", "--model", MODEL, "--data", "t.csv", "--out", "s.yaml")
    assert (done.code, "give --encoding cp1252" in done.err, "data.encoding" in done.err) == (Exit.USAGE, True, False)
    assert (
        autotune("init", "--model", MODEL, "--data", "t.csv", "--out", "s.yaml", "--encoding", "cp1252").code == Exit.OK
    )
    assert autotune("plan", "s.yaml").code == Exit.OK


def test_of_a_few_rows_half_are_held_out_and_of_one_none_can_be(autotune: Callable[..., Ran]) -> None:
    for count in (6, 1):
        rows = csv_text("text,label", *(f"text {n},{'ab'[n % 2]}" for n in range(count)))
        Path(f"t{count}.csv").write_text(rows, encoding="utf-8")
    done = autotune("init", "--model", MODEL, "--data", "t6.csv", "--out", "s6.yaml")
    assert (done.code, load_sweep("s6.yaml").data.holdout) == (Exit.OK, 0.5), done.err
    done = autotune("init", "--model", MODEL, "--data", "t1.csv", "--out", "s1.yaml")
    assert (done.code, Path("s1.yaml").exists(), "s1.yaml" in done.err) == (Exit.USAGE, False, False), done.err
    assert "add rows, or name other rows: --validation FILE" in done.err


def test_the_lengths_of_named_validation_rows_count(autotune: Callable[..., Ran], tiny_llama: Path) -> None:
    shorter = [{"question": sentence(n), "answer": f"that is {n} of them all, I think"} for n in range(40)]
    longer = [{"question": sentence(n) * 4, "answer": f"that is {n} of them all, I think"} for n in range(40, 60)]
    Path("short.jsonl").write_text(jsonl(shorter), encoding="utf-8")
    Path("long.jsonl").write_text(jsonl(longer), encoding="utf-8")
    found = {}
    for name, more in (("a", ()), ("b", ("--validation", "long.jsonl")), ("c", ("--test", "long.jsonl"))):
        done = autotune("init", "--model", str(tiny_llama), "--data", "short.jsonl", "--out", f"{name}.yaml", *more)
        assert done.code == Exit.OK, done.err
        found[name] = load_sweep(f"{name}.yaml").train.max_length
    assert found["b"] == found["c"] > found["a"]


@pytest.mark.parametrize(
    ("out", "name"),
    [
        ("my-sweep.yaml", "my-sweep"), ("mine/Second try.yml", "Second-try"), ("nul.yaml", "sweep-nul"), ("\u00e9.yaml", "sweep"),
        (None, "t-cpu"),
    ],
)  # fmt: skip
def test_a_sweep_is_called_as_the_file_that_was_asked_for(
    out: str | None, name: str, autotune: Callable[..., Ran]
) -> None:
    """So its results are where people look for them: in results/my-sweep."""
    Path("t.csv").write_text(SHAPES["labels"][1], encoding="utf-8")
    done = autotune("init", "--model", MODEL, "--data", "t.csv", *(() if out is None else ("--out", out)))
    assert done.code == Exit.OK, done.err
    assert load_sweep(out or "t-cpu.yaml").name == name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", MODEL), "needs --data"),
        (("--data", "t.csv"), "needs --model"),
        (("--model", MODEL, "--data", "none.csv"), "the file must exist"),
        (("--model", "nobody", "--data", "t.csv"), "no such model"),
        (("--model", MODEL, "--data", "t.csv", "--provider", "gpu"), "did you mean 'cuda'?"),
        (("--model", MODEL, "--data", "ids.csv"), "no column holds texts"),
        (("--model", MODEL, "--data", "t.csv", "--out", "there.yaml"), "is there already"),
        (
            ("--model", MODEL, "--data", "t.csv", "--out", "t.csv", "--force"),
            "its name must say so; write --out t.yaml",
        ),
        (("--model", MODEL, "--data", "t.csv", "--out", "sweep.json"), "its name must say so; write --out sweep.yaml"),
        (("--model", MODEL, "--data", "t.csv", "--out", "my sweep"), "write --out 'my sweep.yaml'"),
        (
            ("--model", MODEL, "--data", "t.csv", "--out", "folder.yaml", "--force"),
            "is a folder, and a file is written",
        ),
        (("--example", "nothing"), "no such example"),
        *(
            (("--example", *name, f"--{option}", "x"), f"so --{option} would be ignored")
            for option in ("model", "data", "validation", "test", "provider", "encoding")
            for name in (["phrase-tone-cpu"], [])
        ),
        (("--example", "phrase-tone-cpu", "--test", "x", "--encoding", "cp1252"), "so --test and --encoding would"),
        (("--example", "--out", "x"), "without the name of an example nothing is written"),
        (("--example", "--force"), "without the name of an example nothing is written"),
    ],
)
def test_what_it_cannot_do_is_said(arguments: tuple[str, ...], said: str, autotune: Callable[..., Ran]) -> None:
    Path("t.csv").write_text(SHAPES["labels"][1], encoding="utf-8")
    Path("ids.csv").write_text("a,b\n,\n,\n", encoding="utf-8")
    Path("there.yaml").write_text("name: mine\n", encoding="utf-8")
    Path("folder.yaml").mkdir()
    done = autotune("init", *arguments)
    assert (done.code, said in done.err, "Traceback" in done.err) == (Exit.USAGE, True, False), done.err
    assert sorted(path.name for path in Path().iterdir()) == ["folder.yaml", "ids.csv", "t.csv", "there.yaml"]
    assert Path("there.yaml").read_text(encoding="utf-8") == "name: mine\n"
    assert Path("t.csv").read_text(encoding="utf-8") == SHAPES["labels"][1]


def test_rows_of_which_most_are_labels_in_every_column(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(
        csv_text("colour,verdict", *(f"a {WORDS[n % 7]} shade,{WORDS[n % 2]}" for n in range(70))), encoding="utf-8"
    )
    found = guess(str(file))
    assert (found.way, found.answer, found.asks) == ("label", "verdict", ("colour",))


def test_the_example_is_planned_where_it_is_written(autotune: Callable[..., Ran]) -> None:
    done = autotune("init", "--example", "phrase-tone-cpu", "--out", "here")
    assert done.code == Exit.OK, done.err
    assert load_sweep("here/phrase-tone-cpu.yaml").resolved() | {"data": None} == load_sweep(
        ROOT / "search_spaces" / "phrase-tone-cpu.yaml"
    ).resolved() | {"data": None}
    assert autotune("plan", "here/phrase-tone-cpu.yaml").code == Exit.OK
    assert autotune("init", "--example", "phrase-tone-cpu", "--out", "here").code == Exit.USAGE
    assert autotune("init", "--example", "phrase-tone-cpu", "--out", "here", "--force").code == Exit.OK


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_every_command(shell: str, autotune: Callable[..., Ran], tmp_path: Path) -> None:
    done = autotune("completion", shell)
    assert done.code == Exit.OK
    commands = next(action for action in parser()._actions if action.dest == "command").choices
    assert commands is not None
    assert {"run", "export", "score", "init"} <= set(commands)
    assert all(name in done.out for name in commands)
    if shell == "bash":
        (tmp_path / "c.sh").write_text(done.out, encoding="utf-8")
        assert subprocess.run(["bash", "-n", "c.sh"], cwd=tmp_path, check=False).returncode == 0
