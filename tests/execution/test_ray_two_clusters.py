"""Two clusters of Ray at once whose machines share an S3 store alone: one maker of each result, and every byte is reported."""

from __future__ import annotations

import pytest

from benchmarks import ray_store
from benchmarks.s3_server import PACKAGES


@pytest.mark.slow
@pytest.mark.marathon
def test_two_clusters_make_each_result_once_and_report_what_they_move(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("ray", *PACKAGES):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.setattr(ray_store, "SIZE", 0.01)
    found = dict(ray_store.store(candidates=4))
    assert found["clusters, nodes of each; rows of each sweep; rows that are not ok"] == "2, 2; 5, 5; 0"
    results, made = found["results that the store keeps; made by the first cluster, by the second"].split("; ")
    assert int(results) >= 10
    assert sum(map(int, made.split(", "))) >= int(results)
    assert found["of them, timings aside, begun more than once"] == "0"
    assert found[
        "results and inputs sent more than once; whose bytes in the store are not those that were reported"
    ] == ("0; 0")
    assert found["build: bytes moved"].startswith("sent ")
    assert float(found["moved in all, for each job that was begun"].partition(" MB")[0]) > 1.0
