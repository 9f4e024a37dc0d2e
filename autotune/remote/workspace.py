"""Wraps the SDK of Azure Machine Learning: imports it only if the user names something on Azure, translates its errors, and
switches its telemetry off.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.distribution import pip_install
from autotune.errors import AutotuneError, MachineError, Problem, UsageError
from autotune.remote.addresses import Workspace
from autotune.secrets import redact

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential

_IN_A_JOB = ("AZUREML_ARM_SUBSCRIPTION", "AZUREML_ARM_RESOURCEGROUP", "AZUREML_ARM_WORKSPACE_NAME")
"""Environment variables that Azure ML sets inside a job."""
_QUOTA = re.compile(r"quota|(?:not enough|insufficient) (?:\w+ )?(?:cores|capacity|resources)", re.IGNORECASE)
_LOGIN = "log in again: az login, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET"


def has_sdk() -> bool:
    """Whether the extra `azure` is installed."""
    from importlib.util import find_spec

    try:
        return find_spec("azure.ai.ml") is not None and find_spec("azure.identity") is not None
    except ModuleNotFoundError:
        return False


def need_sdk(what: str) -> None:
    """Raise MachineError unless the extra `azure` is installed. `what`: what needs it."""
    if not has_sdk():
        raise MachineError(f"{what} needs the SDK of Azure ML; {pip_install('azure')}")


def workspace_at_hand(
    subscription_id: str | None = None, resource_group: str | None = None, workspace_name: str | None = None
) -> Workspace | None:
    """Return the given workspace; or that of the job that this process runs in; or that of Azure ML's `config.json` in this
    folder or one above it. None where there is none, or only a part is given.
    """
    given = (subscription_id, resource_group, workspace_name)
    if any(given):
        return Workspace(*map(str, given)) if all(given) else None
    in_a_job = [os.environ.get(name, "") for name in _IN_A_JOB]
    if all(in_a_job):
        return Workspace(*in_a_job)
    for folder in (Path(), *Path.cwd().parents):
        for file in (folder / "config.json", folder / ".azureml" / "config.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                said = json.loads(file.read_text(encoding="utf-8"))
                return Workspace(*(str(said[name]) for name in Workspace._fields))
    return None


def need_workspace(workspace: Workspace | None, key: str, file: str = "") -> Workspace:
    """Return the workspace. Raises UsageError where none is known."""
    if workspace is None:
        remedy = f"add {', '.join(Workspace._fields)}, or download the workspace's config.json into this folder"
        raise UsageError(Problem("names no workspace of Azure ML", key, file, remedy=remedy))
    return workspace


@cache
def credential() -> TokenCredential:
    """Return the login of the environment: a service principal, a managed identity, or `az login`."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential()


@cache
def client(workspace: Workspace | None, registry: str = "") -> MLClient:
    """Return the SDK's client of a workspace or a registry. Raises MachineError, UsageError."""
    need_sdk("what lies on Azure")
    logging.getLogger("azure").setLevel(logging.ERROR)  # our own messages say what it would warn of
    with speaking(f"registry {registry}" if registry else "Azure ML"):
        from azure.ai.ml import MLClient

        # Without show_progress the SDK waits for ever after an upload that the storage refused (azure-ai-ml 1.35).
        options: dict[str, Any] = {"enable_telemetry": False, "show_progress": True}
        if registry:
            return MLClient(credential(), registry_name=registry, **options)
        return MLClient(credential(), *need_workspace(workspace, "submit.azureml"), **options)


def forget() -> None:
    """Drop clients and login, so that the next use logs in again."""
    client.cache_clear()
    credential.cache_clear()


@contextlib.contextmanager
def speaking(what: str, again: str = "run the same command again") -> Iterator[None]:
    """Translate the SDK's exceptions. `what`: the subject of the message; `again`: the remedy after a lost connection.

    Raises UsageError (no such thing), MachineError (login, rights, quota, connection, failure of the service).
    """
    need_sdk(what)
    from azure.ai.ml.exceptions import MlException
    from azure.core.exceptions import AzureError

    try:
        yield
    except AutotuneError:
        raise
    except (AzureError, MlException) as error:
        raise _translated(error, what, again) from None
    except json.JSONDecodeError as error:
        raise MachineError(
            f"{what}: the connection was lost: an answer was cut off ({_said(error)}); {again}"
        ) from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("requests", "urllib3", "msal"):
            raise
        raise MachineError(f"{what}: the connection was lost ({_said(error)}); {again}") from None


def _translated(error: Exception, what: str, again: str) -> AutotuneError:
    from azure.ai.ml.exceptions import MlException
    from azure.core import exceptions

    inner = error
    while isinstance(inner, MlException) and isinstance(inner.__cause__ or inner.__context__, Exception):
        inner = inner.__cause__ or inner.__context__
    if isinstance(inner, exceptions.AzureError):
        error = inner
    said = _said(error)
    status = getattr(error, "status_code", None)
    if isinstance(error, exceptions.ClientAuthenticationError) or status == 401:
        return MachineError(f"{what}: Azure does not accept the login ({said}); {_LOGIN}")
    if _QUOTA.search(said):
        remedy = "ask for more quota, name another compute, or wait until another job has ended"
        return MachineError(f"{what}: the quota is used up ({said}); {remedy}, then {again}")
    if status == 403:
        remedy = "ask for a role that may (AzureML Data Scientist; Storage Blob Data Contributor for files)"
        return MachineError(f"{what}: this login may not do that ({said}); {remedy}")
    if status == 404:
        return UsageError(Problem(f"Azure has no such thing ({said})", what, remedy="check the names"))
    if isinstance(error, exceptions.ServiceRequestError | exceptions.ServiceResponseError):
        return MachineError(f"{what}: the connection was lost ({said}); {again}")
    if isinstance(error, exceptions.IncompleteReadError | exceptions.StreamConsumedError):
        return MachineError(f"{what}: the connection was lost ({said}); {again}")
    if status is not None and (status >= 500 or status in (408, 429)):
        return MachineError(f"{what}: Azure is in trouble, or too busy ({said}); {again} in a while")
    if status is not None or isinstance(error, MlException):
        return UsageError(Problem(f"Azure refuses it ({said})", what, remedy="change what it names"))
    return MachineError(f"{what}: {said}; {again}")


def _said(error: Exception) -> str:
    """Return an error's message in one line, without secrets."""
    code = getattr(getattr(error, "error", None), "code", "") or ""
    message = getattr(error, "message", "") or str(error) or type(error).__name__
    lines = [line.strip() for line in str(message).splitlines() if line.strip()]
    text = " ".join(lines[:2])
    return redact(f"{code}: {text}" if code and code not in text else text)[:400]
