"""An HTTP server of a test on this machine, which a client may leave in the middle of an answer."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """A server that keeps the faults of its handlers in `faults`; a client that hung up is none of them.

    `socketserver` prints every exception to sys.stderr, from a thread that may outlive the test and with it the file that
    sys.stderr was.
    """

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.faults: list[BaseException] = []

    @property
    def url(self) -> str:
        """The address of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep the fault of a handler."""
        fault = sys.exception()
        if fault is not None and not isinstance(fault, ConnectionError):
            self.faults.append(fault)


@contextmanager
def local_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[LocalServer]:
    """Serve until the block ends, which then fails with what a handler has raised."""
    server = LocalServer(handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
    if server.faults:
        raise server.faults[0]
