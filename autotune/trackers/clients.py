"""Which package each tracker needs, and how to open it. Only the tracker's own process imports the package."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from autotune.errors import MachineError
from autotune.trackers.tracker import About, Tracker

CLIENTS: dict[str, tuple[str, ...]] = {
    "mlflow": ("mlflow", "mlflow-skinny"),
    "tensorboard": ("tensorboard",),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""The distributions that bring each client: one of them is enough."""
EXTRAS = {"mlflow": "mlflow-skinny", "tensorboard": "tensorboard", "trackio": "trackio", "wandb": "wandb"}
"""The package that messages tell users to install."""

_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}
"""The environment of a tracker's process: no telemetry, and no logging in the background."""
_UNLESS_SET = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}
_TRACKIO_PLACES = ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
_HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")


def check_clients(names: Iterable[str]) -> None:
    """Raise MachineError where a tracker's client is not installed, with what to install."""
    missing = [name for name in names if not any(map(_installed, CLIENTS[name]))]
    if missing:
        what = " and ".join(missing)
        packages = " ".join(EXTRAS[name] for name in missing)
        verb = "is" if len(missing) == 1 else "are"
        raise MachineError(
            f"report_to: {what} {verb} not installed; pip install {packages}, or take {what} out of report_to"
        )


def _installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


def environment(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment of a tracker's process: no client uses the network, unless the user names a server or space."""
    found = {**os.environ, **_QUIET, **{k: v for k, v in _UNLESS_SET.items() if k not in os.environ}}
    if name == "trackio":
        if options.get("folder"):
            found["TRACKIO_DIR"] = str(options["folder"])
        if not options.get("space") and not any(found.get(variable) for variable in _TRACKIO_PLACES):
            # It asks the hub for the user's name where it finds a token.
            found = {k: v for k, v in found.items() if k not in _HUB}
            found |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"}
    return found


def open_tracker(name: str, about: About, options: Mapping[str, Any]) -> Tracker:
    """Open a tracker for a sweep, in its own process. Raises whatever its client raises."""
    match name:
        case "mlflow":
            from autotune.trackers.to_mlflow import MlflowTracker

            return MlflowTracker(about, options)
        case "tensorboard":
            from autotune.trackers.to_tensorboard import TensorboardTracker

            return TensorboardTracker(about, options)
        case "trackio":
            from autotune.trackers.to_trackio import TrackioTracker

            return TrackioTracker(about, options)
        case "wandb":
            from autotune.trackers.to_wandb import WandbTracker

            return WandbTracker(about, options)
        case "optuna":
            from autotune.trackers.to_optuna import OptunaMirror

            return OptunaMirror(about, options)
        case _:
            raise KeyError(name)
