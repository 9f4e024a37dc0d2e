"""Messages that cannot be written: they end no command."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autotune.execution.stop import stop_on_signals
from autotune.present.terminal import forget, lasting_messages


class Raw(io.RawIOBase):
    """A stream of bytes that does something else before it writes."""

    def __init__(self, before: Callable[[], None]) -> None:
        self.before, self.written = before, b""

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.before()
        self.written += bytes(content)
        return len(content)


def test_ctrl_c_while_a_message_is_written_asks_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        if not raw.written:
            signal.raise_signal(signal.SIGINT)

    def say() -> None:
        sys.stderr.write("stopping")

    raw = Raw(interrupted)
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", write_through=True))
    with lasting_messages(), stop_on_signals(say) as stop:
        sys.stderr.write("[1/3] train\n")
        sys.stderr.flush()
        assert stop.signalled
    assert b"[1/3] train" in raw.written


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is full")
def test_a_log_on_a_full_disk_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stderr", full)
        with lasting_messages():
            for _ in range(3):
                assert sys.stderr.write("a message\n" * 10_000) == 100_000
                sys.stderr.flush()
            assert sys.stderr.fileno() == full.fileno()
        assert sys.stderr is full
        forget(full)
