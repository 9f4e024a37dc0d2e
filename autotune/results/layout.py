"""The layout of a model folder for users: the ONNX folder, the adapter, and texts beside them.

`best/` and every export are written here. The folder is filled aside, flushed to the disk, and then renamed as a whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.candidate import Session
from autotune.durable import empty_folder, put, sync_tree, write_aside
from autotune.providers import Provider
from autotune.results.loading import LOAD, load_script
from autotune.secrets import redact, redacted

ABOUT = "candidate.json"
"""The description of the folder for programs: settings, and how prompts are written and answers scored."""
SUMS = "SHA256SUMS"
_HIDDEN = ("manifest.json", "optimizer.safetensors", "state.json")
"""Files of the cache that a user of the model does not need."""


def aside_of(place: Path) -> Path:
    """Return the folder in which `place` is filled before it gets its name."""
    return place.with_name(f".{place.name}.new")


def fill(
    aside: Path,
    parts: Mapping[str, Path],
    about: Mapping[str, Any],
    session: Session | None = None,
    provider: Provider | None = None,
) -> Path:
    """Fill the folder `aside` anew, with a folder for each part (onnx, adapter, merged) and `candidate.json`. Returns it.

    With `session` and `provider`, the built model's own settings serve it as it was measured, a script loads it, and
    `candidate.json` names the packages to install. Raises OSError.
    """
    empty_folder(aside)
    for name, source in parts.items():
        _copy(source, aside / name)
    if "onnx" in parts:
        _serve_as_scored(aside / "onnx" / "genai_config.json", about.get("task", {}).get("pad"))
    if session is not None and session != Session() and "onnx" in parts:
        genai_name = provider.genai_name if provider is not None else None
        _serve(aside / "onnx" / "genai_config.json", session, genai_name)
        about = {**about, "session": session.model_dump(exclude_none=True)}
    if provider is not None and "onnx" in parts:
        (aside / LOAD).write_text(load_script(provider), encoding="utf-8", newline="\n")
        about = {**about, "provider": provider.name, "install": provider.install}
    (aside / ABOUT).write_text(json.dumps(redacted(about), indent=1, ensure_ascii=False), encoding="utf-8")
    return aside


def _copy(source: Path, to: Path) -> None:
    """Copy a folder. Raises OSError, which names one file: `shutil` has a list of all, without a number."""
    try:
        shutil.copytree(source, to, ignore=shutil.ignore_patterns(*_HIDDEN))
    except shutil.Error as error:
        read, written, why = error.args[0][0]
        place = read if str(why).endswith(f": {str(read)!r}") else written
        number = re.match(r"\[Errno ([0-9]+)\]", str(why))
        if number is None:
            raise OSError(str(why)) from None
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(place)) from None


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files into a folder, by their paths in it, without secrets. Raises OSError."""
    for name, text in texts.items():
        (folder / name).write_text(redact(text), encoding="utf-8", newline="\n")


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` of all files in a folder: `sha256sum --check SHA256SUMS` reads it. Raises OSError."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)
    lines = [f"{sha256_of(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8", newline="\n")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's content (64 hexadecimal digits). Raises OSError."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def put_in_place(aside: Path, place: Path, old: Path | None = None) -> None:
    """Rename a folder that was filled aside to `place`; an existing one is moved to `old` and removed. Raises OSError: the
    existing one then stays.
    """
    old = old or place.with_name(f".{place.name}.old")
    sync_tree(aside)
    shutil.rmtree(old, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        put(place, old, sync=False)
    put(aside, place)
    shutil.rmtree(old, ignore_errors=True)


_AS_SCORED = {
    "do_sample": False, "num_beams": 1, "num_return_sequences": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0,
    "length_penalty": 1.0, "diversity_penalty": 0.0, "min_length": 0,
}  # fmt: skip
"""The likeliest token, one after another. A model's own settings may say otherwise, and the builder copies some of them."""


def _serve_as_scored(file: Path, pad: int | None) -> None:
    """Have a built model write, where its user says nothing of it, what was scored; `pad`: the token for padding, None: its
    own. Raises OSError.
    """
    if not file.is_file():
        return
    settings = json.loads(file.read_text(encoding="utf-8"))
    search = settings.get("search", {})
    wanted = {name: value for name, value in _AS_SCORED.items() if search.get(name, value) != value}
    if wanted or pad is not None:
        settings["search"] = search | wanted
        settings["model"] |= {} if pad is None else {"pad_token_id": pad}
        write_aside(file, json.dumps(settings, indent=4))


def _serve(file: Path, session: Session, provider: str | None) -> None:
    """Add a session to a built model's settings. Raises OSError."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    options = settings["model"]["decoder"].setdefault("session_options", {})
    options |= session.config
    if provider is not None and session.options:
        there = options.setdefault("provider_options", [])
        mine = next((entry[provider] for entry in there if provider in entry), None)
        if mine is None:
            there.append({provider: session.options})
        else:
            mine |= session.options
    write_aside(file, json.dumps(settings, indent=4))
