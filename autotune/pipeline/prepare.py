"""Prepare a sweep: fetch and check the base model and the data, and resolve them to files with digests."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.architectures import checked_tokens, has_windowed_caches, remarks
from autotune.candidate import Recipe
from autotune.data.dataset import load_dataset
from autotune.data.schema import SPLITS, AzureFile, Dataset, DataSpec, Remote
from autotune.data.sources import hub_source
from autotune.distribution import pip_install
from autotune.durable import write_aside
from autotune.errors import MachineError, Problem, StageError, UsageError
from autotune.machine import free_disk_mb, machine_digest
from autotune.metrics import LABELLED, Direction, is_function, is_task
from autotune.models import (
    BUILT_IN,
    check_architecture,
    check_export,
    config_of,
    digest_folder,
    is_remote,
    local_folder,
    model_files,
    parameters_of,
    shape_from,
)
from autotune.pipeline.capability import ask_device, exact_recipe, fit_device, tiny_of
from autotune.pipeline.devices import DoJob, plugin_problem, required_devices
from autotune.pipeline.inputs import Inputs
from autotune.pipeline.inspection import Inspected, inspect_job, items_file, judge_inspection
from autotune.pipeline.modules import adapter_notes, refused_modules
from autotune.pipeline.own_stages import own_stages
from autotune.providers import Provider, installed
from autotune.remote.addresses import is_address
from autotune.remote.files import stamp, version_of
from autotune.space.space import Space, fit_recipes
from autotune.stages.inspection_findings import Inspection
from autotune.stages.preparation_jobs import BaseJob, DataJob, LengthsJob, MetricJob, ProbeJob, RemoteFileJob, TaskJob
from autotune.stages.protocol import ORT_WHEELS
from autotune.sweepfile.problems import located
from autotune.sweepfile.schema import Sweep
from autotune.tasks import find_task, on_the_hub
from autotune.usercode import Code, find_function

IMPORT_S = 600.0
"""Seconds that the import of a user's own metric may take."""
_NEEDED = ("torch", "transformers", "peft", "bitsandbytes", "safetensors")
_NEEDED_TO_BUILD = ("onnx", "onnx-ir")


def needs_network(model: str, data: DataSpec, root: Path) -> bool:
    """Whether a sweep names a model or a dataset on the hub, or an lm-eval task with data there; paths are below `root`."""
    if is_task(data.metric) and on_the_hub(find_task(data.metric, root)):
        return True
    sources = (data.train, data.validation, data.test)
    return is_remote(model, root) or any(hub_source(source, root) for source in sources)


def check_packages(sweep: Sweep) -> None:
    """Raise MachineError where a package is missing that the sweep needs."""
    needed = list(_NEEDED)
    if sweep.space.recipes:
        needed += _NEEDED_TO_BUILD
        if not any(installed(wheel) for wheel in ORT_WHEELS):
            needed.append(sweep.provider.wheel)
        if missing_plugin := plugin_problem(sweep.provider):
            raise MachineError(f"{missing_plugin}; {sweep.provider.remedy}")
    if sweep.strategy == "gp":
        needed.append("scipy")
    named = {*sweep.objectives, *(limit.metric for limit in sweep.limits)}
    if any(name.startswith("gpu_memory_mb") for name in named):
        needed.append("nvidia-ml-py")
    if sweep.data.metric == "rouge_l" and not installed("rouge-score"):
        raise MachineError(f"metric rouge_l needs the package rouge-score; {pip_install('rouge')}")
    if is_task(sweep.data.metric) and not installed("lm-eval"):
        raise MachineError(f"metric {sweep.data.metric} needs the package lm-eval; {pip_install('lm-eval')}")
    missing = [name for name in needed if not installed(name)]
    if missing:
        remedy = f"install the extra for this target: {sweep.provider.remedy}"
        raise MachineError(f"this machine lacks {', '.join(missing)}; {remedy}")


def needed_disk_mb(parameters: int, recipes: Sequence[Recipe], builds: int) -> float:
    """Return about how much disk a sweep needs at once, 10^6 bytes: the base, a merged model, and `builds` builds of
    `recipes`.
    """
    full = parameters * 4 / 1e6
    shares = {"fp32": 1.0, "fp16": 0.5, "bf16": 0.5, "int8": 0.4, "int4": 0.2}
    build = full * sum(shares[recipe.precision] for recipe in recipes) / len(recipes) if recipes else 0.0
    return 3 * full + build * builds


def check_disk(parameters: int, cache: Path) -> None:
    """Raise MachineError where the cache's disk is too full even for a few candidates."""
    free, least = free_disk_mb(cache), parameters * 4 / 1e6 * 5
    if free < least:
        message = (
            f"the disk of the cache ({cache}) has {free:.0f} MB free, and this sweep needs at least {least:.0f} MB"
        )
        raise MachineError(f"{message}; free some, or set AUTOTUNE_CACHE to a folder on another disk")


def base_folder(model: str, root: Path, builds_for: str | None, do: DoJob) -> Path:
    """Return the folder of the base model, fetched and converted if need be. Raises MachineError, UsageError.

    `builds_for`: the provider that models are built for; None: none is built.
    """
    folder = local_folder(model, root)
    if model not in BUILT_IN and folder is not None:
        return folder
    try:
        folder = do(BaseJob(name=version_of(model) if is_address(model) else model)).path
    except StageError as error:
        raise MachineError(f"model {model}: {error}") from None
    if model not in BUILT_IN:
        config = config_of(str(folder), Path())
        assert config is not None
        check_architecture(config, model)
        if builds_for is not None:
            check_export(config, model, builds_for)
    return folder


def read_data(sweep: Sweep, do: DoJob | None = None) -> Dataset:
    """Read the sweep's data; data sets on the hub and files on Azure are fetched by `do`.

    Raises UsageError, whose problems name the lines of the sweep file; MachineError.
    """

    def fetch(source: Remote) -> Path:
        assert do is not None
        try:
            if isinstance(source, AzureFile):
                address, seen = stamp(source.address)
                job = RemoteFileJob(address=address, seen=seen)
                return do(job).path / job.file_name
            return do(DataJob(dataset=source.dataset, config=source.config, split=source.split)).path / "data.jsonl"
        except StageError as error:
            raise MachineError(str(error)) from None

    try:
        return load_dataset(sweep.data, sweep.root, sweep.file, fetch if do is not None else None)
    except UsageError as error:
        raise UsageError([located(problem, sweep.file, sweep.lines) for problem in error.problems]) from None


def prepare(
    sweep: Sweep, do: DoJob, cache: Path, machine: str | None = None, gpus: int | None = None, *, away: bool = False
) -> tuple[Sweep, Dataset, Inputs]:
    """Resolve what all candidates share. Returns the sweep with the recipes that can run, the data, and the inputs.

    `machine`: digest of the machines that time models, and `gpus`: how many GPUs a cluster has; None: this machine does all
    jobs. `away`: no node of the target is there now, so its device is not asked what it runs. Raises UsageError (data, model),
    MachineError (packages, disk, provider).
    """
    check_packages(sweep)
    dataset = read_data(sweep, do)
    folder = base_folder(sweep.model, sweep.root, sweep.target.provider if sweep.space.recipes else None, do)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    check_disk(parameters_of(config), cache)
    space = _fit_to_model(sweep.space, sweep.target.provider, config, sweep.file)
    sweep = sweep.model_copy(update={"space": space})
    probe = _probe(sweep.train.device, sweep.provider if space.recipes else None, do, machine, gpus)
    hardware, device_notes = None, list[str]()
    if sweep.space.recipes and sweep.provider.name != "cpu" and not away:
        offered = required_devices(sweep.provider, sweep.target.device, do, sweep.target.label)
        hardware = offered.hardware if sweep.provider.plugged else None
        sweep, device_notes = fit_to_device(sweep, config, offered.hardware, do)

    provider_notes = remarks(config, sweep.target.provider, sweep.train.max_length) if sweep.space.recipes else []
    seen = inspect(sweep, dataset, folder, do, cache)
    base = _base_digest(folder, cache)
    items = _items(sweep, seen.dataset, do, cache)
    stages = own_stages(sweep.space.recipes, sweep.root, sweep.file, do, IMPORT_S)
    code_files = [file for code in (items.code, *stages.values()) if code for file in code.files]
    inputs = Inputs(
        base_dir=folder, base=base, items=items.files, counts=items.counts, labels=seen.dataset.labels,
        device=probe["device"] if sweep.train.device == "auto" else sweep.train.device,
        machine=machine or machine_digest(), model_mb=parameters_of(config) * 4 / 1e6,
        files=(*model_files(folder), *(file for _, file in items.files.values()), *code_files), code=items.code,
        encoding=seen.encoding, pad=seen.pad,
        notes=(
            *sweep.notes, *device_notes, *seen.notes, *provider_notes, *adapter_notes(sweep.space, folder, items.counts["train"]),
        ),
        gpus=probe["gpus"], aggregated=items.aggregated, hardware=hardware, stages=stages,
        window=has_windowed_caches(config, sweep.target.provider),
        beyond=checked_tokens(config, seen.longest or sweep.train.max_length), width=int(config.get("hidden_size") or 0),
    )  # fmt: skip
    return sweep, seen.dataset, replace(inputs, lengths=_lengths(sweep, inputs, do))


def _fit_to_model(space: Space, provider: str, config: dict[str, Any], sweep_file: str) -> Space:
    """Return the space with the recipes that can run on the model. Raises UsageError where none can."""
    fitted = fit_recipes(space, shape_from(config, provider))
    if space.recipes and not fitted.recipes:
        reasons = "; ".join(f"{item.settings}: {item.reason}" for item in fitted.left_out[:3])
        rule = f"no recipe can run on this model ({reasons})"
        raise UsageError(Problem(rule, "space.build", sweep_file, remedy="change or add one"))
    return fitted


def _probe(
    train_device: str, provider: Provider | None, do: DoJob, machine: str | None, gpus: int | None
) -> Mapping[str, Any]:
    """Return which accelerators and providers the machine has. `provider`: of the builds; None: nothing is built.

    Raises MachineError where the device of trainings or the provider is missing.
    """
    try:
        probe = do(probe_job(machine, gpus)).result
    except StageError as error:
        raise MachineError(f"this machine could not be looked at: {error}") from None
    if train_device == "cuda" and probe["device"] != "cuda":
        raise MachineError("train.device is cuda, but PyTorch sees no CUDA device; use auto or cpu")
    if provider is not None and not provider.plugged and provider.runtime_name not in probe["providers"]:
        has = ", ".join(probe["providers"])
        remedy = f"install the {provider.extra} extra on a machine that has it; `autotune doctor` shows what loads"
        raise MachineError(f"provider {provider.name}: this ONNX Runtime has only {has}; {remedy}")
    return probe


def known_digests(cache: Path) -> dict[str, str]:
    """Return the digests of model files that earlier runs have read, as `digest_folder` takes them; none if unreadable."""
    try:
        return dict(json.loads((cache / "digests.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _base_digest(folder: Path, cache: Path) -> str:
    """Return the digest of the base model, and note those of its files in the cache."""
    digests = known_digests(cache)
    base = digest_folder(folder, digests)
    write_aside(cache / "digests.json", json.dumps(digests))
    return base


@dataclass(frozen=True)
class _Items:
    """The items of the splits, and the code that scores them."""

    files: dict[str, tuple[str, Path]]
    """Of each split: digest and file."""
    counts: dict[str, int]
    """Of each split: how many items."""
    code: Code | None
    """The user's own metric, or an lm-eval task."""
    aggregated: bool = False
    """Whether the score of an lm-eval task is no mean of its items."""


def _items(sweep: Sweep, dataset: Dataset, do: DoJob, cache: Path) -> _Items:
    """Write the items of each split to files; an lm-eval task brings its own. Raises UsageError."""
    files = {split: items_file(cache, dataset, split) for split in map(str, SPLITS) if getattr(dataset, split)}
    counts = {split: len(getattr(dataset, split)) for split in files}
    if not is_task(sweep.data.metric):
        return _Items(files, counts, _own_metric(sweep.data.metric, sweep.root, sweep.file, do))
    code = find_task(sweep.data.metric, sweep.root)
    aggregated, splits = _task_items(sweep.data, sweep.objectives.get("lm_eval"), sweep.file, code, do)
    for split, (digest, file, count) in splits.items():
        files[split], counts[split] = (digest, file), count
    return _Items(files, counts, code, aggregated)


def fit_to_device(sweep: Sweep, config: Mapping[str, Any], hardware: str, do: DoJob) -> tuple[Sweep, list[str]]:
    """Return the sweep with the recipes that the target's device runs, and in lines what was left out.

    Raises MachineError where it runs none.
    """
    provider = sweep.provider
    try:
        answers = ask_device(sweep.target, hardware, sweep.space.recipes, tiny_of(config), sweep.train.max_length, do)
    except StageError as error:
        raise MachineError(f"provider {provider.name} could not be asked what its device runs: {error}") from None
    space = fit_device(sweep.space, provider, answers)
    if not space.recipes:
        reasons = "; ".join(f"{item.settings}: {item.reason}" for item in space.left_out[:3])
        raise MachineError(f"no recipe of this sweep runs on the target's device ({reasons})")
    new = space.left_out[len(sweep.space.left_out) :]
    lines = [f"device: {hardware}", *(f"left out: {item.settings}: {item.reason}" for item in new)]
    return sweep.model_copy(update={"space": space, "exact": exact_recipe(provider, answers)}), lines


def inspect(sweep: Sweep, dataset: Dataset, folder: Path, do: DoJob, cache: Path) -> Inspected:
    """Inspect the model in `folder`, its tokenizer and the data in a worker. Raises UsageError, MachineError."""
    try:
        found = do(
            inspect_job(sweep.data, sweep.train.max_length, bool(sweep.space.recipes), dataset, folder, cache)
        ).result
    except StageError as error:
        raise MachineError(f"model {sweep.model} could not be looked at: {error}") from None
    seen = Inspection.model_validate(found)
    judged = judge_inspection(sweep.model, sweep.file, sweep.data, sweep.train.max_length, dataset, seen)
    return refused_modules(sweep.space.lora, sweep.file, judged)


_ORDER = (0, 5, 7, 2, 4, 6, 1, 3)
"""Which of eight new lengths goes with each of eight prompts, the shortest first: so the two have no correlation."""


def _lengths(sweep: Sweep, inputs: Inputs, do: DoJob) -> dict[str, tuple[tuple[int, int], ...]]:
    """Return the prompt and new tokens of the sequences of each workload that draws them from the validation items.

    Raises UsageError where an item does not fit.
    """
    timed = sweep.target.timed if sweep.space.recipes else {}
    drawing = {suffix: workload for suffix, workload in timed.items() if workload.drawn}
    if not drawing:
        return {}
    data, file = inputs.items["validation"]
    job = LengthsJob(
        base=inputs.base, data=data, labels=inputs.labels if sweep.data.metric in LABELLED else (),
        max_length=sweep.train.max_length, encoding=inputs.encoding, base_dir=inputs.base_dir, data_file=file,
    )  # fmt: skip
    try:
        found = do(job).result
    except StageError as error:
        raise UsageError(Problem(str(error), "data", sweep.file)) from None
    lengths = {}
    for suffix, workload in drawing.items():
        prompts, new = (
            found[name] if getattr(workload, name) == "data" else [getattr(workload, name)] * len(_ORDER)
            for name in ("prompt_tokens", "new_tokens")
        )
        pairs = [(prompt, new[place]) for prompt, place in zip(prompts, _ORDER, strict=True)]
        room = found["context"] or math.inf
        lengths[suffix] = tuple((int(max(1, min(prompt, room - tokens))), tokens) for prompt, tokens in pairs)
    return lengths


def _own_metric(metric: str, root: Path, sweep_file: str, do: DoJob) -> Code | None:
    """Return the source of the user's own metric, tried in a worker; None where the sweep names none. Raises UsageError."""
    if not is_function(metric):
        return None
    code = find_function(metric, root)
    try:
        do(MetricJob(metric=metric, code=code.digest, file=code.file, root=code.root), IMPORT_S)
    except StageError as error:
        raise UsageError(
            Problem(str(error), "data.metric", sweep_file, remedy="logs/prepare.log in the results folder has the rest")
        ) from None
    return code


def _task_items(
    spec: DataSpec, said: Direction | None, sweep_file: str, code: Code, do: DoJob
) -> tuple[bool, dict[str, tuple[str, Path, int]]]:
    """Return whether an lm-eval task's score is no mean, and the digest, file and number of items of each split.

    `said`: the direction of its score, where the sweep states one. Raises UsageError.
    """
    metric, most = spec.metric, spec.max_items
    job = TaskJob(
        metric=metric, code=code.digest, max_validation=most.validation, max_test=most.test,
        file=code.file,
    )  # fmt: skip
    try:
        stored = do(job)
    except StageError as error:
        remedy = "logs/prepare.log in the results folder has the rest"
        raise UsageError(Problem(str(error), "data.metric", sweep_file, value=metric, remedy=remedy)) from None
    right = "maximize" if stored.result["higher_is_better"] else "minimize"
    if said is not None and said != right:
        rule = f"{stored.result['metric']} of this task is {right}d, by its meaning"
        raise UsageError(
            Problem(
                rule, "objectives.lm_eval", sweep_file, value=said, remedy=f"write objectives: {{ lm_eval: {right} }}"
            )
        )
    splits = stored.result["splits"]
    return not stored.result["mean"], {
        name: (part["digest"], stored.path / f"{name}.json", part["items"]) for name, part in splits.items()
    }


def probe_job(machine: str | None = None, gpus: int | None = None) -> ProbeJob:
    """Return the job that looks at this machine's accelerators, or at those of a cluster; arguments as of `prepare`."""
    wheels = " ".join(f"{wheel}={installed(wheel)}" for wheel in (*ORT_WHEELS, "torch") if installed(wheel))
    if machine is not None:
        return ProbeJob(machine=machine, packages_digest=wheels, gpus=gpus or None)
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return ProbeJob(machine=machine_digest(), packages_digest=wheels, gpus=gpus or None, visible=visible)
