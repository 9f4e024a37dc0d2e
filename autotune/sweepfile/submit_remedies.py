"""What Azure ML, Slurm and SkyPilot call what the `submit:` part names otherwise, and what to write for it."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from autotune.sweepfile.submit import AzureML, SkyPilot, Slurm

_PARTS: Mapping[str, type[BaseModel]] = {"azureml": AzureML, "slurm": Slurm, "skypilot": SkyPilot}
_BY_REFERENCE = (
    "name a secret of a key vault as hf_token: https://VAULT.vault.azure.net/secrets/NAME; no value goes into a job"
)
_IN_FILE = "add it to the file that submit writes"
_LINE = "add a line of #SBATCH for it to the script that submit writes"
_OF_RUN = "give it where the task is launched: sky jobs launch --env NAME=VALUE, or --secret NAME"

SUBMIT: Mapping[str, Mapping[str, str]] = {
    "submit": {
        name: f"write it in {' or '.join(part for part, model in _PARTS.items() if name in model.model_fields)}"
        for model in _PARTS.values()
        for name in model.model_fields
    },
    "submit.azureml": {
        **dict.fromkeys(
            ("vm_size", "sku", "vm_sku", "instance", "size", "gpu", "gpus", "gpu_type"),
            "write instance_type: Standard_..., with compute: serverless; a cluster has its own size",
        ),
        **dict.fromkeys(("cluster", "compute_name", "compute_target", "aml_compute", "target"), "did you mean 'compute'?"),
        **dict.fromkeys(("instance_count", "node_count", "nodes"), "remove it: one machine runs the sweep"),
        **dict.fromkeys(("docker", "docker_image", "base_image", "container"), "did you mean 'image'?"),
        **dict.fromkeys(("env", "environment_name"), "did you mean 'environment'?"),
        **dict.fromkeys(
            ("tier", "job_tier", "priority", "low_priority", "lowpriority", "use_spot", "preemptible"), "write spot: true"
        ),
        **dict.fromkeys(("token", "hf_token_secret", "secret", "secrets", "keyvault", "key_vault"), _BY_REFERENCE),
        **dict.fromkeys(
            ("environment_variables", "env_vars", "envs", "variables"),
            f"add it to the job's file as environment_variables; for a token of the hub {_BY_REFERENCE}",
        ),
        **dict.fromkeys(
            ("datastore", "output_path", "outputs", "storage"), "write output: azureml://datastores/STORE/paths/FOLDER"
        ),
        **dict.fromkeys(("region", "location"), "remove it: the workspace has its region"),
        **dict.fromkeys(("experiment", "experiment_name", "display_name"), "remove it: the job has the name of the sweep"),
        **dict.fromkeys(("timeout", "time_limit", "max_run_duration"), "write hours in budget; a job that is sent again goes on"),
    },
    "submit.slurm": {
        **dict.fromkeys(("time", "time_limit", "walltime", "timeout"), "write hours: 24, for a time of 24:00:00"),
        **dict.fromkeys(("mem", "memory"), "write memory_gb: 64, for 64G"),
        **dict.fromkeys(("gres", "gpu", "gpus_per_node"), "write gpus: a100:1, for gpu:a100:1"),
        **dict.fromkeys(("cpus_per_task", "ncpus", "ntasks"), "did you mean 'cpus'?"),
        **dict.fromkeys(("nodes", "node_count"), "remove it: one machine runs the sweep; for several: --engine ray"),
        **dict.fromkeys(("modules", "module"), "write setup: [module load NAME]"),
        **dict.fromkeys(("env", "envs", "export", "environment"), "write setup: [export NAME=VALUE]; HF_TOKEN is taken from the shell"),
        **dict.fromkeys(("queue",), "did you mean 'partition'?"),
        **dict.fromkeys(
            ("qos", "constraint", "exclude", "mail_user", "mail_type", "reservation", "output", "error", "job_name"), _LINE
        ),
    },
    "submit.skypilot": {
        **dict.fromkeys(("cloud", "region", "zone"), "write infra: aws/us-east-1"),
        **dict.fromkeys(("gpu", "gpus", "gpu_type", "accelerator"), "did you mean 'accelerators'?"),
        **dict.fromkeys(("instance_type", "ports", "image_id", "num_nodes"), _IN_FILE),
        **dict.fromkeys(("envs", "env", "secrets", "hf_token", "token"), _OF_RUN),
        **dict.fromkeys(("storage", "file_mounts", "output"), "did you mean 'bucket'?"),
        **dict.fromkeys(("use_spot", "preemptible"), "did you mean 'spot'?"),
    },
}  # fmt: skip
"""What to do about a key, by the section in which it stands and its name."""
