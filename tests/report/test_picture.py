"""The front as a picture: what it shows stands where it should, as SVG and as PNG."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from autotune.cli import main
from autotune.errors import MachineError
from autotune.report.data import opened
from autotune.report.picture import HEIGHT, WIDTH, draw_front
from autotune.report.scene import Circle, Polygon, Scene, Text
from autotune.results.rows import Trial
from benchmarks.report_folders import Shape, make_folder

SVG = "{http://www.w3.org/2000/svg}"


def drawn(folder: Path, name: str = "made") -> Scene:
    """Return the picture of a folder."""
    _, selection = opened(folder)
    aims = selection.wanted
    scene = draw_front(name, selection.rows, aims.objectives, aims.limits, selection.choice)
    assert scene is not None
    return scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with an untouched model, failures and a limit."""
    return make_folder(tmp_path_factory.mktemp("made") / "made", Shape(30, items=50, seed=7))


def test_each_measured_candidate_is_in_the_picture_and_inside_it(folder: Path) -> None:
    _, selection = opened(folder)
    measured = [row for row in selection.rows if row.status == "ok" and row.trial]
    dots = [shape for shape in drawn(folder).shapes if isinstance(shape, Circle)]
    outside = len(selection.choice.feasible) < len(measured)
    assert len(dots) == len(measured) + 2 + outside  # and those of the legend
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in (dot.centre for dot in dots))
    words = [shape.words for shape in drawn(folder).shapes if isinstance(shape, Text)]
    assert any("accuracy >= base + 0.1" in text for text in words)
    assert sum(isinstance(shape, Polygon) for shape in drawn(folder).shapes) == 4  # star and diamond, and in the legend


def test_more_accurate_is_higher_and_slower_is_to_the_right(folder: Path) -> None:
    _, selection = opened(folder)
    trials = [row for row in selection.rows if row.status == "ok" and row.trial]
    places = [
        shape.centre for shape in drawn(folder).shapes if isinstance(shape, Circle) and shape.centre[1] < HEIGHT - 60
    ]
    across = [px for _, px in sorted({(row["itl_ms_p50"], round(px, 6)) for row, (px, _) in _matched(trials, places)})]
    up = [py for _, py in sorted({(row["accuracy"], round(py, 6)) for row, (_, py) in _matched(trials, places)})]
    assert across == sorted(across)
    assert up == sorted(up, reverse=True)
    assert len(set(up)) == len({row["accuracy"] for row in trials})


def _matched(rows: list[Trial], places: list[tuple[float, float]]) -> list[tuple[Trial, tuple[float, float]]]:
    """Return each row with its dot: the ranks of both by latency and accuracy agree where the picture is right."""
    by_value = sorted(rows, key=lambda row: (row["itl_ms_p50"], row["accuracy"]))
    return list(zip(by_value, sorted(places, key=lambda place: (round(place[0], 6), -place[1])), strict=True))


def test_the_svg_is_well_formed_and_hostile_names_stay_text(folder: Path) -> None:
    text = drawn(folder, name="<script>alert(1)</script> & co").svg()
    root = ElementTree.fromstring(text)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "rect",
        "polyline",
        "polygon",
        "circle",
        "text",
    }
    assert "<script>alert(1)</script> & co" in [element.text for element in root.iter(f"{SVG}text")]
    assert set(re.findall(r"https?://\S+?\"", text)) == {'http://www.w3.org/2000/svg"'}


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="Pillow is not installed")
def test_the_png_is_twice_as_fine_and_not_blank(folder: Path, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "a.png").write_bytes(drawn(folder).png())
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (2 * WIDTH, 2 * HEIGHT)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 24) or []}
    assert {(255, 255, 255), (11, 92, 173), (194, 65, 12), (123, 63, 160)} <= colours


def test_without_pillow_the_svg_is_written_and_the_remedy_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("PIL", "PIL.Image", "PIL.ImageDraw", "PIL.ImageFont"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MachineError, match="needs Pillow"):
        drawn(folder).png()
    assert main(["report", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(folder / "report.html"), str(folder / "pareto.svg")]
    assert "pareto.png was not written: a PNG needs Pillow" in said.err


def test_one_objective_has_no_picture(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_folder(tmp_path / "one", Shape(8, items=20))
    text = (made / "sweep.yaml").read_text(encoding="utf-8")
    (made / "sweep.yaml").write_text(
        re.sub(r"objectives: .*", "objectives: {accuracy: maximize}", text), encoding="utf-8"
    )
    assert main(["report", str(made), "--to", str(tmp_path / "a.html")]) == 0
    said = capsys.readouterr()
    assert said.out.split() == [str(tmp_path / "a.html")]
    assert "no picture of the front" in said.err


def test_the_committed_picture_is_that_of_the_committed_example() -> None:
    """`autotune report results/example` makes it anew, with a page beside it that need not be committed."""
    example = Path(__file__).parents[2] / "results" / "example"
    assert drawn(example, name="phrase-tone-cpu").svg() == (example / "pareto.svg").read_text(encoding="utf-8")
