"""Loading of pretrained weights, all of them or none."""

import os
from typing import Any, TypeVar

from transformers import PreTrainedModel


Model = TypeVar("Model", bound=PreTrainedModel)


def load_complete(model_class: type[Model], checkpoint: str | os.PathLike, name: str, **kwargs: Any) -> Model:
    """Load a model whose checkpoint must hold every weight; `from_pretrained` would initialize missing ones randomly.

    Args:
        model_class: Class to load.
        checkpoint: Folder or Hub repository.
        name: What errors call the checkpoint, such as the argument that names it.
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
