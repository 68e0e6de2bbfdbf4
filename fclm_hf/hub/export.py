"""A checkpoint as a folder that needs nothing but transformers to load."""

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


# how the tokenizer was loaded here, which is nobody else's business
LOADING_KEYS = ("is_local", "local_files_only")


def export_checkpoint(
    model: FCLMForImageMatting,
    processor: FCLMProcessor,
    folder: str | os.PathLike,
    card: str | os.PathLike | ModelCard | None = None,
    repo_id: str | None = None,
    weight_files: Sequence[Path] = (),
) -> Path:
    """Writes weights (safetensors), processor, the code of both and of the pipeline, and a model card: what a repository
    on the Hub holds. Where fclm_hf is not installed, it loads with `trust_remote_code=True`. The same checkpoint gives
    the same bytes.

    Args:
        model: what is exported.
        processor: its processor.
        folder: new or empty. It appears whole or not at all.
        card: text of the model card, or the path of its file as `Path`. Default: a short one.
        repo_id: the repository that the short card names.
        weight_files: files that hold the weights, copied as they are. Default: the weights are written in the precision
            that the model has.

    Returns:
        The folder.

    Raises:
        ValueError: another model or processor, a folder that holds something, or a card that cannot be read.
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
        with edit_json(inside / CONFIG_NAME) as config:  # as it is after loading
            for part in (config["backbone_config"], config["text_config"]):
                part["dtype"] = part.get("dtype") or config["dtype"]
        with edit_json(inside / "tokenizer_config.json") as config:
            for key in LOADING_KEYS:
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
    """Exports a checkpoint that lies in a folder or on the Hub, its weights as they are.

    Args:
        checkpoint: folder, or id of a Hub repository.
        folder, card, repo_id: see [`export_checkpoint`]. Default of `card`: the README.md of the checkpoint, else a
            short one.

    Returns:
        The folder.

    Raises:
        ValueError: `checkpoint` is not one of FCLM or lacks weights; and see [`export_checkpoint`].
        OSError: there is no such repository, or the Hub cannot be reached.
    """
    check_checkpoint(checkpoint)
    check_new_folder(folder)
    text = None if card is None else read_card(card)
    source = fetch_checkpoint(checkpoint)
    model, processor = load_checkpoint(source)
    return export_checkpoint(
        model, processor, folder, text or find_card(source), repo_id, weight_files=find_weights(source)
    )
