"""The input model of an Olive configuration: a name on the hub, a folder, or a model of Azure ML."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autotune.errors import did_you_mean, shown
from autotune.sweepfile.olive.draft import Draft
from autotune.sweepfile.olive.foreign import class_of, refuse_foreign, trains
from autotune.sweepfile.olive.sections import Node, Section

TYPES = ("hfmodel", "pytorchmodel")
_OTHER_TYPES = ("onnxmodel", "compositemodel", "compositeonnxmodel", "compositepytorchmodel", "distributedpytorchmodel", "distributedhfmodel", "distributedonnxmodel",
                "openvinomodel", "qnnmodel", "snpemodel", "tensorflowmodel", "diffusersmodel", "optimummodel")  # fmt: skip
_OLD = {"model_name": "model_path_of_hf", "model_loading_args": "load_kwargs", "from_pretrained_args": "load_kwargs"}
_CODE = ("no code that comes with a model is run", "name a model that transformers loads by itself")
_LOADED = "it names inputs, which the model builder knows: no script is run"
_WORKSPACE = ("subscription_id", "resource_group", "workspace_name")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,254}")


_UNNEEDED = {
    "io_config": "the model builder knows inputs and outputs",
    "generation_config": "how text is generated is the application's choice",
    "dummy_inputs_func": "the model builder needs no dummy inputs",
    "is_file": "the path shows it",
    "model_storage_kind": "the path shows it",
    "use_ort_implementation": "the model is PyTorch's own until it is built",
    "generative": "every model here generates text",
    "model_attributes": "they are read from config.json",
}
"""What an input model may say and is not needed, each with the reason."""
_REFUSED = {
    "components": ("a model is exported as a whole", "remove it"),
    "dataset": ("data is named by data_configs", "write a data config, and name it in the pass"),
    "model_script": _CODE,
    "model_loader": _CODE,
    "script_dir": _CODE,
    "adapter_path": (
        "a model with an adapter beside it is not taken",
        "merge the adapter, save the model, and name that folder",
    ),
    "test_model_config": ("there are no test models here", "remove it: autotune plan checks without training"),
    "test_model_path": ("there are no test models here", "remove it: autotune plan checks without training"),
}
"""What an input model may say and is refused, each with the reason and the remedy."""


def read_input_model(draft: Draft, top: Section) -> None:
    """Set `model`, and account for every key of `input_model`."""
    node = top.take("input_model")
    if node is None:
        draft.ledger.refuse(
            ("input_model",), "is missing", 'write "input_model": {"type": "HfModel", "model_path": ...}'
        )
        return
    section = Section(draft.ledger, node, ("config", "hf_config"), _OLD)
    if not _type_fits(draft, section):
        for left in section.rest():
            draft.ledger.unneeded(left.path, "the type of the model is refused")
        section.nodes.clear()
        return
    path, name = section.take("model_path"), section.take_text("model_path_of_hf")
    if path is None and name is None:
        rule = "names no model (model_path, or hf_config.model_name)"
        draft.ledger.refuse(node.path, rule, "add model_path: a name on the hub, or a folder")
    elif path is not None:
        _set_model(draft, path)
        if name is not None:
            draft.ledger.unneeded(name.path, "the model is read from model_path")
    elif name is not None:
        draft.put("model", name.value, name)
    kind, task = class_of(section), section.take_text("task")
    refuse_foreign(draft, task, path or name, kind)
    loader = section.nodes.get("model_loader")
    if loader is not None and loader.value is not None and not draft.foreign:
        draft.foreign = loader.path
    if task is not None and not draft.foreign:
        _read_task(draft, task)
    loading = section.take_section("load_kwargs", ("extra_args",))
    if loading is not None:
        _read_loading(loading)
    if "model_loader" not in section.nodes:
        section.unneeded({"model_script": _LOADED, "script_dir": _LOADED})
    model_format = section.take_text("model_file_format")
    if model_format is not None:
        _read_format(draft, model_format)
    section.unneeded(_UNNEEDED)
    section.refuse(_REFUSED)
    section.close("an input model")


def _type_fits(draft: Draft, section: Section) -> bool:
    kind = section.take_text("type")
    if kind is None:
        return True
    name = kind.value.lower().removesuffix("handler")
    if name in TYPES:
        draft.ledger.unneeded(kind.path, "every model is one of transformers")
        return True
    names = ("HfModel", "PyTorchModel")
    near = "" if name in _OTHER_TYPES else did_you_mean(kind.value, names)
    remedy = near if near.startswith("did you mean") else "name the PyTorch model that it was made from, as HfModel"
    draft.ledger.refuse(kind.path, f"a model of the type {shown(kind.value)} is not taken", remedy)
    draft.foreign = kind.path if name in _OTHER_TYPES else ()
    return False


def _set_model(draft: Draft, node: Node) -> None:
    """Set `model` from model_path: a text, or a resource with a type."""
    if isinstance(node.value, str) and node.value.strip():
        draft.put("model", node.value, node)
        return
    if not isinstance(node.value, Mapping):
        rule = f"must be a name or a folder, got {shown(node.value)[:60]}"
        draft.ledger.refuse(node.path, rule, "write a text")
        return
    section = Section(draft.ledger, node, ("config",))
    kind = section.take_text("type")
    name = kind.value.lower() if kind is not None else ""
    if kind is not None:
        draft.ledger.unneeded(kind.path, "it shows in the address of the model")
    if name in ("file", "folder", "local_folder", "local_file"):
        path = section.take_text("path")
        if path is not None:
            draft.put("model", path.value, path)
    elif name == "string_name":
        path = section.take_text("name")
        if path is not None:
            draft.put("model", path.value, path)
    elif name in ("azureml_registry_model", "azureml_model"):
        _set_azure_model(draft, section, "registry_name" if name == "azureml_registry_model" else "azureml_client")
    elif name == "azureml_datastore":
        _set_datastore_model(draft, section)
    else:
        kinds = ("folder", "string_name", "azureml_datastore", "azureml_registry_model", "azureml_model")
        rule = f"a model path of the type {shown(kind.value if kind else None)} is not taken"
        draft.ledger.refuse(kind.path if kind else node.path, rule, did_you_mean(name, kinds))
        for left in section.rest():
            draft.ledger.unneeded(left.path, "the type of the model path is refused")
        section.nodes.clear()
    section.close("a model path")


def _set_azure_model(draft: Draft, section: Section, place: str) -> None:
    where = [section.take_text(name) for name in ("name", "registry_name") if name == "name" or place == name]
    version = section.take("version")
    ledger = draft.ledger
    start = "azureml://registries"
    nodes = [node for node in where if node is not None]
    if place == "azureml_client":
        client = section.take_section("azureml_client")
        workspace = read_client(draft, client) if client is not None else None
        if workspace is None:
            ledger.refuse(section.path, "names no workspace (azureml_client)", "add its three names")
            return
        start = workspace
    if version is not None and not isinstance(version.value, str | int):
        ledger.refuse(version.path, "must be a version", "write the version of the model")
        return
    if len(nodes) < len(where) or version is None:
        missing = "name, version" + (" or registry_name" if place == "registry_name" else "")
        ledger.refuse(section.path, f"an Azure ML model needs {missing}", "add what is missing")
        return
    for node in nodes:
        if not _PART.fullmatch(node.value):
            ledger.refuse(
                node.path, "must be letters, digits, '.', '_', '-' and '/'", "write the name as Azure ML has it"
            )
            return
    name = nodes[0].value
    address = f"{start}/{nodes[1].value}" if place == "registry_name" else start
    address += f"/models/{name}/versions/{version.value}"
    for node in (*nodes, version):
        draft.put("model", address, node, "as an address of Azure ML")


def _set_datastore_model(draft: Draft, section: Section) -> None:
    """Set `model` to a folder on a datastore."""
    client = section.take_section("azureml_client")
    workspace = read_client(draft, client) if client is not None else None
    store, path = section.take_text("datastore_name"), section.take_text("relative_path")
    if workspace is None or store is None or path is None:
        rule = "a folder on a datastore needs azureml_client, datastore_name and relative_path"
        draft.ledger.refuse(section.path, rule, "add what is missing")
        return
    address = f"{workspace}/datastores/{store.value}/paths/{path.value.strip('/')}"
    for node in (store, path):
        draft.put("model", address, node, "as an address of Azure ML")


def read_client(draft: Draft, section: Section, runs: bool = False) -> str | None:
    """Return the address of a workspace that an `azureml_client` names, and account for its keys; None where it names none.

    `runs`: a job runs in it, and not only data or a model lies there.
    """
    nodes = [section.take_text(name) for name in _WORKSPACE]
    vault = section.take_text("keyvault_name")
    if vault is not None:
        draft.vaults.append(vault)
        draft.ledger.unneeded(vault.path, "a token for the hub is read from a vault where hf_token says so")
    section.unneeded(
        {
            "read_timeout": "the SDK's own is kept",
            "max_operation_retries": "what fails for a moment is tried again",
            "operation_retry_interval": "what fails for a moment is tried again",
            "default_auth_params": "whoever is logged in is taken: az login, or a managed identity",
        }
    )
    section.refuse(
        {
            "aml_config_path": ("a workspace is named, not read from a file", f"write {', '.join(_WORKSPACE)}"),
        }
    )
    section.close("azureml_client")
    found = [node for node in nodes if node is not None]
    if len(found) < len(_WORKSPACE):
        return None
    elsewhere = not runs and draft.get("submit.azureml.workspace_name") is not None
    for name, node in zip(_WORKSPACE, found, strict=True):
        if elsewhere:
            draft.ledger.unneeded(
                node.path, "it shows in the address; the job runs in the workspace that is named for it"
            )
        else:
            draft.put(f"submit.azureml.{name}", node.value, node)
    subscription, group, workspace = (node.value for node in found)
    return f"azureml://subscriptions/{subscription}/resourcegroups/{group}/workspaces/{workspace}"


def _read_task(draft: Draft, task: Node) -> None:
    if task.value.startswith("text-generation") or task.value == "causal-lm":
        draft.ledger.unneeded(task.path, "every model here generates text")
    elif trains(draft.ledger.document.get("passes")):
        rule = f"models are trained for text-generation, and not for {shown(task.value)}"
        draft.ledger.refuse(task.path, rule, "write text-generation: labels are completions to choose among")
    else:
        draft.ledger.unneeded(task.path, "the model builder exports for text-generation whatever the task says", True)


def _read_loading(section: Section) -> None:
    trust = section.take_flag("trust_remote_code")
    if trust is not None:
        why = "no code of a model's own is ever run, and none is needed: the architectures that are taken are built in"
        section.ledger.unneeded(trust.path, why, tell=trust.value)
    section.unneeded(
        {
            "torch_dtype": "the model is read in the precision of its files; the passes say in which it is trained and built",
            "dtype": "the model is read in the precision of its files; the passes say in which it is trained and built",
            "attn_implementation": "PyTorch's own is taken, and the build has another",
            "attention_implementation": "PyTorch's own is taken, and the build has another",
            "_attn_implementation": "PyTorch's own is taken, and the build has another",
            "device_map": "train.device says where it is trained",
            "max_memory": "workers.memory_mb bounds memory",
            "low_cpu_mem_usage": "weights are loaded without a copy",
            "use_safetensors": "weights are read from safetensors only",
            "use_cache": "training keeps no cache, and builds have one",
        }
    )
    quantised = (
        "an adapter is merged into original weights",
        "remove it; for QLoRA the pass says how the base is quantised",
    )
    section.refuse(
        {
            "quantization_method": quantised,
            "quantization_config": quantised,
            "load_in_4bit": quantised,
            "load_in_8bit": quantised,
        }
    )
    section.no_token("token")
    revision = section.take_text("revision")
    if revision is not None and revision.value == "main":
        section.ledger.unneeded(revision.path, "main is what is fetched")
    elif revision is not None:
        remedy = "download that revision, and name its folder"
        section.ledger.refuse(revision.path, "the newest revision of a model is fetched, and no other", remedy)
    section.close("load_kwargs")


def _read_format(draft: Draft, node: Node) -> None:
    if node.value in ("PyTorch.EntireModel", "PyTorch.StateDict", "PyTorch.TorchScript"):
        remedy = "save it with save_pretrained(folder), and name that folder"
        draft.ledger.refuse(node.path, f"{node.value} is a pickle, which is never read", remedy)
    elif node.value.startswith("PyTorch."):
        draft.ledger.unneeded(node.path, "the folder shows it: that of an MLflow model has its files in data/model")
    else:
        draft.ledger.refuse(node.path, f"the format {shown(node.value)} is not taken", "name a model of transformers")
