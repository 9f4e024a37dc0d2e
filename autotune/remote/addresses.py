"""Addresses of Azure Machine Learning (`azureml://...`), parsed without its SDK.

A file or folder of a datastore, a model or a data asset, each of a workspace or of a registry:

    azureml://datastores/STORE/paths/PATH                                   (of the current workspace)
    azureml://subscriptions/S/resourcegroups/G/workspaces/W/datastores/STORE/paths/PATH
    azureml://subscriptions/S/resourcegroups/G/workspaces/W/models/NAME/versions/V   (or data/NAME/versions/V)
    azureml://registries/R/models/NAME/versions/V                           (or data/NAME/versions/V)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

SCHEME = "azureml://"
"""The beginning of every address."""
SHORT = "azureml:"
"""The beginning of a short name in the current workspace, such as azureml:NAME:1, which leaves its kind open."""
FORMS = "azureml://datastores/STORE/paths/PATH, or azureml://registries/REGISTRY/models/NAME/versions/VERSION"
Kind = Literal["datastore", "model", "data"]

_ADDRESS = re.compile(
    r"azureml://"
    r"(?:subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/"
    r"(?:providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace>[^/]+)/"
    r"|(?:registries/(?P<registry>[^/]+)/))?"
    r"(?:datastores/(?P<store>[^/]+)(?:/paths(?:/(?P<path>.*))?)?"
    r"|(?P<kind>models|data)/(?P<name>.+)/versions/(?P<version>[^/]+))",
    re.IGNORECASE,
)
_SLICE = re.compile(r"(.+?)(\[-?[0-9%]*:-?[0-9%]*\])")


class Workspace(NamedTuple):
    """The three names of a workspace."""

    subscription_id: str
    resource_group: str
    workspace_name: str

    @property
    def address(self) -> str:
        """The beginning of the addresses in this workspace."""
        return f"{SCHEME}subscriptions/{self[0]}/resourcegroups/{self[1]}/workspaces/{self[2]}"


@dataclass(frozen=True)
class Address:
    """A file, model or data asset on Azure Machine Learning."""

    kind: Kind
    name: str
    """The name of the datastore, the model, or the data asset."""
    version: str = ""
    path: str = ""
    """The path in a datastore, without slashes at its ends."""
    workspace: Workspace | None = None
    """None: it is in a registry, or in the current workspace."""
    registry: str = ""

    def __str__(self) -> str:
        start = self.workspace.address + "/" if self.workspace else SCHEME
        if self.registry:
            start = f"{SCHEME}registries/{self.registry}/"
        if self.kind == "datastore":
            return f"{start}datastores/{self.name}/paths/{self.path}"
        return f"{start}{'models' if self.kind == 'model' else 'data'}/{self.name}/versions/{self.version}"

    def within(self, workspace: Workspace | None) -> Address:
        """Return the address with this workspace, unless it names a workspace or a registry itself."""
        return self if self.registry or self.workspace else replace(self, workspace=workspace)

    def below(self, *parts: str) -> Address:
        """Return the address of a file below this folder of a datastore."""
        return replace(self, path="/".join(filter(None, (self.path, *parts))))


def is_address(text: object) -> bool:
    """Whether a text begins like an address, or like a short name in a workspace."""
    return isinstance(text, str) and text.lower().startswith(SHORT)


def parse(text: str) -> Address:
    """Return the address in a text. Raises ValueError with a rule for users."""
    found = _ADDRESS.fullmatch(text)
    short = re.fullmatch(r"azureml:(?!//)([^:@/]+)(?:[:@](.+))?", text, re.IGNORECASE)
    if short is not None:
        where = f"{short[1]}/versions/{short[2] if (short[2] or '').isdigit() else 'VERSION'}"
        raise ValueError(f"is no whole address: write azureml://data/{where}, or azureml://models/{where}")
    if found is None:
        raise ValueError(f"is no address of Azure ML that is read here: write {FORMS}")
    names = (found["subscription"], found["group"], found["workspace"])
    workspace = Workspace(*names) if found["workspace"] else None
    if found["store"] is None:
        kind: Kind = "model" if found["kind"].lower() == "models" else "data"
        return Address(kind, found["name"], found["version"], "", workspace, found["registry"] or "")
    if found["registry"]:
        raise ValueError("a registry has models and data, and no datastores: name the datastore's workspace")
    path = (found["path"] or "").strip("/")
    if any(part in ("", ".", "..") for part in path.split("/")) and path:
        raise ValueError("the path of an address must have no empty part, '.' or '..'")
    return Address("datastore", found["store"], "", path, workspace)


def split_rows(text: str) -> tuple[str, str]:
    """Return an address without its range of rows, and that range, as in `[:4096]`, or an empty text."""
    found = _SLICE.fullmatch(text)
    return (found[1], found[2]) if found else (text, "")
