"""Upload of checkpoints to the Hub."""

import os
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.constants import REPOCARD_NAME

from ..modeling_fclm import FCLMForImageMatting
from ..onnx.graphs import SUBFOLDER, has_only_graphs
from ..processing_fclm import FCLMProcessor
from .cards import find_card, read_card
from .checkpoints import check_checkpoint, check_repo_id
from .export import export_checkpoint, export_saved_checkpoint


# left by an earlier push: code that is no longer needed, weights under other names, pickled weights
OUTDATED_FILES = ["*_fclm.py", "model*.safetensors*", "pytorch_model*"]


def push_checkpoint(
    checkpoint: str | os.PathLike | FCLMForImageMatting,
    repo_id: str,
    processor: FCLMProcessor | None = None,
    *,
    card: str | os.PathLike | ModelCard | None = None,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload FCLM checkpoint",
    token: str | None = None,
) -> CommitInfo:
    """Upload a checkpoint to a Hub repository, in one commit.

    A folder that `fclm export-onnx` wrote goes to `onnx/` of the repository, where transformers.js looks.

    Unlike `model.push_to_hub`, this uploads everything that [`export_checkpoint`] writes: the processor, the code and
    the pipeline too, so that the repository loads where fclm_hf is not installed.

    Args:
        checkpoint: Folder, id of another Hub repository, or a model, which needs its `processor`.
        repo_id: Id of the repository, `name` or `namespace/name`. It is created if it does not exist.
        processor: Processor of a model. A folder or repository has its own.
        card: The model card, its text, or the path of its file as `Path`; by default the README.md of the checkpoint if
            its author wrote one, otherwise the card that the repository already has, otherwise a short card.
        private: Whether a new repository is private; by default the setting of the account.
        revision: Branch, created if it does not exist; "main" by default.
        commit_message: First line of the commit message.
        token: Access token with write permission; by default that of `hf auth login` or `HF_TOKEN`.

    Returns:
        The commit.

    Raises:
        ValueError: If `repo_id` is invalid, `checkpoint` is not an FCLM checkpoint, a model has no processor, or the
            card cannot be read. All of these are checked before anything is uploaded.
        OSError: If there is no token, or the Hub denies the request (`huggingface_hub.errors.HfHubHTTPError`).

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.hub import push_checkpoint
        >>> push_checkpoint(LITE_CHECKPOINT, "user/my-cutouts", private=True)  # doctest: +SKIP
        >>> push_checkpoint(LITE_CHECKPOINT, "user/my/cutouts")
        Traceback (most recent call last):
        ValueError: repo_id is invalid: Repo id must be ...
    """
    check_repo_id(repo_id)
    saved = isinstance(checkpoint, (str, os.PathLike))
    if saved and has_only_graphs(checkpoint):
        return push_graphs(checkpoint, repo_id, private, revision, commit_message, token)
    if saved == (processor is not None):
        raise ValueError(f"processor must be given if and only if checkpoint is a model, got {processor!r}.")
    if saved:
        check_checkpoint(checkpoint)
    text = None if card is None else read_card(card)
    api = HfApi(token=token, library_name="fclm_hf")
    user = api.whoami()["name"]
    full_id = repo_id if "/" in repo_id else f"{user}/{repo_id}"
    with tempfile.TemporaryDirectory(prefix="fclm-push-") as temporary:
        folder = Path(temporary) / "repository"
        if saved:
            export_saved_checkpoint(checkpoint, folder, text, full_id)
        else:
            export_checkpoint(checkpoint, processor, folder, text, full_id)
        _create_repository(api, full_id, private, revision)
        keeps_card = find_card(folder) is None and api.file_exists(full_id, REPOCARD_NAME, revision=revision)
        return api.upload_folder(
            folder_path=folder,
            repo_id=full_id,
            revision=revision,
            commit_message=commit_message,
            ignore_patterns=[REPOCARD_NAME] if keeps_card else None,
            delete_patterns=OUTDATED_FILES,
        )


def push_graphs(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload ONNX graphs",
    token: str | None = None,
) -> CommitInfo:
    """Upload ONNX graphs to `onnx/` of a Hub repository, in one commit.

    The config, the files of the processor and the model card are uploaded, too, unless the repository has them.

    Args:
        folder: Folder that `fclm export-onnx` wrote.
        repo_id: Id of the repository, `name` or `namespace/name`. It is created if it does not exist.
        private: Whether a new repository is private; by default the setting of the account.
        revision: Branch, created if it does not exist; "main" by default.
        commit_message: First line of the commit message.
        token: Access token with write permission; by default that of `hf auth login` or `HF_TOKEN`.

    Returns:
        The commit.

    Raises:
        ValueError: If `repo_id` is invalid.
        OSError: If there is no token, or the Hub denies the request.
    """
    check_repo_id(repo_id)
    api = HfApi(token=token, library_name="fclm_hf")
    full_id = _create_repository(api, repo_id, private, revision)
    present = set(api.list_repo_files(full_id, revision=revision))
    places = {
        path: f"{SUBFOLDER}/{path.name}" if path.suffix == ".onnx" else path.name
        for path in sorted(Path(folder).iterdir())
    }
    files = [
        CommitOperationAdd(place, path)
        for path, place in places.items()
        if path.suffix == ".onnx" or place not in present
    ]
    return api.create_commit(full_id, files, commit_message=commit_message, revision=revision)


def _create_repository(api: HfApi, repo_id: str, private: bool | None, revision: str | None) -> str:
    """Create a repository and a branch of it, if they do not exist, and return the full id."""
    full_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(full_id, branch=revision, exist_ok=True)
    return full_id
