"""Export of checkpoints to folders that load with nothing but transformers."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.constants import REPOCARD_NAME
from transformers.utils import CONFIG_NAME

from ..configuration_fclm import FCLMConfig
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from ..utils.files import check_new_folder, edit_json, write_folder
from .cards import find_card, make_card, read_card
from .checkpoints import check_checkpoint, fetch_checkpoint, find_weights, load_checkpoint
from .remote_code import add_remote_code


# entries about how the tokenizer was loaded, which must not be published
LOCAL_KEYS = ("is_local", "local_files_only")


def export_checkpoint(
    model: FCLMForImageMatting,
    processor: FCLMProcessor,
    folder: str | os.PathLike,
    card: str | os.PathLike | ModelCard | None = None,
    repo_id: str | None = None,
    weight_files: Sequence[Path] = (),
) -> Path:
    """Export a model and its processor to a folder that holds what a Hub repository needs.

    The folder contains the weights (safetensors), the processor, the code of both and of the pipeline, and a model
    card. Where fclm_hf is not installed, it loads with `trust_remote_code=True`. The same checkpoint gives the same
    bytes.

    Args:
        model: The model.
        processor: Its processor.
        folder: Folder to write, new or empty. It is written atomically.
        card: The model card, its text, or the path of its file as `Path`; by default a short one.
        repo_id: The repository that the short card names.
        weight_files: Files with the weights, which are copied unchanged. By default the weights are written in the
            precision of the model.

    Returns:
        The folder.

    Raises:
        ValueError: If the model or processor is of another class, the folder is not empty, or the card cannot be read.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.hub import export_checkpoint, load_checkpoint
        >>> model, processor = load_checkpoint(LITE_CHECKPOINT)
        >>> folder = export_checkpoint(model, processor, Path(tempfile.mkdtemp()) / "export", repo_id="user/cutouts")
        >>> names = {path.name for path in folder.iterdir()}
        >>> {"README.md", "config.json", "model.safetensors", "modeling_fclm.py", "processor_config.json"} <= names
        True
    """
    if type(model).__name__ != FCLMForImageMatting.__name__ or model.config.model_type != FCLMConfig.model_type:
        raise ValueError(f"model must be FCLMForImageMatting, got {type(model).__name__}.")
    if type(processor).__name__ != FCLMProcessor.__name__:
        raise ValueError(f"processor must be FCLMProcessor, got {type(processor).__name__}.")
    check_new_folder(folder)
    text = make_card(model, repo_id) if card is None else read_card(card)
    with write_folder(folder) as inside:
        if weight_files:
            model.config.save_pretrained(inside)
            for file in weight_files:
                shutil.copyfile(file, inside / file.name)
        else:
            model.save_pretrained(inside)
        processor.save_pretrained(inside)
        with edit_json(inside / CONFIG_NAME) as config:  # as loading sets it, so that exports are reproducible
            for part in (config["backbone_config"], config["text_config"]):
                part["dtype"] = part.get("dtype") or config["dtype"]
        with edit_json(inside / "tokenizer_config.json") as config:
            for key in LOCAL_KEYS:
                config.pop(key, None)
        add_remote_code(inside)
        (inside / REPOCARD_NAME).write_text(text, encoding="utf-8")
    return Path(folder)


def export_saved_checkpoint(
    checkpoint: str | os.PathLike,
    folder: str | os.PathLike,
    card: str | os.PathLike | ModelCard | None = None,
    repo_id: str | None = None,
) -> Path:
    """Export a checkpoint that is in a folder or on the Hub, with its weights unchanged; see [`export_checkpoint`].

    Args:
        checkpoint: Folder, or id of a Hub repository.
        folder: Folder to write, new or empty. It is written atomically.
        card: The model card, its text, or the path of its file as `Path`; by default the README.md of the checkpoint if
            its author wrote one, otherwise a short card.
        repo_id: The repository that the short card names.

    Returns:
        The folder.

    Raises:
        ValueError: If `checkpoint` is not an FCLM checkpoint or lacks weights, the folder is not empty, or the card
            cannot be read.
        OSError: If there is no such repository, or the Hub cannot be reached.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.hub import export_saved_checkpoint
        >>> folder = export_saved_checkpoint(LITE_CHECKPOINT, Path(tempfile.mkdtemp()) / "export")
        >>> weights = Path("model.safetensors")
        >>> (folder / weights).read_bytes() == (Path(LITE_CHECKPOINT) / weights).read_bytes()
        True
    """
    check_checkpoint(checkpoint)
    check_new_folder(folder)
    text = None if card is None else read_card(card)
    source = fetch_checkpoint(checkpoint)
    model, processor = load_checkpoint(source)
    return export_checkpoint(
        model, processor, folder, text or find_card(source), repo_id, weight_files=find_weights(source)
    )
