"""A user's metric is found and checked as text: nothing of it runs here."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.errors import UsageError
from autotune.usercode import Code, digest_code, find_function

GOOD = "def close(prediction, reference, item):\n    return 1.0\n"
BOMB = "raise SystemExit('this module was run')\n"


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        file = root / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def refusal(metric: str, root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        find_function(metric, root)
    return str(caught.value)


def test_a_module_beside_the_sweep_file_is_found_and_not_run(tmp_path: Path) -> None:
    write(tmp_path, words=GOOD + BOMB)
    found = find_function("words:close", tmp_path)
    assert (found.file, found.root) == (tmp_path / "words.py", tmp_path)


def test_dotted_names_are_files_in_folders_and_their_packages_are_not_run(tmp_path: Path) -> None:
    write(tmp_path, deep__words=GOOD, pack__inner__words=GOOD)
    (tmp_path / "pack" / "__init__.py").write_text(BOMB, encoding="utf-8")
    assert find_function("deep.words:close", tmp_path).file == tmp_path / "deep" / "words.py"
    assert find_function("pack.inner.words:close", tmp_path).file.name == "words.py"
    (tmp_path / "pack" / "__init__.py").write_text(GOOD + BOMB, encoding="utf-8")
    assert find_function("pack:close", tmp_path).file.name == "__init__.py"


def test_an_installed_module_is_found_and_one_beside_the_sweep_file_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere, root = tmp_path / "site", tmp_path / "root"
    root.mkdir()
    write(elsewhere, my_package__scores=GOOD)
    monkeypatch.syspath_prepend(elsewhere)
    installed = find_function("my_package.scores:close", root)
    assert (installed.file, installed.root) == (elsewhere / "my_package" / "scores.py", None)
    write(root, my_package__scores=GOOD)
    assert find_function("my_package.scores:close", root).root == root


@pytest.mark.parametrize(
    "text",
    [
        "def close(prediction, reference, item): ...",
        "def close(a, b, c, d=None, *, e=1): ...",
        "def close(*everything): ...",
        "def close(prediction, reference, /, item, **more): ...",
        "@wrapped\ndef close(): ...",
        "from other import close",
        "from other import *",
        "close = lambda p, r, i: 0.0",
        "class close:\n    def __new__(cls, p, r, i): return 0.0",
        "if True:\n    def close(p, r, i): ...",
        "for close in (max,): ...",
    ],
)
def test_what_may_be_right_is_left_to_the_worker(text: str, tmp_path: Path) -> None:
    write(tmp_path, words=text)
    assert find_function("words:close", tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def close(prediction, reference): ...", "close must take prediction, reference, item"),
        ("def close(a, b, c, d): ...", "close must take prediction, reference, item"),
        ("def close(a, b, c, *, d): ...", "close must take prediction, reference, item"),
        ("def closer(a, b, c): ...", "defines no function close, got 'words:close'; did you mean 'closer'?"),
        ("import math", "defines no function close"),
        ("", "defines no function close"),
        ("def close(:", "words.py:1: data.metric: is not valid Python"),
    ],
)
def test_what_is_certainly_wrong_is_refused(text: str, says: str, tmp_path: Path) -> None:
    write(tmp_path, words=text)
    assert says in refusal("words:close", tmp_path)


def test_a_module_that_is_not_there_is_refused_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, words=GOOD)
    assert "did you mean 'words'?" in refusal("wrods:close", tmp_path)
    assert "write a/b.py beside the sweep file" in refusal("a.b:close", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "there is no module empty" in refusal("empty:close", tmp_path)


def test_the_digest_follows_the_module_and_what_it_imports_beside_the_sweep_file(tmp_path: Path) -> None:
    write(tmp_path, words="import json, tools.text\nfrom tools import more\n" + GOOD, other="x = 1")
    write(tmp_path, tools__text="from . import deep\n", tools__deep="x = 1", tools__more="import words")

    def digest() -> str:
        return find_function("words:close", tmp_path).digest

    seen = {digest()}
    for name in ("words", "tools__text", "tools__deep", "tools__more"):
        file = tmp_path / f"{name.replace('__', '/')}.py"
        file.write_text(file.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
        assert digest() not in seen, name
        seen.add(digest())
    assert {file.stem for file in find_function("words:close", tmp_path).files} == {"words", "text", "deep", "more"}
    before = digest()
    write(tmp_path, other="x = 2")
    assert digest() == before
    found: Code = find_function("words:close", tmp_path)
    assert digest_code(found.file, found.root) == before


def test_a_link_to_a_module_elsewhere_and_a_relative_folder_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "elsewhere", words=GOOD)
    (tmp_path / "sweep").mkdir()
    try:
        (tmp_path / "sweep" / "words.py").symlink_to(tmp_path / "elsewhere" / "words.py")
    except OSError:
        pytest.skip("this system lets nobody make links")
    monkeypatch.chdir(tmp_path / "sweep")
    assert find_function("words:close", Path()) == find_function("words:close", tmp_path / "sweep")
    assert find_function("words:close", Path("../sweep")).digest
