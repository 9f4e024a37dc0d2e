"""The engine of an Olive configuration: how it searches, where it keeps things, what it says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from autotune.errors import did_you_mean, shown
from autotune.sweepfile.olive.draft import SINGLE_POINT, Draft
from autotune.sweepfile.olive.input_model import read_client
from autotune.sweepfile.olive.sections import Node, Section

_SAMPLERS = {"tpe": "tpe", "random": "random", "sequential": "grid", "exhaustive": "grid", "optuna": "tpe"}
_LOG = "progress goes to stderr, and each candidate has a file in logs/"
_CACHE = "the cache is where AUTOTUNE_CACHE says, and sweeps share it"
_KEPT = "a result is found again by everything that went into it: nothing has to be cleaned"
_UNNEEDED = {
    "log_severity_level": _LOG, "ort_log_severity_level": _LOG, "ort_py_log_severity_level": _LOG, "log_to_file": _LOG,
    "output_dir": "results go to results/<name>, or to the folder that --out names",
    "output_name": "results go to results/<name>, or to the folder that --out names",
    "cache_dir": _CACHE, "clean_cache": _KEPT, "clean_run_cache": _KEPT, "clean_evaluation_cache": _KEPT,
    "evaluate_input_model": "the untouched model is always measured: limits refer to it",
    "plot_pareto_frontier": "pareto.png shows the front",
    "no_artifacts": "what is on the front is kept, the rest may be evicted from the cache",
    "packaging_config": "autotune export writes the folder to deploy",
    "verbose": _LOG, "$schema": "it is for editors", "version": "both spellings are read", "engine_name": "there is one engine",
    "max_concurrent_builds": "workers say how many stages run at once",
}  # fmt: skip
_REFUSED = {
    "enable_shared_cache": (
        "no cache is shared over the network",
        "remove it; AUTOTUNE_CACHE may name a shared folder",
    ),
    "builds": ("one file is one sweep", "write a file for each build"),
    "auto_optimizer_config": (
        "there is no automatic choice of passes",
        "write the pass ModelBuilder, and use --search",
    ),
    "workflow_host": ("a workflow does not move to another host", "use autotune submit"),
    "extra_dependencies": ("nothing is installed for a sweep", "install the extra of autotune"),
}


def is_searching(top: Section) -> bool:
    """Whether `search_strategy` is on."""
    node = top.nodes.get("search_strategy")
    return node is not None and node.value is not None and node.value is not False


def read_engine(draft: Draft, top: Section) -> None:
    """Set name, strategy and budget, and account for the engine's other keys."""
    ledger = draft.ledger
    name = top.take_text("workflow_id")
    if name is not None:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name.value).strip("-._")[:64]
        if plain:
            draft.put("name", plain, name)
        else:
            ledger.refuse(name.path, "must hold letters or digits", "write e.g. my-sweep")
    client = top.take_section("azureml_client")
    if client is not None:
        read_client(draft, client, runs=True)
    _read_search(draft, top.take("search_strategy"))
    cache = top.take_section("cache_config")
    if cache is not None:
        cache.unneeded({"cache_dir": _CACHE, "clean_cache": _KEPT, "clean_evaluation_cache": _KEPT})
        shared = ("no cache is shared over the network", "remove it; AUTOTUNE_CACHE may name a shared folder")
        cache.refuse(
            dict.fromkeys(("account_name", "container_name", "enable_shared_cache", "update_shared_cache"), shared)
        )
        cache.close("cache_config")
    flows = top.take("pass_flows")
    if flows is not None:
        _read_flows(draft, flows)
    top.unneeded(_UNNEEDED)
    top.refuse(_REFUSED)


def _read_flows(draft: Draft, node: Node) -> None:
    flow = one_flow(node, draft.ledger.document.get("passes"))
    if flow is not None:
        draft.ledger.unneeded(node.path, "the passes that it names are read, in their order")
    else:
        rule = "passes run once, in the order of the file"
        draft.ledger.refuse(
            node.path, rule, "name them once in that order; recipes of space.build are built side by side"
        )


def one_flow(node: Node | None, passes: object) -> list[str] | None:
    """Return the passes that `pass_flows` names, where it is one flow in the order of the file."""
    flows = node.value if node is not None else None
    if (
        not isinstance(flows, list)
        or len(flows) != 1
        or not isinstance(flows[0], list)
        or not isinstance(passes, Mapping)
    ):
        return None
    flow = [str(name) for name in flows[0]]
    return flow if flow and [str(name) for name in passes if str(name) in flow] == flow else None


def _read_search(draft: Draft, node: Node | None) -> None:
    ledger = draft.ledger
    if node is None or node.value is False:
        if node is not None:
            draft.put("strategy", "grid", node, f"{SINGLE_POINT}; --search widens it")
        else:
            draft.default("strategy", "grid", f"{SINGLE_POINT}; --search widens it")
        return
    if node.value is True:
        draft.put("strategy", "frontier", node)
        return
    if node.value == {}:
        ledger.map(node.path, "strategy")
    section = Section(ledger, node, ("sampler_config", "search_algorithm_config"), {"search_algorithm": "sampler"})
    sampler = section.take_text("sampler")
    if sampler is not None and sampler.value.lower() in _SAMPLERS:
        draft.put("strategy", _SAMPLERS[sampler.value.lower()], sampler)
    elif sampler is not None:
        remedy = did_you_mean(sampler.value, list(_SAMPLERS))
        ledger.refuse(sampler.path, f"there is no sampler {shown(sampler.value)}", remedy)
    draft.default("strategy", "frontier", "our default")
    _read_bounds(draft, section)
    section.unneeded(
        {
            "execution_order": "adapters and recipes are searched together",
            "output_model_num": "every candidate of the front is kept: autotune export --candidate",
            "include_pass_params": "values that the file lists are searched",
            "multivariate": "the strategy decides it",
            "group": "the strategy decides it",
        }
    )
    stop = section.take_flag("stop_when_goals_met")
    if stop is not None:
        why = "the budget is used up, and the best that keeps the limits wins; Ctrl-C ends it sooner"
        ledger.unneeded(stop.path, why, tell=stop.value)
    section.close("search_strategy")


def _read_bounds(draft: Draft, section: Section) -> None:
    ledger = draft.ledger
    trials: Node | None = None
    for name in ("max_samples", "max_iter", "num_samples"):
        node = section.take_number(name, whole=True)
        if node is None:
            continue
        if node.value < 1:
            ledger.refuse(node.path, f"must be 1 or more, got {shown(node.value)}", "remove it for the default")
        elif trials is None or node.value < trials.value:
            if trials is not None:
                ledger.unneeded(trials.path, "the smaller number counts")
            draft.put("budget.trials", int(node.value), node)
            trials = node
        else:
            ledger.unneeded(node.path, "the smaller number counts")
    seconds = section.take_number("max_time")
    if seconds is not None and seconds.value > 0:
        draft.put("budget.hours", seconds.value / 3600, seconds, "seconds there, hours here")
    elif seconds is not None:
        ledger.refuse(seconds.path, f"must be above 0, got {shown(seconds.value)}", "remove it for no bound")
    seed = section.take_number("seed", whole=True)
    if seed is None:
        return
    if draft.get("seed") is not None:
        ledger.unneeded(seed.path, "the seed of training_args is that of the whole sweep", tell=True)
    elif 0 <= seed.value < 2**31:
        draft.put("seed", int(seed.value), seed)
    else:
        ledger.refuse(seed.path, f"must be 0 or more and below 2^31, got {shown(seed.value)}", "write e.g. 0")
