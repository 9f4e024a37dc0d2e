"""`python -m autotune`: the same command as `autotune`."""

from autotune.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
