"""The `cache` command: what is kept between sweeps, and making room."""

from __future__ import annotations

import time
from typing import Any

from autotune.artifacts.room import Removed, budget_mb, evict, tidy
from autotune.artifacts.store import Cache, default_root
from autotune.present.tables import table

_DAY_S = 86400.0
_HEADINGS = {
    "stage": "stage", "model": "model", "results": "results", "size_mb": "MB", "kept_mb": "MB kept",
    "seconds": "seconds to make", "unused_days": "days unused", "damaged": "damaged",
}  # fmt: skip


def listing() -> dict[str, Any]:
    """Return what the cache holds, by stage and model, as plain data; sizes in 10^6 bytes."""
    cache = Cache(default_root())
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for entry in cache.entries():
        group = groups.setdefault(
            (entry.stage, entry.model),
            {"stage": entry.stage, "model": entry.model, "results": 0, "size_mb": 0.0, "kept_mb": 0.0, "seconds": 0.0,
             "damaged": 0, "unused_days": 0.0},
        )  # fmt: skip
        group["results"] += 1
        group["size_mb"] += entry.size_mb
        group["kept_mb"] += entry.size_mb if entry.kept_for else 0.0
        group["seconds"] += entry.seconds
        group["damaged"] += entry.state == "damaged"
        group["unused_days"] = max(group["unused_days"], (time.time() - entry.used) / _DAY_S)
    return {
        "folder": str(cache.root),
        "budget_mb": budget_mb(),
        "size_mb": sum(group["size_mb"] for group in groups.values()),
        "leftovers_mb": sum(item.size_mb for item in tidy(cache, dry=True)),
        "kept_for": sorted(set(cache.pinned().values())),
        "groups": sorted(groups.values(), key=lambda group: -group["size_mb"]),
    }


def as_text(listed: dict[str, Any]) -> str:
    """Return the listing in words."""
    budget = f" of {listed['budget_mb']:.0f} MB (AUTOTUNE_CACHE_MB)" if listed["budget_mb"] else ""
    lines = [f"{listed['folder']}: {listed['size_mb']:.0f} MB{budget}"]
    if listed["groups"]:
        shown = [{**group, "unused_days": f"{group['unused_days']:.1f}"} for group in listed["groups"]]
        cells = [[group[key] for key in _HEADINGS] for group in shown]
        lines += ["", table(list(_HEADINGS.values()), cells), ""]
    lines += [f"kept for the front of {folder}" for folder in listed["kept_for"]]
    if listed["leftovers_mb"]:
        lines.append(
            f"{listed['leftovers_mb']:.1f} MB are leftovers of killed processes: `autotune cache prune` removes them"
        )
    return "\n".join(lines)


def prune(to_mb: float | None, unused_days: float | None, dry: bool) -> dict[str, Any]:
    """Remove leftovers and damaged results, then what was not used for `unused_days`, then down to `to_mb`.

    Without either of the two, down to the cache's budget if there is one. Returns what was removed as plain data.
    """
    cache = Cache(default_root())
    to_mb = to_mb if to_mb is not None or unused_days is not None else budget_mb()
    removed: list[Removed] = tidy(cache, dry)
    entries = [entry for entry in cache.entries() if entry.state == "whole"]
    total = sum(entry.size_mb for entry in entries)
    if unused_days is not None:
        old = [entry for entry in entries if time.time() - entry.used > unused_days * _DAY_S]
        gone = evict(cache, lambda _: False, old, dry)
        removed += gone
        total -= sum(item.size_mb for item in gone)
        entries = [entry for entry in entries if entry not in old]
    if to_mb is not None:
        limit = to_mb
        removed += evict(cache, lambda mb: total - mb <= limit, entries, dry)
    left = sum(entry.size_mb for entry in cache.entries())
    return {
        "folder": str(cache.root),
        "dry_run": dry,
        "removed": [{"what": item.what, "size_mb": item.size_mb} for item in removed],
        "removed_mb": sum(item.size_mb for item in removed),
        "left_mb": left,
        "kept_mb": sum(entry.size_mb for entry in cache.entries() if entry.kept_for),
    }


def pruned_as_text(pruned: dict[str, Any]) -> str:
    """Return in words what was removed."""
    verb = "would remove" if pruned["dry_run"] else "removed"
    lines = [f"{verb} {item['what']}, {item['size_mb']:.1f} MB" for item in pruned["removed"]]
    kept = f", of which {pruned['kept_mb']:.0f} MB are in use or on a front" if pruned["kept_mb"] else ""
    lines.append(f"{verb} {pruned['removed_mb']:.0f} MB; {pruned['left_mb']:.0f} MB are there{kept}")
    return "\n".join(lines)
