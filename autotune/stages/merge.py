"""Merge an adapter into the base model, in the precision that the base was saved in.

Also for QLoRA: the quantised copy only served the training. The merge is PEFT's, because the model builder's own
`adapter_path` is silently wrong for DoRA.
"""

from __future__ import annotations

from pathlib import Path

from autotune.errors import StageError
from autotune.stages.jobs import MergeJob
from autotune.stages.library_errors import reason
from autotune.stages.protocol import Result
from autotune.stages.text import load_tokenizer
from autotune.stages.torch_model import load_adapter, load_model


def merge(job: MergeJob, out: Path) -> Result:
    """Write the merged model and its tokenizer into `out`. Raises StageError (`diverged`) where weights are not finite."""
    model = load_adapter(load_model(job.base_dir, "cpu"), job.adapter_dir)
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise StageError("diverged", f"the adapter cannot be merged: {reason(error)}") from error
    merged.config.use_cache = True
    merged.save_pretrained(str(out))
    load_tokenizer(job.base_dir).save_pretrained(str(out))
    return {"dtype": str(merged.dtype).removeprefix("torch.")}
