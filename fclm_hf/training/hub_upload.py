"""Uploads of a run to the Hub."""

from pathlib import Path

from accelerate.logging import get_logger
from huggingface_hub import HfApi
from huggingface_hub.utils import httpx

from ..hub import push_checkpoint
from .arguments import RunArguments


logger = get_logger(__name__)


class UploadError(RuntimeError):
    """The upload at the end failed."""


def create_repository(run: RunArguments) -> None:
    """Where the run is to be uploaded, so that what prevents it shows before training.

    Raises:
        OSError: no token, or the Hub refuses.
    """
    if run.push_to_hub or run.push_steps:
        HfApi().create_repo(run.hub_model_id, private=run.hub_private or None, exist_ok=True)


def upload(folder: Path, run: RunArguments, step: int, required: bool) -> None:
    """Pushes a checkpoint; without `required` a failure is a warning only.

    Raises:
        UploadError: it failed and is `required`.
    """
    try:
        push_checkpoint(folder, run.hub_model_id, private=run.hub_private or None, commit_message=f"Step {step}")
    except (OSError, httpx.HTTPError) as error:
        if required:
            reason = str(error).partition("\n")[0]
            raise UploadError(
                f"The run is complete, its upload failed: {reason}. Later: fclm push {folder} {run.hub_model_id}"
            ) from error
        logger.warning("The push of step %d failed, training goes on: %s", step, error)


__all__ = ["UploadError", "create_repository", "upload"]
