"""A checkpoint as a repository on the Hub."""

import os
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, ModelCard
from huggingface_hub.constants import REPOCARD_NAME

from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from .cards import find_card, read_card
from .checkpoints import check_checkpoint, check_repo_id
from .export import export_checkpoint, export_saved_checkpoint


# of an earlier push: code that is no longer needed, weights under other names, weights that are pickled
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
    """Uploads what [`export_checkpoint`] writes, in one commit: unlike `model.push_to_hub`, with the processor, the code
    of all and the pipeline, so that the repository loads where fclm_hf is not installed.

    Args:
        checkpoint: folder, id of another Hub repository, or a model, which needs its `processor`.
        repo_id: `name` or `namespace/name`. The repository is created if it is not there.
        processor: of a model. A folder or repository has its own.
        card: text of the model card, or the path of its file as `Path`. Default: the README.md of the folder, else the
            one that the repository has already, else a short one.
        private: whether a new repository is private. Default: as the account has it.
        revision: branch, created if it is not there. Default: "main".
        commit_message: first line of the commit.
        token: access token that may write. Default: the one that `hf auth login` or `HF_TOKEN` gave.

    Raises:
        ValueError: see [`load_checkpoint`] and [`export_checkpoint`]; or `repo_id` is none.
        OSError: no token, or the Hub refuses; see `huggingface_hub.errors.HfHubHTTPError`.
    """
    check_repo_id(repo_id)
    saved = isinstance(checkpoint, (str, os.PathLike))
    if saved == (processor is not None):
        raise ValueError("processor must come with a model, and with nothing else.")
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
        api.create_repo(full_id, private=private, exist_ok=True)
        if revision is not None and not revision.startswith("refs/"):
            api.create_branch(full_id, branch=revision, exist_ok=True)
        keeps_card = find_card(folder) is None and api.file_exists(full_id, REPOCARD_NAME, revision=revision)
        return api.upload_folder(
            folder_path=folder,
            repo_id=full_id,
            revision=revision,
            commit_message=commit_message,
            ignore_patterns=[REPOCARD_NAME] if keeps_card else None,
            delete_patterns=OUTDATED_FILES,
        )
