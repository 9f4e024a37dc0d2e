"""A local S3 server in a process of its own, for the tests and `benchmarks.ray_store`: prints its port, and serves until it is ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-secret-of-nobody", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}  # fmt: skip
BUCKET = "bucket"
PACKAGES = ("moto", "s3fs", "flask", "flask_cors")
"""What it needs."""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Serve meanwhile, with one bucket; the environment of this process, and of those that it starts, names the server.

    Raises ImportError where one of `PACKAGES` is missing.
    """
    import fsspec

    s3 = fsspec.get_filesystem_class("s3")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, __file__], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True
    ) as server:
        before = dict(os.environ)
        try:
            assert server.stdout is not None
            address = f"http://127.0.0.1:{int(server.stdout.readline())}"
            os.environ |= ENVIRONMENT | {"AWS_ENDPOINT_URL": address}
            s3.clear_instance_cache()
            s3().mkdir(BUCKET)
            yield address
        finally:
            server.kill()
            os.environ.clear()
            os.environ.update(before)


if __name__ == "__main__":
    from moto.server import ThreadedMotoServer

    one = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    one.start()
    sys.stdout.write(f"{one.get_host_and_port()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()  # until whoever started it has ended
    os._exit(0)
