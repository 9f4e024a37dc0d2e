"""Detects this machine's accelerators, in a worker process."""

from __future__ import annotations

from pathlib import Path

from autotune.stages.preparation_jobs import ProbeJob
from autotune.stages.protocol import Result


def probe(job: ProbeJob, out: Path) -> Result:
    """Result: `device` (`cpu` or `cuda`), `gpu` (name or None), `gpu_memory_mb`, `gpus` (how many), `providers` that ONNX Runtime lists."""
    del job, out
    import onnxruntime as ort
    import torch

    gpu = torch.cuda.is_available()
    return {
        "device": "cuda" if gpu else "cpu",
        "gpu": torch.cuda.get_device_name(0) if gpu else None,
        "gpu_memory_mb": torch.cuda.get_device_properties(0).total_memory / 1e6 if gpu else None,
        "gpus": torch.cuda.device_count() if gpu else 0,
        "providers": ort.get_available_providers(),
    }
