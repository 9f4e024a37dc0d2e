"""The arguments of transformers' Trainer that are not needed here, and those that are not taken, each with the reason."""

from __future__ import annotations

OTHER_NAMES = {
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    "per_gpu_train_batch_size": "per_device_train_batch_size", "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}  # fmt: skip
ORDERED = "items of similar length always share a batch"
_LOGGED = "the loss of every step is in curves.csv"
_JUDGED = "every adapter is scored on validation; looks on the way are the strategy's"
_SAVED = "checkpoints are kept by time, and a stopped training goes on from the last"
_LOADED = "items are in memory"
UNNEEDED = {
    "data_seed": "the order of items follows from seed",
    "per_device_eval_batch_size": "items of one length are scored together, as many as fit",
    "logging_steps": _LOGGED, "logging_strategy": _LOGGED, "logging_first_step": _LOGGED, "logging_dir": _LOGGED,
    "log_level": _LOGGED, "report_to": _LOGGED, "run_name": _LOGGED, "disable_tqdm": _LOGGED, "logging_nan_inf_filter": _LOGGED,
    "evaluation_strategy": _JUDGED, "eval_strategy": _JUDGED, "eval_steps": _JUDGED, "eval_accumulation_steps": _JUDGED,
    "do_eval": _JUDGED, "do_train": "it is what the pass is for", "eval_on_start": _JUDGED, "eval_delay": _JUDGED,
    "metric_for_best_model": "objectives say it", "greater_is_better": "each metric has its direction",
    "load_best_model_at_end": "the strategy looks at adapters on the way",
    "save_strategy": _SAVED, "save_steps": _SAVED, "save_total_limit": _SAVED, "save_safetensors": "safetensors is all that is written",
    "save_only_model": _SAVED, "output_dir": _SAVED, "overwrite_output_dir": _SAVED, "resume_from_checkpoint": _SAVED,
    "dataloader_num_workers": _LOADED, "dataloader_pin_memory": _LOADED, "dataloader_drop_last": _LOADED,
    "remove_unused_columns": "columns that no template names are left out", "torch_compile": "the model runs as it is",
    "use_liger_kernel": "the model runs as it is", "tf32": "PyTorch's own setting is kept",
    "gradient_checkpointing_kwargs": "the kind that is not re-entrant is taken",
    **dict.fromkeys(
        ("ddp_find_unused_parameters", "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_static_graph",
         "ddp_timeout", "local_rank", "accelerator_config", "average_tokens_across_devices", "tpu_num_cores", "ray_scope"),
        "an adapter is trained on one device",
    ),
    **dict.fromkeys(
        ("batch_eval_metrics", "bf16_full_eval", "fp16_full_eval", "do_predict", "eval_do_concat_batches",
         "eval_use_gather_object", "include_for_metrics", "include_inputs_for_metrics", "label_names"), _JUDGED,
    ),
    **dict.fromkeys(
        ("dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_persistent_workers",
         "dataloader_prefetch_factor"), _LOADED,
    ),
    **dict.fromkeys(
        ("enable_jit_checkpoint", "ignore_data_skip", "restore_callback_states_from_checkpoint", "save_on_each_node"), _SAVED,
    ),
    **dict.fromkeys(
        ("log_level_replica", "log_on_each_node", "skip_memory_metrics", "debug", "project", "trackio_bucket_id",
         "trackio_space_id", "trackio_static_space_id"), _LOGGED,
    ),
    **dict.fromkeys(
        ("hub_always_push", "hub_private_repo", "hub_revision", "hub_strategy"), "nothing is uploaded",
    ),
    **dict.fromkeys(
        ("torch_compile_backend", "torch_compile_mode", "liger_kernel_config", "use_ipex", "jit_mode_eval"),
        "the model runs as it is",
    ),
    "length_column_name": "lengths are counted in tokens", "use_cache": "training keeps no cache",
    "torch_empty_cache_steps": "the memory of PyTorch is its own", "use_mps_device": "train.device says it",
    "auto_find_batch_size": "a batch that does not fit ends the candidate as out_of_memory, and the search goes on",
    "full_determinism": "equal seeds give equal adapters",
    "include_tokens_per_second": _LOGGED, "include_num_input_tokens_seen": _LOGGED, "prediction_loss_only": _JUDGED,
}  # fmt: skip
_REMOVE = "remove it"
REFUSED = {
    "deepspeed": ("an adapter is trained on one device, without DeepSpeed", _REMOVE),
    "fsdp": ("an adapter is trained on one device, without FSDP", _REMOVE),
    "fsdp_config": ("an adapter is trained on one device, without FSDP", _REMOVE),
    "label_smoothing_factor": ("labels are not smoothed", _REMOVE),
    "neftune_noise_alpha": ("no noise is added to embeddings", _REMOVE),
    "lr_scheduler_kwargs": ("schedules have no settings of their own", _REMOVE),
    "optim_args": ("AdamW has no settings but its betas and weight decay", _REMOVE),
    "push_to_hub": ("nothing is uploaded", "autotune export writes a folder: upload that"),
    "hub_token": ("a token is never read from a file", _REMOVE),
    "hub_model_id": ("nothing is uploaded", _REMOVE),
    "optim_target_modules": ("AdamW trains every weight of the adapter", _REMOVE),
    "parallelism_config": ("an adapter is trained on one device", _REMOVE),
    "adafactor": ("AdamW trains, and not Adafactor", _REMOVE),
    "half_precision_backend": ("the backend is PyTorch's", _REMOVE),
}
