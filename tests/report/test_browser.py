"""The report in a real browser: it chooses as `select` does, asks nobody for anything, and works with keyboard and screen reader."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.present.select import select
from autotune.report.data import read_report
from autotune.report.page import page as html_of
from autotune.report.write import write_report
from benchmarks.report_folders import Shape, make_folder, name_of

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

SHAPE = Shape(150, items=80, turns=True, seed=3)
Open = Callable[..., Any]
HOSTILE = "<img src=x onerror=\"document.title='broken'\"></script><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with failures, a hostile error text and an untouched model."""
    made = make_folder(tmp_path_factory.mktemp("made") / "made", SHAPE)
    file = made / "results.csv"
    text = file.read_text(encoding="utf-8")
    cell = '"' + HOSTILE.replace('"', '""') + '"'
    file.write_text(re.sub(r'"the machine.*?asked for"', lambda _: cell, text, count=1), encoding="utf-8")
    write_report([made], say=lambda line: None)
    return made


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Open]:
    """Open a page and wait until it is ready; at the end nothing may have been asked for, or have gone wrong."""
    troubles: list[str] = []
    contexts = []

    def open_(file: Path | None = None, **options: Any) -> Any:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        address = (file or folder / "report.html").resolve().as_uri()
        page.on("console", lambda said: troubles.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                troubles.append(asked.url)
                if asked.url != address and not asked.url.startswith(("data:", "blob:"))
                else None
            ),
        )
        page.goto(address)
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert troubles == []


def chosen(page: Any) -> str:
    """Return what the page says of the choice."""
    return str(page.locator(".choice").inner_text())


def test_it_opens_with_the_choice_of_select_and_hostile_texts_stay_text(opened: Open, folder: Path) -> None:
    page = opened()
    choice = select(folder).choice
    assert choice.winner is not None
    assert choice.winner.id[:8] in chosen(page)
    assert f"{len(choice.feasible)} of " in chosen(page)
    assert page.title() == "made-choice-150: autotune report"
    assert page.locator("#failures").get_by_text("onerror", exact=False).count() > 0
    assert page.locator("img").count() == 0
    headings = page.locator("main h2").all_inner_texts()
    assert headings == [
        "Result", "Front and limits", "Item by item", "What mattered", "Learning curves", "Hypervolume over time",
        "Latency of each graph", "Where the time went", "Failures", "All candidates", "How to reproduce",
    ]  # fmt: skip


def test_the_winner_is_compared_by_times_of_one_pace(opened: Open, tmp_path: Path) -> None:
    """The machine was two and a half times as slow in the turns of the committed example as in its search."""
    example = shutil.copytree(Path(__file__).parents[2] / "results" / "example", tmp_path / "example")
    write_report([example], say=lambda line: None)
    said = opened(example / "report.html").locator("#result").inner_text()
    assert said.count("itl_ms_p50 0.326 times [0.298, 0.356] in turns") == 2
    assert "The machine was slower in these turns: 9.97 ms for the winner, 3.88 ms in the search." in said


def test_limits_choose_again_as_select_does(opened: Open, folder: Path) -> None:
    page = opened()
    before = chosen(page)
    page.get_by_label("Add a limit").select_option("size_mb")
    assert chosen(page) == before  # it begins where every candidate keeps it
    for key in ("ArrowLeft", "PageDown", "PageDown", "PageDown"):
        page.get_by_role("slider", name="size_mb <=").focus()
        for _ in range(3):
            page.keyboard.press(key)
        bounds = {name: page.get_by_label(f"Bound of {name}").input_value() for name in ("accuracy >=", "size_mb <=")}
        found = select(folder, [f"{name} {bound}" for name, bound in bounds.items()]).choice
        assert f"{len(found.feasible)} of " in chosen(page)
        assert found.winner is not None
        assert f"({found.winner.id[:8]})" in chosen(page)
    page.get_by_label("Bound of size_mb <=").fill("1")
    page.keyboard.press("Enter")
    assert "No winner" in chosen(page)
    page.get_by_label("Bound of size_mb <=").fill("nonsense")
    page.keyboard.press("Enter")
    assert page.get_by_label("Bound of size_mb <=").get_attribute("aria-invalid") == "true"
    page.get_by_label("Prefer").select_option("itl_ms_p50")
    page.get_by_role("button", name="Remove the limit size_mb <=").click()
    preferred = select(folder, prefer="itl_ms_p50").choice.winner
    assert preferred is not None
    assert f"({preferred.id[:8]})" in chosen(page)
    page.get_by_role("button", name="Back to the sweep").click()
    assert page.get_by_label("Bound of accuracy >=").input_value() == "base + 0.1"


def test_axes_and_candidates_by_keyboard_alone(opened: Open) -> None:
    page = opened()
    page.get_by_label("Across").select_option("size_mb")
    page.get_by_role("checkbox", name="log").first.check()
    chart = page.locator(".front-holder")
    assert "over size_mb" in chart.locator("svg").get_attribute("aria-label")
    page.locator(".skip").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('front-holder')"):
            break
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert chart.locator(".tip").is_visible()
    told = page.locator("#front .hidden[role=status]").inner_text()
    assert "size_mb" in told
    page.keyboard.press("Enter")
    assert told.split(",")[0] in page.get_by_role("dialog").locator("h2").inner_text()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


def test_the_table_filters_sorts_and_downloads(opened: Open, folder: Path) -> None:
    page = opened()
    rows = read_report(folder)["rows"]
    table = page.locator("#table")
    assert f"{rows} of {rows} rows" in table.locator(".count").inner_text()
    table.get_by_label("Filter accuracy").fill(">= 0.7")
    table.get_by_label("Filter settings").fill("int4")
    table.get_by_role("button", name="accuracy", exact=True).click()
    with page.expect_download() as got:
        table.get_by_role("button", name="Download").click()
    lines = list(csv.DictReader(io.StringIO(Path(got.value.path()).read_text(encoding="utf-8"))))
    expected = [r for r in select(folder).rows if (r["accuracy"] or 0) >= 0.7 and r["build_precision"] == "int4"]
    assert sorted(line["candidate"] for line in lines) == sorted(r["candidate"] for r in expected)
    assert [float(line["accuracy"]) for line in lines] == sorted((r["accuracy"] for r in expected), reverse=True)
    assert f"{len(expected)} of {rows} rows" in table.locator(".count").inner_text()
    table.get_by_label("Filter accuracy").fill("rubbish")
    assert "cannot be read" in table.locator(".count").inner_text()
    table.get_by_label("Filter accuracy").fill("0.2..0.3")
    table.get_by_text("Columns (").click()
    table.get_by_role("checkbox", name="train_steps").check()
    assert table.get_by_role("button", name="train_steps").is_visible()
    assert table.locator("tbody tr").count() < 60  # only what is in view is in the page


def test_items_of_two_candidates_are_compared(opened: Open, folder: Path) -> None:
    page = opened()
    items = page.locator("#items")
    choice = select(folder).choice
    assert choice.winner is not None
    base = name_of(SHAPE, 0)
    kept = [
        json.loads((folder / "outcomes" / f"{name}.json").read_text(encoding="utf-8"))
        for name in (choice.winner.id, base)
    ]
    right = [[p == g for p, g in zip(k["predicted"], k["gold"], strict=True)] for k in kept]
    only = sum(a and not b for a, b in zip(*right, strict=True)), sum(b and not a for a, b in zip(*right, strict=True))
    text = items.inner_text()
    assert f"{only[0]} only {choice.winner.id[:8]}" in text
    assert f"{only[1]} only {base[:8]}" in text
    assert items.locator("table.confusion").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_for_people_with_disabilities(opened: Open, scheme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = opened(color_scheme=scheme)
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]][:5])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def test_a_phone_needs_no_sideways_scrolling_and_a_printer_no_controls(opened: Open) -> None:
    page = opened(is_mobile=True)
    page.set_viewport_size({"width": 375, "height": 800})
    page.wait_for_timeout(100)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#table .controls").is_visible()


def test_several_folders_are_compared(opened: Open, folder: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other", Shape(30, items=80, seed=11))
    file = tmp_path / "both.html"
    file.write_text(html_of([read_report(folder), read_report(other)]), encoding="utf-8")
    page = opened(file)
    table = page.locator("#compare table")
    assert table.locator("tbody tr").count() == 2
    winner = select(other).choice.winner
    assert winner is not None
    assert winner.id[:8] in table.inner_text()
    page.locator("header select").select_option("1")
    assert winner.id[:8] in chosen(page)


def test_rows_that_stay_in_view_stay_the_same_while_others_come_and_go(opened: Open) -> None:
    """The table holds the rows in view alone: after any scrolling those that belong there, in order, with the spaces around."""
    page = opened()
    scroller = page.locator(".grid-scroll")
    total = int(page.locator(".grid-table").get_attribute("aria-rowcount")) - 1
    indices = (
        "[...document.querySelectorAll('.grid-table tbody tr[aria-rowindex]')].map((tr) => Number(tr.ariaRowIndex))"
    )
    height = "document.querySelector('.grid-table tbody').getBoundingClientRect().height"
    whole = page.evaluate(height)
    page.evaluate("window.kept = document.querySelector('.grid-table tbody tr[aria-rowindex=\"12\"]')")
    for top in (30, 200, 300, 5000, 90, 2000, 2100, 1900, 10**6, 0):
        scroller.evaluate("(one, top) => { one.scrollTop = top; }", top)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found = page.evaluate(indices)
        first = page.evaluate("document.querySelector('.grid-scroll').scrollTop") / 30
        assert found == list(range(found[0], found[-1] + 1))
        assert found[0] <= first + 2
        assert found[-1] >= min(total + 1, first + 10)
        assert abs(page.evaluate(height) - whole) < 2, "the scroll bar would jump"
        if top == 300:
            assert page.evaluate("window.kept.isConnected")
    assert page.evaluate(indices)[0] == 2


FOCUSED = """() => {
  const at = document.activeElement;
  const style = getComputedStyle(at);
  const box = at.getBoundingClientRect();
  return {
    at: at === document.body ? '' : [at.tagName, at.className, at.getAttribute('aria-label') ?? '', at.textContent.slice(0, 40)].join(' '),
    shown: box.width > 0 && box.height > 0,
    marked: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0,
  };
}"""
TABBABLE = """() => [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex="0"]')]
  .filter((one) => one.checkVisibility() && !one.disabled && one.tabIndex >= 0).length"""


def test_the_tab_key_reaches_every_control_shows_where_it_is_and_leaves_the_page(opened: Open) -> None:
    page = opened()
    count = page.evaluate(TABBABLE)
    seen, hidden, unmarked = [], [], []
    for _ in range(count + 30):
        page.keyboard.press("Tab")
        found = page.evaluate(FOCUSED)
        if not found["at"]:
            break
        seen.append(found["at"])
        hidden += [found["at"]] * (not found["shown"])
        unmarked += [found["at"]] * (not found["marked"])
    assert len(seen) >= count
    assert not page.evaluate(FOCUSED)["at"], "the keyboard is caught in the page"
    assert (hidden, unmarked) == ([], [])


def test_a_choice_is_made_filtered_looked_at_and_taken_by_keyboard_alone(opened: Open, folder: Path) -> None:
    """From the first key to the download: no pointer, and what is asked for by `Tab` and keys is what `select` says."""
    page = opened()

    def go_to(selector: str, most: int = 300) -> None:
        for _ in range(most):
            if page.evaluate("(selector) => document.activeElement.matches(selector)", selector):
                return
            page.keyboard.press("Tab")
        raise AssertionError(f"no Tab leads to {selector}")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips to the result
    assert page.evaluate("document.activeElement.id") == "main"
    go_to("input.bound")
    page.keyboard.press("Control+a")
    page.keyboard.type("0.6")
    page.keyboard.press("Enter")
    found = select(folder, ["accuracy >= 0.6"]).choice
    assert found.winner is not None
    assert f"{len(found.feasible)} of " in chosen(page)
    assert f"({found.winner.id[:8]})" in chosen(page)
    go_to("button.sort[data-sort='accuracy']")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.dataset.sort") == "accuracy", "the sort keeps its place"
    go_to("input[aria-label='Filter accuracy']")
    page.keyboard.type(">= 0.6")
    kept = [row for row in select(folder).rows if (row["accuracy"] or 0) >= 0.6]
    shown = len(kept)
    assert f"{shown} of " in page.locator("#table .count").inner_text()
    go_to("#table tbody button.link")
    names = [row.candidate for row in sorted(kept, key=lambda row: -row["accuracy"])]
    assert page.evaluate("document.activeElement.textContent") == names[0][:8]
    for key, place in (
        ("ArrowDown", 1),
        ("End", -1),
        ("ArrowDown", -1),
        ("ArrowUp", -2),
        ("Home", 0),
        ("PageDown", None),
    ):
        page.keyboard.press(key)
        at = page.evaluate("document.activeElement.textContent")
        assert place is None or at == names[place][:8]
        assert page.evaluate(FOCUSED)["shown"]
    best = page.evaluate("document.activeElement.textContent")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert best in dialog.locator("h2").inner_text()
    for _ in range(6):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement === document.body || !!document.activeElement.closest('dialog')")
    page.keyboard.press("Escape")
    assert dialog.count() == 0
    assert page.evaluate("document.activeElement.textContent") == best, "the focus is back where it was"
    for _ in range(300):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.textContent.startsWith('Download what is shown')"):
            break
    with page.expect_download() as got:
        page.keyboard.press("Enter")
    assert len(Path(got.value.path()).read_text(encoding="utf-8").splitlines()) == shown + 1


@pytest.mark.parametrize("state", ["dialog", "columns", "no winner", "phone", "several", "print"])
def test_no_serious_fault_in_any_state_of_the_page(opened: Open, folder: Path, tmp_path: Path, state: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    file = None
    if state == "several":
        other = make_folder(tmp_path / "other", Shape(30, items=80, seed=11))
        file = tmp_path / "both.html"
        file.write_text(html_of([read_report(folder), read_report(other)]), encoding="utf-8")
    page = opened(file, **({"is_mobile": True} if state == "phone" else {}))
    match state:
        case "dialog":
            page.locator("#table tbody button.link").first.press("Enter")
        case "columns":
            page.get_by_text("Columns (").press("Enter")
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        case "no winner":
            page.locator("input.bound").first.fill("2")
            page.keyboard.press("Enter")
            page.wait_for_timeout(200)
            assert "No winner" in chosen(page)
        case "phone":
            page.set_viewport_size({"width": 375, "height": 800})
        case "print":
            page.emulate_media(media="print")
    page.wait_for_timeout(100)
    found = axe.Axe().run(page).response["violations"]
    serious = [
        (one["id"], [node["target"] for node in one["nodes"]][:5])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []
