"""Saved FCLM checkpoints, in a folder or on the Hub: validation, download and loading."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import snapshot_download
from huggingface_hub.constants import REPOCARD_NAME
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from huggingface_hub.utils import validate_repo_id
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, PROCESSOR_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from ..configuration_fclm import FCLMConfig
from ..modeling_fclm import FCLMForImageMatting
from ..processing_fclm import FCLMProcessor
from ..utils.errors import is_panic


CHECKPOINT_FILES = ["*.json", "*.txt", "model*.safetensors", REPOCARD_NAME]
Model = TypeVar("Model", bound=PreTrainedModel)


def check_checkpoint(checkpoint: str | os.PathLike) -> None:
    """Check that a folder or id can be that of a checkpoint, without loading it or using the network.

    Args:
        checkpoint: Folder, or id of a Hub repository.

    Raises:
        ValueError: If it is neither a folder nor a valid id, or the folder lacks a file or holds another model.

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.hub import check_checkpoint
        >>> check_checkpoint(LITE_CHECKPOINT)
        >>> check_checkpoint("user/my-cutouts")  # a valid id; nothing is downloaded
        >>> check_checkpoint("not/a/checkpoint")
        Traceback (most recent call last):
        ValueError: checkpoint must be a folder or the id of a Hub repository: Repo id must be ...
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        check_repo_id(str(checkpoint), "checkpoint must be a folder or the id of a Hub repository")
        return
    for names in ((CONFIG_NAME,), (PROCESSOR_NAME,), (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)):
        if not any((folder / name).is_file() for name in names):
            raise ValueError(f"checkpoint {folder} must contain {' or '.join(names)}, got none.")
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"checkpoint {folder} must contain a valid {CONFIG_NAME}: {error}") from error
    _check_model_type(checkpoint, config)


def check_repo_id(repo_id: str, problem: str = "repo_id is invalid") -> None:
    """Check that a string is the id of a Hub repository, `name` or `namespace/name`.

    Args:
        repo_id: The string.
        problem: Beginning of the error.

    Raises:
        ValueError: If it is not.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{problem}: {error}") from error


def fetch_checkpoint(checkpoint: str | os.PathLike) -> Path:
    """Return the folder of a checkpoint, after downloading it if it is on the Hub.

    Args:
        checkpoint: Folder, or id of a Hub repository.

    Raises:
        ValueError: See [`check_checkpoint`].
        OSError: If there is no such repository, or the Hub cannot be reached.
    """
    check_checkpoint(checkpoint)
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    config, _ = FCLMConfig.get_config_dict(checkpoint)
    _check_model_type(checkpoint, config)
    folder = Path(snapshot_download(str(checkpoint), allow_patterns=CHECKPOINT_FILES))
    check_checkpoint(folder)
    return folder


def load_checkpoint(folder: str | os.PathLike) -> tuple[FCLMForImageMatting, FCLMProcessor]:
    """Load model and processor with the classes of this package: code in the checkpoint is not run.

    Args:
        folder: Folder of the checkpoint.

    Returns:
        The model in evaluation mode, and its processor.

    Raises:
        ValueError: If a file is invalid, or weights are missing, which would be initialized randomly.
        OSError: If a file is missing.

    Example:
        >>> from fclm_hf import LITE_CHECKPOINT
        >>> from fclm_hf.hub import load_checkpoint
        >>> model, processor = load_checkpoint(LITE_CHECKPOINT)
        >>> type(model).__name__, type(processor).__name__, model.training
        ('FCLMForImageMatting', 'FCLMProcessor', False)
    """
    with explain_errors(folder):
        model = load_complete(FCLMForImageMatting, folder, "checkpoint", use_safetensors=True)
        return model.eval(), FCLMProcessor.from_pretrained(folder)


@contextmanager
def explain_errors(checkpoint: str | os.PathLike) -> Iterator[None]:
    """Turn whatever the files of a checkpoint make transformers raise into a ValueError that names it.

    Args:
        checkpoint: Folder or Hub repository.

    Raises:
        ValueError: For all errors but OSError and MemoryError.
    """
    try:
        yield
    except BaseException as error:
        named = isinstance(error, ValueError) and str(checkpoint) in str(error)
        ours = isinstance(error, (OSError, MemoryError)) or named
        if ours or not (isinstance(error, Exception) or is_panic(error)):
            raise
        cause = error.__cause__ if isinstance(error, StrictDataclassError) and error.__cause__ else error
        reason = str(cause) if isinstance(cause, (ValueError, TypeError)) else f"{type(cause).__name__}: {cause}"
        raise ValueError(f"checkpoint {checkpoint} cannot be loaded: {reason}") from error


def load_complete(model_class: type[Model], checkpoint: str | os.PathLike, name: str, **kwargs: Any) -> Model:
    """Load a model whose checkpoint must hold every weight; `from_pretrained` would initialize missing ones randomly.

    Args:
        model_class: Class to load.
        checkpoint: Folder or Hub repository.
        name: Name of the checkpoint in errors, such as the argument that gives it.
        **kwargs: Further arguments of `from_pretrained`.

    Returns:
        The model.

    Raises:
        ValueError: If weights are missing.
        OSError: If a file is missing or the Hub cannot be reached.
    """
    model, info = model_class.from_pretrained(checkpoint, output_loading_info=True, **kwargs)
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{name} {checkpoint} lacks {len(missing)} weights, the first is {missing[0]}.")
    return model


def find_weights(folder: str | os.PathLike) -> list[Path]:
    """Return the safetensors files of a checkpoint, with the index if there are several.

    Raises:
        ValueError: If the index is invalid or names a file that is not in the folder itself.
    """
    index = Path(folder) / SAFE_WEIGHTS_INDEX_NAME
    if (Path(folder) / SAFE_WEIGHTS_NAME).is_file():
        return [Path(folder) / SAFE_WEIGHTS_NAME]
    try:
        names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f'{index} must map weights to files under "weight_map": {error!r}.') from error
    for name in names:
        if not isinstance(name, str) or re.fullmatch(r"[\w.-]{1,200}\.safetensors", name) is None:
            raise ValueError(f"{index} must name safetensors files in its own folder, got {name!r}.")
    return [index, *(Path(folder) / name for name in sorted(set(names)))]


def _check_model_type(checkpoint: str | os.PathLike, config: Any) -> None:
    """Raise a ValueError unless a config is that of an FCLM model."""
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if model_type != FCLMConfig.model_type:
        raise ValueError(f'checkpoint {checkpoint} must contain a model of type "fclm", got {model_type!r}.')
