"""A local S3 server, where its packages are installed; a test that asks for it is skipped elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from benchmarks import s3_server
from benchmarks.s3_server import BUCKET, PACKAGES

__all__ = ["BUCKET", "serving"]


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Serve meanwhile, as `benchmarks.s3_server.serving`."""
    for package in PACKAGES:
        pytest.importorskip(package, reason=f"{package} is not installed")
    with s3_server.serving() as address:
        yield address
