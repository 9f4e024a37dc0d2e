"""Every sweep file that ships is read by the real parser, and says what it is for."""

from __future__ import annotations

from pathlib import Path

import pytest

from autotune.data import hub_source
from autotune.search.prepare import read_data
from autotune.sweep import load_sweep, parse_sweep

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "search_spaces").iterdir())


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_some_were_found() -> None:
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
    assert len(dataset.validation) >= 50
    assert len(dataset.labels) >= 2
