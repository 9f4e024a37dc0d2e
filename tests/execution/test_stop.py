"""Ending a sweep: asked once, asked twice, told to ignore it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from autotune.errors import Exit, Interrupted
from autotune.execution.stop import Stop, stop_on_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


def test_nobody_asked(tmp_path: Path) -> None:
    stop = Stop(tmp_path / "stop")
    assert not stop.asked
    stop.check()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_the_first_signal_asks_and_the_second_ends(name: str) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.default_int_handler)  # a background job may ignore Ctrl-C
    said: list[str] = []
    try:
        with stop_on_signals(lambda: said.append("stopping")) as stop:
            os.kill(os.getpid(), number)
            assert (stop.asked, stop.file.exists(), said) == (True, True, ["stopping"])
            with pytest.raises(Interrupted, match="run the same command again") as error:
                stop.check()
            assert error.value.exit_code == Exit.INTERRUPTED
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
            assert said == ["stopping"]
        assert signal.getsignal(number) is signal.default_int_handler
        assert not stop.file.exists()
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with stop_on_signals(lambda: pytest.fail("ignored")) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)
