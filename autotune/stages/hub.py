"""Upload a model folder to the Hugging Face hub. Nothing of this runs unless the user names a repository."""

from __future__ import annotations

from pathlib import Path

from autotune.errors import StageError
from autotune.stages.delivery_jobs import PushJob
from autotune.stages.library_errors import reason
from autotune.stages.protocol import Result


def push(job: PushJob, out: Path) -> Result:
    """Make the repository where there is none, and upload `job.folder` to it in one commit.

    Result: `url` of the commit. Raises StageError (`failed`) with what the hub says; `unsupported` where no token is known.
    """
    del out
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    hub = HfApi()
    try:
        hub.create_repo(job.repository, private=job.private, exist_ok=True)
        done = hub.upload_folder(repo_id=job.repository, folder_path=job.folder, commit_message=job.message)
    except OfflineModeIsEnabled:
        raise StageError("unsupported", "HF_HUB_OFFLINE forbids it; unset it") from None
    except LocalTokenNotFoundError:
        raise StageError("unsupported", "no token of the hub is known here; log in: hf auth login") from None
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        remedy = "; log in with a token that may write: hf auth login" if status in (401, 403) else ""
        raise StageError("failed", f"the hub refused it ({reason(error)}){remedy}") from error
    except (OSError, ValueError) as error:  # no network; a name that the hub does not take
        raise StageError("failed", f"the hub could not be reached ({reason(error)})") from error
    return {"url": str(done)}
