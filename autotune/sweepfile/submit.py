"""The `submit:` part of a sweep file: where else the same command may run. It names secrets and never holds them."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_Text = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
_Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/@+=,-]{0,200}$")]


def _reference(value: object) -> object:
    """Return a reference to a secret. Raises ValueError for anything else, above all a secret itself, without showing it."""
    if not isinstance(value, str) or not re.fullmatch(
        r"https://[a-z0-9][a-z0-9-]{1,60}(\.[a-z0-9-]+){2,6}/secrets/[A-Za-z0-9-]{1,127}(/[0-9a-f]{32})?", value
    ):
        raise ValueError(
            "must name a secret of a key vault: https://VAULT.vault.azure.net/secrets/NAME, and never a token"
        )
    return value


def _amount(value: object) -> object:
    """Return a number of devices, or one kind with its number, as a text: 1 is "1", { A100: 1 } is "A100:1"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, dict) and len(value) == 1 and all(isinstance(one, int) for one in value.values()):
        return ":".join(map(str, next(iter(value.items()))))
    return value


_Devices = Annotated[_Word, BeforeValidator(_amount)]
_Environment = Annotated[
    str,
    Field(
        pattern=r"^(azureml:)?[A-Za-z0-9][A-Za-z0-9_.-]{0,254}([:@][A-Za-z0-9_.-]+)?$|"
        r"^azureml://registries/[^/\s]+/environments/[^/\s]+/(versions|labels)/[^/\s]+$"
    ),
]
_Secret = Annotated[str, BeforeValidator(_reference)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    install: _Text | None = Field(
        None, description="what pip installs there; default: this distribution with the target's extra"
    )


class AzureML(_Part):
    """A command job of Azure Machine Learning."""

    subscription_id: _Text | None = None
    resource_group: _Text | None = None
    workspace_name: _Text | None = None
    compute: _Text | None = Field(None, description="compute cluster, or an attached Kubernetes cluster (Azure Arc)")
    instance_type: _Text | None = Field(None, description="of a Kubernetes cluster")
    environment: _Environment | None = Field(
        None, description="name:version of an environment that is there; the newest where no version is named"
    )
    image: _Text | None = Field(None, description="image that the environment begins from")
    conda_file: _Text | None = Field(None, description="conda file of an older job: what of it is current is said")
    output: _Text = Field(
        "azureml://datastores/workspaceblobstore/paths/autotune",
        description="folder of results and cache, which a later job goes on from",
    )
    spot: bool = Field(False, description="the low-priority tier: a job that is stopped goes on")
    hf_token: _Secret | None = Field(
        None, description="a token for the hub, by reference: https://VAULT.vault.azure.net/secrets/NAME of a key vault"
    )
    identity: Literal["managed", "user_identity"] | None = Field(
        None, description="as whom the job reads data and secrets; default: managed where hf_token is named"
    )


class Slurm(_Part):
    """A batch script of Slurm."""

    partition: _Word | None = None
    account: _Word | None = None
    hours: float = Field(24, gt=0, le=10_000, description="wall-clock after which the job is queued again, and goes on")
    gpus: _Devices | None = Field(None, description="e.g. 1, or a100:1; default: one where the target needs one")
    cpus: int | None = Field(None, ge=1, le=4096)
    memory_gb: int | None = Field(None, ge=1, le=100_000)
    setup: list[_Text] = Field([], description="lines of shell before the run, such as: module load cuda")


class SkyPilot(_Part):
    """A task of SkyPilot."""

    accelerators: _Devices | None = Field(None, description="e.g. A100:1; default: one L4 where the target needs a GPU")
    infra: _Word | None = Field(None, description="cloud, or cloud/region, e.g. aws/us-east-1; default: the cheapest")
    cpus: int | None = Field(None, ge=1, le=4096)
    memory_gb: int | None = Field(None, ge=1, le=100_000)
    disk_gb: int | None = Field(None, ge=10, le=100_000)
    spot: bool = Field(True, description="spot instances: a task that is preempted goes on")
    bucket: _Word | None = Field(None, description="bucket of results and cache; default: autotune-<name>")


class Submit(BaseModel):
    """Where else the sweep may run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    azureml: AzureML | None = None
    slurm: Slurm | None = None
    skypilot: SkyPilot | None = None
