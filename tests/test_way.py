"""The way of a sweep file is counted from what a command really calls."""

from __future__ import annotations

from pathlib import Path

from bad_inputs import write_demo

from benchmarks.way import Step, as_markdown, counts, follow, levels, visits

ROOT = Path(__file__).parents[1]


def test_climbs_and_returns_are_counted() -> None:
    level = levels({"run": {"pipeline.prepare", "space"}, "pipeline.prepare": {"space"}, "space": set()})
    assert level == {"run": 2, "pipeline.prepare": 1, "space": 0}
    way = [Step("run", "_sweep", True), Step("space", "size", False), Step("space", "grid", False),
           Step("pipeline.prepare", "prepare", True), Step("space", "fit", False), Step("run", "_employ", False)]  # fmt: skip
    found = counts(way, level)
    assert (found["files"], found["climbs"], found["returns"], found["functions"]) == (3, 2, 2, 6)
    assert found["functions that are given the whole sweep"] == 2
    assert visits(way).splitlines()[:2] == ["- `run`: **_sweep**", "- `space`: size, grid"]
    assert as_markdown({"a": found}).splitlines()[2] == "| files | 3 |"


def test_a_plan_is_followed_from_the_command_down(tmp_path: Path) -> None:
    write_demo(tmp_path)
    steps = follow(ROOT, ["plan", str(tmp_path / "sweep.yaml")], {"AUTOTUNE_CACHE": str(tmp_path / "cache")})
    modules = [step.module for step in steps]
    assert modules.index("sweepfile.schema") < modules.index("data.dataset")
    below = {"sweepfile", "data", "space", "models", "analysis", "strategies"}
    assert {step.module for step in steps if step.whole} & {one for one in modules if one.split(".")[0] in below} <= {
        "sweepfile.schema"
    }, "below the command no more than a section is handed on"
