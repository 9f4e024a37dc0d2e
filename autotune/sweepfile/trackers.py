"""The `report_to:` part of a sweep file: experiment trackers that show a sweep, each with its own few options.

Tracked data stays on this machine: a tracker sends it elsewhere only where the user names the place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.errors import Problem, did_you_mean

TRACKERS: dict[str, dict[str, str]] = {
    "mlflow": {
        "uri": "tracking server, or sqlite:///FILE; default: MLFLOW_TRACKING_URI, or a file in the results folder",
        "experiment": "name of the experiment; default: the sweep's name",
    },
    "tensorboard": {"folder": "where the event files go; default: in the results folder"},
    "trackio": {
        "project": "name of the project; default: the sweep's name",
        "folder": "where its database is; default: TRACKIO_DIR, or in the results folder",
        "space": "owner/name of a Space on the Hugging Face hub that it is sent to; default: nowhere",
    },
    "wandb": {
        "mode": "offline or online; default: WANDB_MODE, or offline",
        "project": "name of the project; default: the sweep's name",
        "entity": "user or team of the project",
    },
}
"""The known trackers, and the options of each with their meaning."""
_MODES = ("offline", "online")

ReportTo = dict[str, dict[str, str]]
"""Trackers by name, each with the options that were given."""


def parse_report_to(raw: Any, problems: list[Problem]) -> ReportTo:
    """Return the trackers that `report_to` lists: names, or mappings of a name to its options. Mistakes go to `problems`."""
    found: ReportTo = {}
    for index, item in enumerate(raw if isinstance(raw, list) else []):
        key = f"report_to[{index}]"
        if not isinstance(item, str | Mapping) or not item:
            remedy = "e.g. report_to: [tensorboard, { mlflow: { uri: http://tracking.example } }]"
            problems.append(
                Problem("must be the name of a tracker, or a mapping of it", key, value=item, remedy=remedy)
            )
            continue
        for name, options in ({item: {}} if isinstance(item, str) else item).items():
            if name not in TRACKERS:
                known = did_you_mean(str(name), list(TRACKERS))
                problems.append(Problem("no such tracker", key, value=name, remedy=known))
            elif name in found:
                problems.append(Problem(f"names {name} twice", key, remedy="keep one"))
            else:
                here = key if isinstance(item, str) else f"{key}.{name}"
                found[name] = _options(name, {} if options is None else options, here, problems)
    return found


def _options(name: str, options: Any, key: str, problems: list[Problem]) -> dict[str, str]:
    known = list(TRACKERS[name])
    if not isinstance(options, Mapping):
        problems.append(Problem("must be a mapping", key, value=options, remedy=f"options: {', '.join(known)}"))
        return {}
    found = {}
    for option, value in options.items():
        here = f"{key}.{option}"
        if option not in known:
            problems.append(Problem("unknown key", here, remedy=did_you_mean(str(option), known)))
        elif not isinstance(value, str) or not value.strip() or len(value) > 1000 or not value.isprintable():
            rule = "must be a text of one line"
            problems.append(Problem(rule, here, value=value, remedy=f"it is: {TRACKERS[name][option]}"))
        elif option == "mode" and value not in _MODES:
            problems.append(Problem("must be offline or online", here, value=value, remedy=did_you_mean(value, _MODES)))
        elif option == "space" and (value.count("/") != 1 or not all(value.split("/"))):
            problems.append(Problem("must be owner/name", here, value=value, remedy="name a Space of yours"))
        else:
            found[option] = value
    return found


def plain_report_to(report_to: Mapping[str, Mapping[str, str]]) -> list[Any]:
    """Return trackers as a sweep file lists them: the inverse of `parse_report_to`."""
    return [{name: dict(options)} if options else name for name, options in report_to.items()]
