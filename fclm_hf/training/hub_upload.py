"""Uploads from a run to the Hub."""

from pathlib import Path

from accelerate.logging import get_logger
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from ..hub import push_checkpoint
from .arguments import RunArguments


logger = get_logger(__name__)


class UploadError(RuntimeError):
    """Raised when the upload at the end of a run fails."""


def create_repository(run: RunArguments) -> None:
    """Create the Hub repository of a run that uploads, so that missing permissions are reported before training.

    Args:
        run: Arguments of the run.

    Raises:
        OSError: If there is no token or the Hub refuses the request.
    """
    if run.push_to_hub or run.push_steps:
        HfApi().create_repo(run.hub_model_id, private=run.hub_private_repo or None, exist_ok=True)


def upload(folder: Path, run: RunArguments, step: int, required: bool) -> None:
    """Upload a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        run: Arguments of the run.
        step: Current step, which the commit message names.
        required: Whether a failure is an error; otherwise it is logged as a warning.

    Raises:
        UploadError: If a required upload fails.
    """
    try:
        push_checkpoint(folder, run.hub_model_id, private=run.hub_private_repo or None, commit_message=f"Step {step}")
    except (OSError, httpx.HTTPError) as error:
        if required:
            reason = str(error).partition("\n")[0]
            raise UploadError(
                f"Training is complete, but the upload failed: {reason}."
                f" To retry: fclm push {folder} {run.hub_model_id}"
            ) from error
        logger.warning("The upload at step %d failed, training continues: %s", step, error)


__all__ = ["UploadError", "create_repository", "upload"]
