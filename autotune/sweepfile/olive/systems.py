"""Where an Olive configuration runs: providers of this machine, or a job of Azure ML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from autotune.errors import did_you_mean, nearest, shown
from autotune.providers import PROVIDERS
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.input_model import read_client
from autotune.sweepfile.olive.sections import Node, Section

_BY_RUNTIME = {provider.runtime_name.lower(): provider.name for provider in PROVIDERS.values()}
_DEVICES = {"cpu": "cpu", "gpu": "cuda"}
"""The provider that Olive takes on a device where none is named."""
_OLD = {
    "aml_docker_config": "environment", "aml_environment_config": "environment", "aml_compute": "compute",
    "azureml_client_config": "azureml_client", "local_accelerators": "accelerators",
}  # fmt: skip
_ENVIRONMENT = {"base_image": "image", "conda_file_path": "conda_file", "name": "environment_name"}
_ELSEWHERE = {
    "docker": "run autotune itself in that image",
    "pythonenvironment": "run autotune from that environment",
    "isolatedort": "run autotune from that environment",
}


class Systems:
    """The systems of a file by name; each is read when host or target names it."""

    def __init__(self, draft: Draft, top: Section) -> None:
        self.draft = draft
        self.nodes: dict[str, Node] = {}
        self.read: set[str] = set()
        self.token: Node | None = None
        """Says that a job needs a token for the hub."""
        node = top.take("systems")
        if node is None:
            return
        if not isinstance(node.value, Mapping):
            draft.ledger.refuse(node.path, "must be a mapping", "write { ... }")
            return
        if not node.value:
            draft.ledger.unneeded(node.path, "it is empty")
        self.nodes = {str(name): Node((*node.path, str(name)), value) for name, value in node.value.items()}

    def close(self) -> None:
        """Say of systems that nothing names that they are not needed."""
        for name, node in self.nodes.items():
            if name not in self.read:
                self.draft.ledger.unneeded(node.path, "neither host nor target names this system")
        if self.token is not None:
            self._read_token(self.token)

    def take(self, top: Section, role: str) -> list[str]:
        """Read the system that `role` (host or target) names. Returns the providers that it lists, by our names."""
        ledger = self.draft.ledger
        named = top.take(role)
        if named is None:
            return []
        if isinstance(named.value, Mapping):
            return self._read(named, role)
        if not isinstance(named.value, str) or named.value not in self.nodes:
            known = list(self.nodes)
            remedy = did_you_mean(str(named.value), known) if known else "add it to systems"
            if named.value in ("local_system", "LocalSystem") and not known:
                ledger.unneeded(named.path, "this machine is where it runs")
                return []
            ledger.refuse(named.path, f"there is no system {shown(named.value)}", remedy)
            return []
        ledger.unneeded(named.path, "the system that it names is read")
        if named.value in self.read:
            return []
        self.read.add(named.value)
        return self._read(self.nodes[named.value], role)

    def _read(self, node: Node, role: str) -> list[str]:
        section = Section(self.draft.ledger, node, ("config",), _OLD)
        kind = section.take_text("type")
        name = kind.value.lower().removesuffix("system") if kind is not None else "local"
        ledger = self.draft.ledger
        if name in _ELSEWHERE:
            assert kind is not None
            ledger.refuse(kind.path, f"a system of the type {kind.value} is not started here", _ELSEWHERE[name])
            section.unneeded(dict.fromkeys(list(section.nodes), "the system is refused"))
            return []
        if name not in ("local", "azureml"):
            assert kind is not None
            known = ("LocalSystem", "AzureML")
            ledger.refuse(kind.path, f"there is no system of the type {shown(kind.value)}", did_you_mean(name, known))
            section.unneeded(dict.fromkeys(list(section.nodes), "the system is refused"))
            return []
        if kind is not None and name == "local":
            ledger.unneeded(kind.path, "this machine is where it runs")
        elif kind is not None:
            ledger.map(kind.path, "submit.azureml", "autotune submit --to azureml writes the job", tell=True)
            self._read_azure(section)
        if "accelerators" not in section.nodes and "device" in section.nodes:  # as the oldest files have it
            section.rename({"device": "accelerators"})
        providers = self._accelerators(section, role)
        token = section.take_flag("hf_token")
        if token is not None and token.value and name == "azureml":
            self.token = token
        elif token is not None:
            ledger.unneeded(token.path, "whoever is logged in is taken: huggingface-cli login, or HF_TOKEN")
        section.close(f"a system of the type {kind.value if kind is not None else 'LocalSystem'}")
        return providers

    def _read_token(self, token: Node) -> None:
        """Name the secret in which Olive keeps a token for the hub: hf-token of the vault."""
        vault = self.draft.vaults[-1] if self.draft.vaults else None
        if vault is None:
            why = "names no vault, and no token goes into a job by value: submit.azureml.hf_token names a key vault's secret"
            self.draft.ledger.unneeded(token.path, why, tell=True)
            return
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{2,23}", vault.value):
            rule = "must be the name of a key vault: letters, digits and '-', 3 to 24"
            self.draft.ledger.refuse(vault.path, rule, "write the vault's name alone")
            self.draft.ledger.unneeded(token.path, "the vault is refused")
            return
        secret = f"https://{vault.value.lower()}.vault.azure.net/secrets/hf-token"
        self.draft.put("submit.azureml.hf_token", secret, token, "the secret in which Olive keeps it", tell=True)
        self.draft.ledger.map(vault.path, "submit.azureml.hf_token")

    def _read_azure(self, section: Section) -> None:
        draft, ledger = self.draft, self.draft.ledger
        for name, to in (("compute", "compute"), ("instance_type", "instance_type")):
            node = section.take_text(name)
            if node is not None:
                draft.put(f"submit.azureml.{to}", node.value, node)
        client = section.take_section("azureml_client")
        if client is not None:
            read_client(draft, client, runs=True)
        environment = section.take_section("environment", (), _ENVIRONMENT)
        if environment is not None:
            for name, to in (("image", "image"), ("conda_file", "conda_file"), ("environment_name", "environment")):
                node = environment.take_text(name)
                if node is not None:
                    draft.put(f"submit.azureml.{to}", node.value, node)
            version, label = environment.take("version"), environment.take_text("label")
            base = draft.get("submit.azureml.environment")
            for node, sign in ((version, ":"), (label, "@")):
                if node is not None and base:
                    draft.put("submit.azureml.environment", f"{base}{sign}{node.value}", node)
                elif node is not None:
                    ledger.refuse(node.path, "needs the name of an environment", "add name")
            nothing = ("an image is named, not built", "build and push it, and name it as base_image")
            environment.refuse(dict.fromkeys(("dockerfile", "build_context_path", "inference_config"), nothing))
            environment.close("an environment")
        count = section.take_number("instance_count", whole=True)
        if count is not None and count.value == 1:
            ledger.unneeded(count.path, "one machine runs the sweep")
        elif count is not None:
            ledger.refuse(count.path, "one machine runs the sweep", "write 1, or remove it")
        section.unneeded(
            {
                "is_dev": "the job runs the version of autotune that is installed here",
                "tags": "the job carries the name of the sweep",
                "datastores": "addresses of data name their datastore",
            }
        )
        section.refuse(
            {
                "resources": ("resources are those of the compute", "name a compute that has them"),
                "aml_config_path": (
                    "a workspace is named, not read from a file",
                    "write azureml_client with its three names",
                ),
                "olive_managed_env": (
                    "an environment is named, not made",
                    "write environment with image and conda_file",
                ),
            }
        )

    def _accelerators(self, section: Section, role: str) -> list[str]:
        node = section.take("accelerators")
        if node is None:
            return []
        ledger = self.draft.ledger
        value = [node.value] if isinstance(node.value, str | Mapping) else node.value
        if not isinstance(value, list) or not value:
            ledger.refuse(node.path, "must be a list", 'write e.g. [{"device": "gpu"}]')
            return []
        found: list[str] = []
        for place, part in enumerate(value):
            path = (*node.path, place) if isinstance(node.value, list) and isinstance(part, Mapping) else node.path
            if isinstance(part, str):
                found += self._device(Node(path, part), role, [])
                continue
            member = Section(ledger, Node(path, part))
            listed = self.providers(member.take("execution_providers"))
            device = member.take_text("device")
            if device is not None:
                found += self._device(device, role, listed)
            else:
                found += listed
            library = ("the library of a provider is named on the command line", "add --provider-library NAME=PATH")
            member.refuse({"library": library})
            memory = member.take("memory")
            if memory is not None:
                ledger.unneeded(memory.path, "gpu_memory_mb is measured, and may be limited", tell=True)
            member.close("an accelerator")
        return found

    def _device(self, node: Node, role: str, listed: list[str]) -> list[str]:
        draft, ledger = self.draft, self.draft.ledger
        device = node.value.lower()
        if device not in _DEVICES:
            ledger.refuse(node.path, f"models are not built for {shown(node.value)}", "use cpu or gpu")
            return []
        if role == "host":
            if device == "cpu":
                draft.put("train.device", "cpu", node)
            else:
                ledger.unneeded(node.path, "a GPU is used where there is one")
            return listed
        if listed:
            ledger.unneeded(node.path, "the provider says it")
            return listed
        ledger.map(node.path, "target.provider")
        return [_DEVICES[device]]

    def providers(self, node: Node | None) -> list[str]:
        """Return the providers that a key lists, by our names; refuse those that nothing is built for."""
        if node is None:
            return []
        ledger = self.draft.ledger
        value = [node.value] if isinstance(node.value, str) else node.value
        if not isinstance(value, list) or not value:
            ledger.refuse(node.path, "must be a list of providers", 'write e.g. ["CPUExecutionProvider"]')
            return []
        found: list[str] = []
        for one in value:
            name = one[0] if isinstance(one, list) and one else one
            if isinstance(one, list) and len(one) > 1:
                rule = "the library of a provider is that of its package"
                ledger.refuse(node.path, rule, "name the provider alone")
                return []
            ours = _BY_RUNTIME.get(str(name).lower())
            if ours is None:
                known = [provider.runtime_name for provider in PROVIDERS.values()]
                near = nearest(str(name).lower(), [one.lower() for one in known])
                remedy = (
                    f"did you mean {near}?"
                    if near and near[:5] == str(name).lower()[:5]
                    else f"use one of: {', '.join(known)}"
                )
                ledger.refuse(node.path, f"no models are built for {shown(name)}", remedy)
                return []
            found.append(ours)
        ledger.map(node.path, "target.provider")
        return found


def set_provider(draft: Draft, found: list[tuple[str, Any]]) -> None:
    """Set the provider from what host, target and engine list: (provider, where) in the order in which they count."""
    names = list(dict.fromkeys(name for name, _ in found))
    if not names:
        draft.default("target.provider", "cpu", "Olive's default without a GPU")
        return
    draft.default("target.provider", names[0], str(found[0][1]))
    if len(names) > 1:
        left = ", ".join(names[1:])
        draft.notes.append(
            f"the file also names the provider {left}: one sweep is for one; run it again with "
            f"--set target.provider={names[1]} --out another folder"
        )
