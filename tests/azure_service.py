"""A local service that answers as Azure Machine Learning and its blob storage do, for the real SDK.

The SDK speaks HTTP through `requests`; its adapter is replaced by one that sends every request, whatever the host, to a real
HTTP server on this machine. Containers are folders, so that a job that was submitted can be run here with its inputs and
outputs as the folders that a node would mount. Faults can be asked for: see `Service.faults`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from local_server import local_server

SUBSCRIPTION, GROUP, WORKSPACE = "11111111-2222-3333-4444-555555555555", "group", "space"
STORE = "workspaceblobstore"
ACCOUNT_KEY = base64.b64encode(b"the key of the storage account!!").decode()
SAS = "sv=2024&sig=theSignatureOfTheService%3D"
TENANT = "99999999-2222-3333-4444-555555555555"
ROOT = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices"
    f"/workspaces/{WORKSPACE}"
)


@dataclass
class Asked:
    """A request that the service was sent."""

    method: str
    host: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body or b"null")


@dataclass
class Answer:
    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    """Bytes after which the connection is closed."""


def refusal(status: int, code: str, message: str) -> Answer:
    return Answer(status, {"error": {"code": code, "message": message}}, {"x-ms-error-code": code})


Fault = Callable[[Asked], Answer | None]


class Service:
    """One workspace with its storage, a registry, and its jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[Asked] = []
        self.unknown: list[str] = []
        self.faults: list[Fault] = []
        """Asked before anything else; the first answer counts."""
        self.computes = {"gpu-cluster": {"computeType": "AmlCompute", "properties": {
            "vmSize": "STANDARD_NC24ADS_A100_V4", "vmPriority": "Dedicated", "scaleSettings": {"maxNodeCount": 1, "minNodeCount": 0}}},
            "arc": {"computeType": "Kubernetes", "resourceId": "/subscriptions/x/connectedClusters/arc", "properties": {}},
            "cheap": {"computeType": "AmlCompute", "properties": {
                "vmSize": "STANDARD_NC24ADS_A100_V4", "vmPriority": "LowPriority", "scaleSettings": {"maxNodeCount": 1, "minNodeCount": 0}}}}  # fmt: skip
        self.jobs: dict[str, dict[str, Any]] = {}
        self.assets: dict[str, dict[str, Any]] = {}
        self.models: dict[tuple[str, str, str], dict[str, Any]] = {}
        """By registry (or empty), name and version."""
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.markers: list[str] = []
        """Empty blobs that stand for folders, as drivers of mounts leave them in accounts without folders."""
        self.logs: dict[str, str] = {}
        self.credentials = "AccountKey"
        self.mounts = 0
        self.secrets: dict[str, str] = {}
        (folder / "acct" / "azureml-blobstore").mkdir(parents=True)

    @property
    def store(self) -> Path:
        """The files of the workspace's blob store."""
        return self.folder / "acct" / "azureml-blobstore"

    # --- routes ------------------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        self.requests.append(asked)
        for fault in self.faults:
            found = fault(asked)
            if found is not None:
                return found
        host = asked.host
        if ".blob." in host:
            return self._blob(asked)
        if host.endswith(".vault.azure.net"):
            return self._vault(asked)
        if host in ("management.azure.com", "eastus.api.azureml.ms", "eastus2.api.azureml.ms"):
            for pattern, method in self._routes():
                found_route = re.fullmatch(pattern, asked.path, re.IGNORECASE)
                if found_route is not None:
                    return method(asked, *found_route.groups())
        self.unknown.append(f"{asked.method} {host}{asked.path}")
        return refusal(404, "ResourceNotFound", f"no such thing: {asked.path}")

    def _routes(self) -> list[tuple[str, Callable[..., Answer]]]:
        root = re.escape(ROOT)
        return [
            (root, self._workspace),
            (rf"{root}/computes", self._list_computes),
            (rf"{root}/computes/([^/]+)", self._compute),
            (rf"{root}/datastores/([^/]+)", self._datastore),
            (rf"{root}/datastores/([^/]+)/listSecrets", self._secrets),
            (rf"{root}/(codes)/([^/]+)/versions", self._versions),
            (rf"{root}/codes/([^/]+)/versions/([^/]+)/startPendingUpload", self._pending),
            (rf"{root}/(codes|environments)/([^/]+)/versions/([^/]+)", self._asset),
            (rf"{root}/models/([^/]+)/versions/([^/]+)", lambda a, n, v: self._model(a, "", n, v)),
            (rf"{root}/jobs/([^/]+)", self._job),
            (rf"{root}/jobs/([^/]+)/cancel", self._cancel),
            (r"/subscriptions/[^/]+/resourceGroups/.*", self._nothing),
            (r"/discovery", self._discovery),
            (r"/history/v1.0/subscriptions/.*/runs/([^/]+)/details", self._details),
            (r"/registrymanagement/v1.0/registries/([^/]+)/discovery", self._registry),
            (r"/mferp/managementfrontend/.*/registries/([^/]+)/models/([^/]+)/versions/([^/]+)", self._model),
            (r"/mferp/managementfrontend/.*/registries/([^/]+)/datarefs/([^/]+)/versions/([^/]+)", self._reference),
        ]

    def _nothing(self, asked: Asked, *rest: str) -> Answer:
        missing = re.search(r"/workspaces/([^/]+)", asked.path)
        name = missing[1] if missing else asked.path
        if missing and name != WORKSPACE:
            return refusal(404, "ResourceNotFound", f"The Resource 'Microsoft.MachineLearningServices/workspaces/{name}' "
                           f"under resource group '{GROUP}' was not found.")  # fmt: skip
        return refusal(404, "ResourceNotFound", f"not found: {asked.path.rpartition('/')[2]}")

    def _workspace(self, asked: Asked) -> Answer:
        return Answer(body={"id": ROOT, "name": WORKSPACE, "location": "eastus", "type": "workspaces", "properties": {
            "workspaceId": "77777777-2222-3333-4444-555555555555", "friendlyName": WORKSPACE, "provisioningState": "Succeeded",
            "discoveryUrl": "https://eastus.api.azureml.ms/discovery",
            "mlFlowTrackingUri": f"azureml://eastus.api.azureml.ms/mlflow/v1.0{ROOT}",
            "storageAccount": "/subscriptions/x/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/acct"}})  # fmt: skip

    def _discovery(self, asked: Asked, *rest: str) -> Answer:
        url = "https://eastus.api.azureml.ms"
        return Answer(body={"api": url, "history": url, "experimentation": url})

    def _compute_body(self, name: str) -> dict[str, Any]:
        properties = {"provisioningState": "Succeeded", "computeLocation": "eastus", **self.computes[name]}
        return {"id": f"{ROOT}/computes/{name}", "name": name, "location": "eastus", "properties": properties}

    def _list_computes(self, asked: Asked) -> Answer:
        return Answer(body={"value": [self._compute_body(name) for name in self.computes]})

    def _compute(self, asked: Asked, name: str) -> Answer:
        if name not in self.computes:
            return refusal(404, "ResourceNotFound", f"Compute with name {name} not found in workspace {WORKSPACE}.")
        return Answer(body=self._compute_body(name))

    def _datastore(self, asked: Asked, name: str) -> Answer:
        if name != STORE:
            return refusal(404, "UserError", f"Could not find datastore {name} in this workspace.")
        return Answer(body={"id": f"{ROOT}/datastores/{name}", "name": name, "properties": {
            "datastoreType": "AzureBlob", "accountName": "acct", "containerName": "azureml-blobstore",
            "endpoint": "core.windows.net", "protocol": "https", "isDefault": True, "subscriptionId": SUBSCRIPTION,
            "resourceGroup": GROUP, "serviceDataAccessAuthIdentity": "None",
            "credentials": {"credentialsType": self.credentials}}})  # fmt: skip

    def _secrets(self, asked: Asked, name: str) -> Answer:
        if self.credentials == "Sas":
            return Answer(body={"secretsType": "Sas", "sasToken": SAS})
        return Answer(body={"secretsType": "AccountKey", "key": ACCOUNT_KEY})

    # --- assets ------------------------------------------------------------------------------------------------------

    def _versions(self, asked: Asked, kind: str, name: str) -> Answer:
        found = [one for key, one in self.assets.items() if key.startswith(f"{kind}/{name}/")]
        return Answer(body={"value": found})

    def _pending(self, asked: Asked, name: str, version: str) -> Answer:
        url = f"https://acct.blob.core.windows.net/code-{name[:20]}"
        (self.folder / "acct" / f"code-{name[:20]}").mkdir(exist_ok=True)
        return Answer(body={"pendingUploadId": "1", "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {"blobUri": url, "storageAccountArmId": "/s/acct",
                "credential": {"credentialType": "SAS", "sasUri": f"{url}?{SAS}"}}})  # fmt: skip

    def _asset(self, asked: Asked, kind: str, name: str, version: str) -> Answer:
        key = f"{kind}/{name}/{version}"
        if asked.method == "PUT":
            place = f"{ROOT}/{kind}/{name}/versions/{version}"
            self.assets[key] = {"id": place, "name": version, "properties": asked.json["properties"]}
        if key not in self.assets:
            return refusal(404, "UserError", f"Not found: {key}")
        return Answer(201 if asked.method == "PUT" else 200, self.assets[key])

    def add_model(self, registry: str, name: str, version: str, folder: Path, kind: str = "mlflow_model") -> None:
        """Register a model whose files are those of `folder`."""
        place = f"models/{name}/{version}"
        shutil.copytree(folder, self.store / place)
        uri = (
            f"https://acct.blob.core.windows.net/azureml-blobstore/{place}" if registry
            else f"azureml://subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/workspaces/{WORKSPACE}/datastores/{STORE}/paths/{place}"
        )  # fmt: skip
        self.models[registry, name, version] = {
            "id": f"azureml://registries/{registry}/models/{name}/versions/{version}" if registry else f"{ROOT}/models/{name}/versions/{version}",
            "name": version,
            "properties": {"modelType": kind, "modelUri": uri, "isAnonymous": False, "isArchived": False, "properties": {}, "tags": {},
                           "flavors": {}},
        }  # fmt: skip

    def _model(self, asked: Asked, registry: str, name: str, version: str) -> Answer:
        found = self.models.get((registry, name, version))
        if found is None:
            return refusal(404, "ModelNotFound", f"Model {name}:{version} was not found in {registry or WORKSPACE}.")
        return Answer(body=found)

    def _registry(self, asked: Asked, name: str) -> Answer:
        if not any(registry == name for registry, _, _ in self.models):
            return refusal(404, "RegistryNotFound", f"Registry {name} was not found.")
        return Answer(body={"registryName": name, "subscriptionId": SUBSCRIPTION, "resourceGroup": GROUP,
            "primaryRegion": "eastus", "regions": ["eastus"],
            "primaryRegionResourceProviderUri": "https://eastus.api.azureml.ms/"})  # fmt: skip

    def _reference(self, asked: Asked, registry: str, name: str, version: str) -> Answer:
        url = f"https://acct.blob.core.windows.net/azureml-blobstore/models/{name}/{version}"
        return Answer(body={"blobReferenceForConsumption": {"blobUri": url, "storageAccountArmId": "/s/acct",
            "credential": {"credentialType": "SAS", "sasUri": f"https://acct.blob.core.windows.net/azureml-blobstore?{SAS}"}}})  # fmt: skip

    # --- jobs --------------------------------------------------------------------------------------------------------

    def _job(self, asked: Asked, name: str) -> Answer:
        if asked.method == "PUT":
            properties = asked.json["properties"]
            studio = f"https://ml.azure.com/runs/{name}?wsid={ROOT}"
            services = {"Studio": {"endpoint": studio, "jobServiceType": "Studio"}}
            self.jobs[name] = {"id": f"{ROOT}/jobs/{name}", "name": name, "type": "jobs",
                               "properties": {**properties, "status": "Queued", "services": services}}  # fmt: skip
            return Answer(201, self.jobs[name])
        if name not in self.jobs:
            return refusal(404, "UserError", f"Run {name} was not found.")
        return Answer(body=self.jobs[name])

    def _cancel(self, asked: Asked, name: str) -> Answer:
        self.set_status(name, "Canceled")
        return Answer(200, {})

    def set_status(self, name: str, status: str, error: str = "") -> None:
        self.jobs[name]["properties"]["status"] = status
        self.jobs[name]["error"] = error

    def _details(self, asked: Asked, name: str) -> Answer:
        if name not in self.jobs:
            return refusal(404, "UserError", f"Run {name} was not found.")
        log = f"https://acct.blob.core.windows.net/azureml-blobstore/logs/{name}/user_logs/std_log.txt"
        body: dict[str, Any] = {
            "runId": name, "status": self.jobs[name]["properties"]["status"],
            "logFiles": {"user_logs/std_log.txt": f"{log}?{SAS}"} if name in self.logs else {},
        }  # fmt: skip
        if self.jobs[name].get("error"):
            body["error"] = {"error": {"code": "UserError", "message": self.jobs[name]["error"]}}
        return Answer(body=body)

    def write_log(self, name: str, text: str) -> None:
        self.logs[name] = text
        file = self.store / "logs" / name / "user_logs" / "std_log.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    # --- a node ------------------------------------------------------------------------------------------------------

    def place(self, uri: str) -> Path:
        """Where a datastore's address lies on this machine."""
        found = re.search(r"/datastores/([^/]+)/paths/(.*)$", uri, re.IGNORECASE)
        if found:
            return self.store / found[2].rstrip("/")
        registered = re.search(r"(?:registries/([^/]+)/)?models/([^/]+)/versions/([^/]+)", uri)
        assert registered, uri
        return self.store / "models" / registered[2] / registered[3]

    def run(self, name: str, work: Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Do what a node does: the code in a folder, inputs and outputs mounted, the command run in a shell."""
        shutil.rmtree(work, ignore_errors=True)
        properties = self.jobs[name]["properties"]
        code = self.assets["/".join(re.search(r"/(codes)/([^/]+)/versions/([^/]+)$", properties["codeId"]).groups())]  # type: ignore[union-attr]
        source = self.folder / urlsplit(code["properties"]["codeUri"]).netloc.partition(".")[0]
        shutil.copytree(source / urlsplit(code["properties"]["codeUri"]).path.strip("/"), work)
        command: str = properties["command"]
        for key, one in (properties.get("inputs") or {}).items():
            place = self.place(one["uri"])
            self.mounts += 1  # each job has its inputs at another place
            mount = work.parent / f"mount-{self.mounts}" / place.name
            mount.parent.mkdir()
            mount.symlink_to(place)
            command = command.replace("${{inputs." + key + "}}", str(mount))
        for key, one in (properties.get("outputs") or {}).items():
            folder = self.place(one["uri"])
            folder.mkdir(parents=True, exist_ok=True)
            command = command.replace("${{outputs." + key + "}}", str(folder))
        assert "${{" not in command, command
        tools = work.parent / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n', encoding="utf-8")
        (tools / "python").chmod(0o755)
        given = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AUTOTUNE_CACHE")}
        given |= {
            "PATH": f"{tools}:{os.environ['PATH']}",
            **(properties.get("environmentVariables") or {}),
            **(environment or {}),
        }
        self.set_status(name, "Running")
        done = subprocess.run(["bash", "-c", command], cwd=work, capture_output=True, text=True, check=False, env=given)
        self.write_log(name, done.stdout + done.stderr)
        return done

    # --- storage -----------------------------------------------------------------------------------------------------

    def _vault(self, asked: Asked) -> Answer:
        name = asked.path.strip("/").split("/")[1]
        if "authorization" not in asked.headers:
            challenge = (
                f'Bearer authorization="https://login.microsoftonline.com/{TENANT}", resource="https://vault.azure.net"'
            )
            return Answer(401, {"error": {"code": "Unauthorized"}}, {"WWW-Authenticate": challenge})
        if name not in self.secrets:
            return refusal(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")
        return Answer(
            body={"value": self.secrets[name], "id": f"https://{asked.host}/secrets/{name}/0", "attributes": {}}
        )

    def _blob(self, asked: Asked) -> Answer:
        account = asked.host.partition(".")[0]
        container, _, blob = asked.path.strip("/").partition("/")
        base = self.folder / account / container
        file = base / blob
        key = f"{container}/{blob}"
        comp = asked.query.get("comp", [""])[0]
        if comp == "list":
            return self._list(asked, base)
        if not blob:
            return Answer(200 if base.is_dir() else 404)
        if asked.method == "PUT" and comp == "block":
            self.blocks.setdefault(key, {})[asked.query["blockid"][0]] = asked.body
            return Answer(201)
        if asked.method == "PUT" and comp == "blocklist":
            names = re.findall(r"<(?:Latest|Uncommitted|Committed)>([^<]+)<", asked.body.decode())
            return self._put(asked, file, key, b"".join(self.blocks[key][name] for name in names))
        if asked.method == "PUT" and comp == "metadata":
            self.metadata[key] = {k: v for k, v in asked.headers.items() if k.startswith("x-ms-meta-")}
            return Answer(200, headers=self._about(file))
        if asked.method == "PUT":
            if asked.headers.get("if-none-match") == "*" and file.exists():
                return refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
            return self._put(asked, file, key, asked.body)
        if asked.method == "HEAD" and blob in self.markers:
            return Answer(200, b"", {"ETag": '"0x1"', "x-ms-meta-hdi_isfolder": "true", "x-ms-blob-type": "BlockBlob"})
        if not file.is_file():
            return Answer(404, f"<?xml version='1.0'?><Error><Code>BlobNotFound</Code><Message>The specified blob does not exist: {blob}</Message></Error>",
                          {"x-ms-error-code": "BlobNotFound", "Content-Type": "application/xml"})  # fmt: skip
        if asked.method == "DELETE":
            file.unlink()
            return Answer(202)
        content = file.read_bytes()
        headers = {
            **self._about(file),
            **self.metadata.get(key, {}),
            "x-ms-blob-type": "BlockBlob",
            "Accept-Ranges": "bytes",
        }
        if asked.method == "HEAD":
            return Answer(200, content, headers)
        ranged = re.match(r"bytes=(\d+)-(\d*)", asked.headers.get("x-ms-range") or asked.headers.get("range") or "")
        if ranged:
            first, last = int(ranged[1]), int(ranged[2]) if ranged[2] else len(content) - 1
            if first >= len(content):
                return Answer(416, headers={"x-ms-error-code": "InvalidRange"})
            part = content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(content)}"
            return Answer(206, part, headers)
        return Answer(200, content, headers)

    def _put(self, asked: Asked, file: Path, key: str, content: bytes) -> Answer:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        self.metadata[key] = {k: v for k, v in asked.headers.items() if k.startswith("x-ms-meta-")}
        return Answer(201, headers=self._about(file))

    def _about(self, file: Path) -> dict[str, str]:
        stat = file.stat()
        return {"ETag": f'"0x{stat.st_mtime_ns:X}{stat.st_size:X}"', "Last-Modified": "Sat, 28 Nov 2026 12:00:00 GMT"}

    def _list(self, asked: Asked, base: Path) -> Answer:
        prefix = asked.query.get("prefix", [""])[0]
        delimiter = asked.query.get("delimiter", [""])[0]
        blobs, folders = [], dict[str, None]()
        for file in sorted(one for one in base.rglob("*") if one.is_file()):
            name = file.relative_to(base).as_posix()
            if not name.startswith(prefix):
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders[prefix + rest.partition(delimiter)[0] + delimiter] = None
                continue
            about = self._about(file)
            blobs.append(f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>{file.stat().st_size}</Content-Length>"
                         f"<Etag>{escape(about['ETag'].strip(chr(34)))}</Etag><Last-Modified>{about['Last-Modified']}</Last-Modified>"
                         "<BlobType>BlockBlob</BlobType></Properties></Blob>")  # fmt: skip
        about = (
            "<Metadata><hdi_isfolder>true</hdi_isfolder></Metadata>"
            if "metadata" in asked.query.get("include", [""])[0]
            else ""
        )
        blobs += [f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>0</Content-Length><Etag>0x1</Etag>"
                  f"<BlobType>BlockBlob</BlobType></Properties>{about}</Blob>"
                  for name in self.markers if name.startswith(prefix) and not (delimiter and delimiter in name[len(prefix) :])]  # fmt: skip
        parts = "".join(f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>" for name in folders)
        body = f"<?xml version='1.0' encoding='utf-8'?><EnumerationResults><Blobs>{''.join(blobs)}{parts}</Blobs><NextMarker/></EnumerationResults>"
        return Answer(200, body, {"Content-Type": "application/xml"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    service: Service

    def _do(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        asked = Asked(self.command, headers.get("x-real-host", ""), unquote(parts.path), query, headers, body)
        try:
            answer = self.service.answer(asked)
        except Exception as error:  # noqa: BLE001 - a mistake of this service, to be seen in the test
            self.service.unknown.append(f"{asked.method} {asked.path}: {error!r}")
            answer = refusal(500, "InternalServerError", repr(error))
        content = answer.body if isinstance(answer.body, bytes) else (answer.body or "").encode() if isinstance(answer.body, str | None) else json.dumps(answer.body).encode()  # fmt: skip
        if answer.cut == 0:  # not a byte of an answer
            self.close_connection = True
            return
        self.send_response(answer.status)
        named = {key.lower() for key in answer.headers}
        if "content-type" not in named:
            self.send_header(
                "Content-Type", "application/octet-stream" if isinstance(answer.body, bytes) else "application/json"
            )
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if answer.cut is None else content[: answer.cut])
        if answer.cut is not None:
            self.wfile.flush()
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_PATCH = _do  # noqa: N815 - as http.server calls them

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(folder: Path, monkeypatch: Any) -> Iterator[Service]:
    """Answer every request of this process that goes through `requests`."""
    import requests.adapters

    service = Service(folder)
    handler = type("Handler", (_Handler,), {"service": service})
    real = requests.adapters.HTTPAdapter.send

    def send(self: Any, request: Any, **options: Any) -> Any:
        parts = urlsplit(request.url)
        assert parts.hostname not in ("127.0.0.1", "localhost")
        request.headers["X-Real-Host"] = parts.netloc
        shown = request.url
        request.url = f"{server.url}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        try:
            found = real(self, request, **{**options, "proxies": None, "verify": False})
        finally:
            request.url = shown
        found.url = shown
        return found

    with local_server(handler) as server:
        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", send)
        yield service


class Login:
    """A credential that hands out tokens without asking anybody; `expired`: one that cannot."""

    def __init__(self, expired: bool = False) -> None:
        self.expired = expired

    def get_token(self, *scopes: str, **options: Any) -> Any:
        from azure.core.credentials import AccessToken
        from azure.core.exceptions import ClientAuthenticationError

        if self.expired:
            raise ClientAuthenticationError("AADSTS700082: The refresh token has expired due to inactivity.")
        head, body = ({"alg": "none"}, {"tid": TENANT, "aud": "https://ml.azure.com", "oid": "me"})
        parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in (head, body)]
        return AccessToken(".".join([*parts, "c2lnbmF0dXJl"]), int(time.time()) + 3600)

    def get_token_info(self, *scopes: str, **options: Any) -> Any:
        from azure.core.credentials import AccessTokenInfo

        token = self.get_token(*scopes)
        return AccessTokenInfo(token.token, token.expires_on)
