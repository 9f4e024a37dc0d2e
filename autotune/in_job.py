"""Inside a job that was sent elsewhere: `python -m autotune.in_job ...` runs autotune with stable paths to its inputs, and
with a token for the hub from a key vault.

Azure ML mounts inputs in a folder that differs from job to job, and a sweep that names other files is another sweep. So the
mounted inputs are linked into the working directory, under names that stay the same.

The job names the secret in AUTOTUNE_HF_TOKEN_SECRET. Its value goes only into the environment of this process: into no
file, no log, and no part of the job.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from autotune.errors import MachineError
from autotune.submit.secret import SECRET, read_token

_INPUT = re.compile(r"--set=((?:data\.)?(model|train|validation|test))=(/.+?)((?:\[[^\]]*:[^\]]*\])?)", re.DOTALL)


def linked(word: str, folder: Path) -> str:
    """Return a word of the command with a link in `folder` in place of the mounted input; other words are returned unchanged."""
    found = _INPUT.fullmatch(word)
    if found is None or not Path(found[3]).exists():
        return word
    key, short, place, rows = found.groups()
    link = folder / (short + (_ending(Path(place).name) if Path(place).is_file() else ""))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(place)
    except OSError:  # no links here: a later job must have the input in the same place
        return word
    return f"--set={key}={link.as_posix()}{rows}"


def _ending(name: str) -> str:
    """Return the ending by which the format of a file is known, such as `.csv.gz`."""
    found = re.search(r"(\.\w+)?\.gz$|\.\w+$", name, re.IGNORECASE)
    return found[0] if found is not None else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run autotune with the token that the job names. Returns its exit code."""
    address = os.environ.get(SECRET, "")
    if address:
        try:
            os.environ["HF_TOKEN"] = read_token(address)
        except MachineError as error:
            sys.stderr.write(f"autotune: {error}\n")
            return int(error.exit_code)
    from autotune.cli import main as autotune  # after the token is set, because secrets are read once

    words = sys.argv[1:] if argv is None else list(argv)
    return autotune([linked(word, Path("inputs")) for word in words])


if __name__ == "__main__":
    raise SystemExit(main())
