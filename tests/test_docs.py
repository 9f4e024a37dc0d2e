"""Tables in the docs are those that the code and the committed results give."""

from benchmarks.docs import BLOCKS, ROOT, SCHEMAS, schema_text, updated


def test_generated_blocks_are_current() -> None:
    for file in BLOCKS:
        assert updated(file) == (ROOT / file).read_text(encoding="utf-8"), "run python -m benchmarks.docs --write"


def test_schemas_are_current() -> None:
    for file in SCHEMAS:
        assert schema_text(file) == (ROOT / file).read_text(encoding="utf-8"), "run python -m benchmarks.docs --write"
