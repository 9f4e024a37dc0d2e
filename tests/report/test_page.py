"""The page is one file that asks nobody for anything, and what stands in a cell stays text."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from pages import data_of

from autotune.analysis.latency import FOREIGN
from autotune.analysis.selection import Entry
from autotune.errors import UsageError
from autotune.present.tables import PACE_MOVED
from autotune.report.columnar import columns_of
from autotune.report.data import read_report
from autotune.report.outcomes import packed_outcomes
from autotune.report.page import SCRIPTS, bundle, page
from autotune.report.write import write_report
from autotune.results.columns import Column
from autotune.results.folder import read_results
from autotune.results.rows import Trial
from autotune.results.table import write_table
from benchmarks.report_folders import Shape, make_folder

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{style}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small results folder with failures."""
    return make_folder(tmp_path_factory.mktemp("made") / "made", Shape(40, items=60, turns=True, seed=5))


def test_the_page_has_no_address_but_namespaces(folder: Path) -> None:
    text = page([read_report(folder)])
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(src|href)\s*=\s*[\"'](?!data:,)", text)


def test_scripts_and_styles_are_allowed_by_their_digests_alone(folder: Path) -> None:
    text = page([read_report(folder)])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    script = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert script is not None
    assert style is not None
    assert "unsafe" not in policy[1]
    assert policy[1].startswith("default-src 'none'; ")
    for name, content in (("script-src", script[1]), ("style-src", style[1])):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy[1]


def test_hostile_texts_stay_in_the_data(folder: Path) -> None:
    report = read_report(folder) | {"name": HOSTILE, "explained": HOSTILE}
    text = page([report])
    assert "alert(" not in text.replace("&lt;script&gt;alert(1)", "").replace("onerror=alert(2)&gt;", "")
    assert data_of(text)[0]["name"] == HOSTILE


def test_all_modules_are_in_the_bundle_after_what_they_import() -> None:
    folder = Path(__file__).parents[2] / "autotune" / "report" / "web"
    assert sorted(SCRIPTS) == sorted(file.name for file in folder.glob("*.js"))
    for place, name in enumerate(SCRIPTS):
        needed = re.findall(
            r'^import .* from "\./(\w+\.js)";$', (folder / name).read_text(encoding="utf-8"), re.MULTILINE
        )
        assert set(needed) <= set(SCRIPTS[:place]), name
    assert not re.search(r"^(import|export)\b", bundle(), re.MULTILINE)


def test_what_the_folder_holds_is_in_the_page(folder: Path) -> None:
    (data,) = data_of(page([read_report(folder)]))
    columns = {column["name"]: column for column in data["columns"]}
    assert data["rows"] == 40
    assert {"candidate", "accuracy", "itl_ms_p50", "size_mb", "settings", "error"} <= set(columns)
    assert "f1" not in columns  # nothing was measured
    assert data["limits"] == ["accuracy >= base + 0.1"]
    assert len(data["outcomes"]["accuracy"]["of"]) == len(data["entries"])
    assert data["logs"]
    assert all("MemoryError" in log for log in data["logs"].values())


def test_a_report_is_written_into_the_folder_and_several_where_one_says(folder: Path, tmp_path: Path) -> None:
    assert write_report([folder])[0] == folder / "report.html"
    both = write_report([folder, folder], tmp_path / "both.html")
    assert len(data_of(both[0].read_text(encoding="utf-8"))) == 2


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results of a sweep here"):
        write_report([tmp_path])
    with pytest.raises(UsageError, match="no results of a sweep here"):
        write_report([tmp_path / "missing"])


@pytest.mark.parametrize(("rows", "most"), [(1_000, 1_000_000), (10_000, 4_000_000)])
def test_a_page_is_small_though_every_number_is_another(rows: int, most: int, folder: Path) -> None:
    """Forty columns of numbers that nothing compresses, and the outcomes of 300 items that nobody could guess."""
    draw = np.random.default_rng(0)
    columns = [Column("candidate", str, "x"), *(Column(f"number{i}", float, "x") for i in range(39))]
    numbers = draw.random((rows, 39))
    cells = [
        {"candidate": draw.bytes(8).hex()} | {f"number{i}": float(f"{x:.6g}") for i, x in enumerate(row)}
        for row in numbers
    ]
    items = draw.integers(2, size=(rows, 300)).astype(float)
    entries = [Entry(str(i), {}, outcomes={"accuracy": row}) for i, row in enumerate(items)]
    outcomes = {"accuracy": packed_outcomes("accuracy", entries, folder)}
    report = read_report(folder) | {
        "columns": columns_of(list(map(Trial, cells)), columns),
        "outcomes": outcomes,
        "rows": rows,
    }
    assert len(page([report]).encode()) < most


def test_targets_are_shown_beside_each_other(tmp_path: Path) -> None:
    made = make_folder(tmp_path / "made", Shape(12, items=20, failures=False, seed=4))
    rows = [row | {"target": "ab"[(row.trial or 0) % 2]} for row in read_results(made)]
    rows.append(rows[0] | {"target": "b", "candidate": "other"})  # each has its untouched model
    write_table(made / "results.csv", Trial.columns, rows)
    (file,) = write_report([made])
    data = data_of(file.read_text(encoding="utf-8"))
    assert [one["name"] for one in data] == ["made-choice-12 on a", "made-choice-12 on b"]
    assert sum(one["rows"] for one in data) == 13


@pytest.mark.parametrize(("name", "value"), [("PACE_MOVED", PACE_MOVED), ("BUSY", FOREIGN)])
def test_a_bound_in_the_page_is_that_of_the_tool(name: str, value: float) -> None:
    found = re.findall(rf"^const {name} = ([0-9.]+);", bundle(), re.MULTILINE)
    assert [float(number) for number in found] == [value]
