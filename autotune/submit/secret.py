"""Reads a job's token for the hub from a key vault: the job's file holds the secret's name, and never its value."""

from __future__ import annotations

import os
import re

from autotune.errors import MachineError, printable

SECRET = "AUTOTUNE_HF_TOKEN_SECRET"  # noqa: S105 - the name of a variable
"""The environment variable with the secret's address."""
ADDRESS = re.compile(r"(https://[a-z0-9][a-z0-9.-]+)/secrets/([A-Za-z0-9-]{1,127})(?:/([0-9a-f]{32}))?/?")
"""A secret of a key vault: its vault, its name, and its version where one is named."""


def read_token(address: str) -> str:
    """Return the value of a key vault's secret, read with the job's identity. Raises MachineError, which never shows the value."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise MachineError(f"{SECRET} names no secret of a key vault: https://VAULT.vault.azure.net/secrets/NAME")
    try:
        from azure.core.exceptions import AzureError
        from azure.identity import DefaultAzureCredential, ManagedIdentityCredential
        from azure.keyvault.secrets import SecretClient
    except ModuleNotFoundError as error:  # an environment that the user named
        remedy = "add azure-identity and azure-keyvault-secrets to submit.azureml.environment, or leave that key out"
        raise MachineError(f"{SECRET} cannot be read: there is no module {error.name} here; {remedy}") from None

    client_id = os.environ.get("DEFAULT_IDENTITY_CLIENT_ID")  # as Azure ML names the identity of a job
    identity = ManagedIdentityCredential(client_id=client_id) if client_id else DefaultAzureCredential()
    try:
        value = SecretClient(found[1], identity).get_secret(found[2], found[3]).value
    except AzureError as error:
        said = printable((str(error).splitlines() or [type(error).__name__])[0])[:300]
        remedy = "let the identity of the compute read secrets of the vault (Key Vault Secrets User)"
        raise MachineError(f"the secret {found[2]} of {found[1]} cannot be read ({said}); {remedy}") from None
    if not value or not value.strip():
        raise MachineError(f"the secret {found[2]} of {found[1]} is empty; store the token in it")
    return str(value).strip()
