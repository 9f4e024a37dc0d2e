"""Every sweep file that ships is read by the real parser, and says what it is for."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from autotune.data.sources import hub_source
from autotune.metrics import generates, is_task
from autotune.pipeline.prepare import read_data
from autotune.present.plan import make_plan
from autotune.present.plan_table import as_text
from autotune.stages.preparation_jobs import TaskJob
from autotune.stages.protocol import function_of
from autotune.sweepfile.resolve import load_sweep, parse_sweep
from autotune.tasks import find_task
from benchmarks.orders.make import lines

ROOT = Path(__file__).parent.parent
TONES = ROOT / "benchmarks" / "phrase_tone" / "train.jsonl"
FILES = sorted((ROOT / "search_spaces").glob("*.*ml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_some_were_found() -> None:
    assert len(FILES) >= 10
    assert "phrase-tone-cpu.yaml" in [file.name for file in FILES]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_sweep_that_ships_is_right(file: Path) -> None:
    sweep = load_sweep(file)
    assert sweep.name == file.stem
    assert sweep.space.left_out == (), "an example has nothing that cannot run"
    assert parse_sweep(sweep.resolved(), root=file.parent).resolved() == sweep.resolved()
    assert file.read_text(encoding="utf-8").startswith("# "), "its first line says what it is for"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_data_is_there_and_right(file: Path) -> None:
    sweep = load_sweep(file)
    sources = (sweep.data.train, sweep.data.validation, sweep.data.test)
    if any(hub_source(source, sweep.root) for source in sources):
        pytest.skip("its data is on the hub")
    missing = [str(source) for source in sources if source is not None and not Path(str(source)).is_file()]
    if missing and all(source.startswith("../shared/data/") for source in missing):
        pytest.skip(f"the folder of public data is not beside the repository: {', '.join(missing)}")
    dataset = read_data(sweep)
    assert len(dataset.train) >= 100
    if is_task(sweep.data.metric):
        return
    assert len(dataset.validation) >= 50
    assert len(dataset.labels) >= 2 or generates(sweep.data.metric) or sweep.data.metric == "perplexity"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_planned(file: Path) -> None:
    """Also for a device that is not here: what it would do is known without it."""
    sweep = load_sweep(file)
    sources = [
        str(source) for source in (sweep.data.train, sweep.data.validation, sweep.data.test) if source is not None
    ]
    if any(source.startswith("../shared/data/") and not Path(source).is_file() for source in sources):
        pytest.skip("the folder of public data is not beside the repository")
    plan = make_plan(str(file), [])
    assert plan["trials"] > 0
    assert plan["recipes"]
    assert as_text(plan)


def test_the_orders_are_as_their_script_makes_them() -> None:
    assert (ROOT / "benchmarks" / "orders" / "train.jsonl").read_text(encoding="utf-8").splitlines() == lines()


def test_every_example_says_why_each_part_is_there() -> None:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert text.count("#") >= 3, f"{file.name} is hardly commented"


def test_the_metric_that_ships_gives_what_it_says() -> None:
    spec = spec_from_file_location("own_metric", ROOT / "search_spaces" / "own_metric.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    said = ("joy", "Joy.", "surprise", "fear", "")
    assert [module.near(text, "joy", {}) for text in said] == [1, 1, 0.5, 0, 0]


def test_the_task_that_ships_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = load_sweep(ROOT / "search_spaces" / "lm-eval-cpu.yaml", ["data.train=" + str(TONES)])
    code = find_task(sweep.data.metric, sweep.root)
    job = TaskJob(metric=sweep.data.metric, code=code.digest, file=code.file, max_validation=100)
    found = function_of(job)(job, tmp_path)
    assert (found["metric"], found["higher_is_better"]) == ("acc", True)
    assert found["splits"]["validation"]["items"] == 100
    assert found["splits"]["test"]["items"] > 100
