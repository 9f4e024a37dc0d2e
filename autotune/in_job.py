"""Inside a job: `python -m autotune.in_job ...` is autotune with a token for the hub from a key vault.

The job names the secret in AUTOTUNE_HF_TOKEN_SECRET. Its value goes into the environment of this process alone: into no file,
no log, and no part of the job.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from autotune.errors import MachineError
from autotune.submit.secret import SECRET, read_token


def main(argv: Sequence[str] | None = None) -> int:
    """Run autotune with the token that the job names. Returns its exit code."""
    address = os.environ.get(SECRET, "")
    if address:
        try:
            os.environ["HF_TOKEN"] = read_token(address)
        except MachineError as error:
            sys.stderr.write(f"autotune: {error}\n")
            return int(error.exit_code)
    from autotune.cli import (
        main as autotune,  # after the token is known: what is known is hidden in all that is written
    )

    return autotune(argv)


if __name__ == "__main__":
    raise SystemExit(main())
