"""Saved checkpoints of FCLM, in a folder or on the Hub: is it one, and what is in it."""

import json
import os
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..configuration_fclm import FCLMConfig
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from ..utils.loading import load_complete


FILES = ["*.json", "*.txt", "model*.safetensors", REPOCARD_NAME]


def check_checkpoint(checkpoint: str | os.PathLike) -> None:
    """Looks whether something can be a checkpoint, before any heavy work and without the network.

    Args:
        checkpoint: folder, or id of a Hub repository.

    Raises:
        ValueError: neither a folder nor an id; or a folder that lacks a file or holds another model.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        check_repo_id(str(checkpoint), "checkpoint is neither a folder nor the id of a Hub repository")
        return
    for names in ((CONFIG_NAME,), (PROCESSOR_NAME,), (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        if not any((folder / name).is_file() for name in names):
            raise ValueError(f"checkpoint {folder} must hold {' or '.join(names)}, but does not.")
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"checkpoint {folder} has a {CONFIG_NAME} that cannot be read: {error}") from error
    _check_model_type(checkpoint, config)


def check_repo_id(repo_id: str, problem: str = "repo_id is not accepted") -> None:
    """Raises:
    ValueError: not the id of a Hub repository, `name` or `namespace/name`.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{problem}: {error}") from error


def fetch_checkpoint(checkpoint: str | os.PathLike) -> Path:
    """The folder of a checkpoint, downloaded if it is on the Hub.

    Raises:
        ValueError: see [`check_checkpoint`].
        OSError: there is no such repository, or the Hub cannot be reached.
    """
    check_checkpoint(checkpoint)
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    config, _ = FCLMConfig.get_config_dict(checkpoint)
    _check_model_type(checkpoint, config)
    folder = Path(snapshot_download(str(checkpoint), allow_patterns=FILES))
    check_checkpoint(folder)
    return folder


def load_checkpoint(folder: str | os.PathLike) -> tuple[FCLMForImageMatting, FCLMProcessor]:
    """Model and processor. Code that the checkpoint brings is not run.

    Raises:
        ValueError: weights are missing, which would be random.
        OSError: a file is missing.
    """
    model = load_complete(FCLMForImageMatting, folder, "checkpoint", use_safetensors=True)
    return model.eval(), FCLMProcessor.from_pretrained(folder)


def find_weights(folder: str | os.PathLike) -> list[Path]:
    """The safetensors files of a checkpoint, and the index if there are several."""
    index = Path(folder) / SAFE_WEIGHTS_INDEX_NAME
    if (Path(folder) / SAFE_WEIGHTS_NAME).is_file():
        return [Path(folder) / SAFE_WEIGHTS_NAME]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return [index, *(Path(folder) / name for name in sorted(shards))]


def _check_model_type(checkpoint: str | os.PathLike, config: Any) -> None:
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != FCLMConfig.model_type:
        raise ValueError(f'checkpoint {checkpoint} must hold a model of type "fclm", got {model_type!r}.')
