"""Makes the environment of an Azure ML job: a conda file with the packages of the tool, merged with an older job's conda file.

Azure ML builds an image from it. The packages are those of the target's extra, in the tested versions. Other packages of the
older file stay; a note names each one that is raised to a newer version or left out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from autotune.distribution import DISTRIBUTION, constraints_file
from autotune.errors import Problem, UsageError
from autotune.secrets import redact

PYTHON = "3.11"
"""The oldest that autotune runs on."""
_NEWEST = Version("3.14")
_PYTHON = re.compile(r"\s*(?:[\w.-]+::)?python(?![\w.-])")
"""How a conda file asks for Python, with or without a channel."""
_THERE = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "python_version": PYTHON,
          "python_full_version": f"{PYTHON}.0", "platform_machine": "x86_64"}  # fmt: skip
_RUNTIME = "onnxruntime"
"""The beginning of the names of wheels that exclude one another: only the target's one stays."""


def requirements(*extras: str) -> list[str]:
    """Return the requirements of extras of this tool on Linux, without markers and without the tool itself."""
    declared, tested = _declared(), _tested()
    found: dict[str, str] = {}
    waiting, seen = [*extras, ""], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for text in declared:
            one = Requirement(text)
            if one.marker is not None and not one.marker.evaluate({**_THERE, "extra": name}):
                continue
            if one.marker is None and name:
                continue
            if canonicalize_name(one.name) == DISTRIBUTION:
                waiting += sorted(one.extras)
                continue
            one.marker = None
            package = canonicalize_name(one.name)
            version = tested.get(package)
            if version is not None and one.specifier.contains(version):
                one.specifier = SpecifierSet(f"=={version}")
            found.setdefault(package, str(one))
    return [found[name] for name in sorted(found)]


def _tested() -> dict[str, str]:
    """Return the tested version of each package in constraints.txt; empty where there is no such file."""
    file = constraints_file()
    lines = file.read_text(encoding="utf-8").splitlines() if file is not None else []
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def _declared() -> list[str]:
    """Return autotune's requirements with their markers, from pyproject.toml or else from the installed package."""
    source = Path(__file__).parents[2] / "pyproject.toml"
    try:
        project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
        if project["name"] == DISTRIBUTION:
            declared = list(project["dependencies"])
            for extra, texts in project["optional-dependencies"].items():
                for text in texts:
                    name, _, marker = text.partition(";")
                    declared.append(f"{name}; extra == '{extra}'" + (f" and ({marker})" if marker else ""))
            return declared
    except (OSError, ValueError, KeyError):  # an installed package has no such file beside it
        pass
    try:
        return list(metadata.requires(DISTRIBUTION) or [])
    except metadata.PackageNotFoundError:
        return []


def conda(pip: Sequence[str], older: Path | None, shown: str) -> tuple[dict[str, Any], list[str]]:
    """Return a conda file with the packages `pip` merged into an older file, and notes about what changed of that file.

    `shown`: how the user names the older file. Raises UsageError where it is no conda file, or holds a secret.
    """
    made: dict[str, Any] = {"channels": ["conda-forge"], "dependencies": [f"python={PYTHON}", "pip", {"pip": [*pip]}]}
    if older is None:
        return made, []
    try:
        text = older.read_text(encoding="utf-8")
        content = yaml.safe_load(text)
    except FileNotFoundError:
        return made, [f"{shown} is not there: the environment has what autotune needs"]
    except (OSError, ValueError, yaml.YAMLError) as error:
        said = str(error).splitlines()[0]
        raise UsageError(Problem(f"cannot be read ({said})", "submit.azureml.conda_file", shown)) from None
    if redact(text) != text:
        rule, remedy = "holds a password or token, which would go into the job", "take it out"
        raise UsageError(Problem(rule, "submit.azureml.conda_file", shown, remedy=remedy))
    listed = content.get("dependencies") if isinstance(content, dict) else None
    if not isinstance(listed, list):
        remedy = "write dependencies: [python=3.11, pip: [...]]"
        raise UsageError(Problem("is no conda file", "submit.azureml.conda_file", shown, remedy=remedy))
    notes: list[str] = []
    kept: list[Any] = []
    python = f"python={PYTHON}"
    theirs: list[str] = []
    for one in listed:
        if isinstance(one, dict):
            theirs += [str(text) for text in one.get("pip") or []]
        elif _PYTHON.match(str(one)):
            python = _python(str(one), shown, notes)
        elif str(one) != "pip":
            kept.append(str(one))
    pins = [] if any(one.startswith("pip=") for one in kept) else ["pip"]
    channels = [str(one) for one in content.get("channels") or ["conda-forge"]]
    packages = _merged(pip, theirs, shown, notes)
    return {"channels": channels, "dependencies": [python, *pins, *kept, {"pip": packages}]}, notes


def _python(asked: str, shown: str, notes: list[str]) -> str:
    """Return the Python to install where an older file asks for `asked`."""
    bounds = _PYTHON.sub("", asked.replace(" ", ""))
    wanted = bounds.lstrip("=<>!~").partition(",")[0].rstrip(".*")
    try:
        version = Version(".".join(wanted.split(".")[:2]))
        older = bounds.startswith("<") and not bounds.startswith("<=") and version == Version(PYTHON)
        if Version(PYTHON) <= version <= _NEWEST and not older:
            return asked
    except InvalidVersion:
        pass
    notes.append(f"{shown}: {asked} is raised to python={PYTHON}, the oldest that autotune and its packages run on")
    return f"python={PYTHON}"


def _merged(ours: Sequence[str], theirs: Sequence[str], shown: str, notes: list[str]) -> list[str]:
    """Return our packages, and those of an older file that do not contradict them."""
    needed = {canonicalize_name(one.name): one for one in map(Requirement, ours)}
    added: list[str] = []
    for text in theirs:
        try:
            one = Requirement(text)
        except InvalidRequirement:
            if text.strip().startswith(("-r", "--requirement", "-c", "--constraint", "-e", "--editable", ".", "/")):
                notes.append(f"{shown}: {text} is left out: only the sweep and what it names go into the job")
            else:
                added.append(text)  # an index of wheels, for one
            continue
        name = canonicalize_name(one.name)
        if name in needed:
            if str(one.specifier) and str(one.specifier) != str(needed[name].specifier):
                notes.append(f"{shown}: {text} becomes {needed[name]}, which autotune needs")
        elif name.startswith(_RUNTIME) and any(other.startswith(_RUNTIME) for other in needed):
            has = next(other for other in needed if other.startswith(_RUNTIME) and other != "onnxruntime")
            notes.append(f"{shown}: {text} is left out: the target needs {has}, and these wheels exclude one another")
        else:
            added.append(text)
    return [*ours, *added]
