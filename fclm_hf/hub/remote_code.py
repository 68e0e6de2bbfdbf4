"""Remote code: the flat files that `trust_remote_code=True` runs, and the config entries that name their classes."""

import shutil
from pathlib import Path

from transformers.utils import CONFIG_NAME, PROCESSOR_NAME

from ..configuration_fclm import IMAGE_PROCESSOR_CLASSES, MODEL_CLASSES, PIPELINES, PROCESSOR_CLASSES
from ..utils.files import edit_json


RUNTIME_FILES = "*_fclm.py"


def find_runtime_files() -> list[Path]:
    """Return the flat files of the package, sorted."""
    return sorted(Path(__file__).parents[1].glob(RUNTIME_FILES))


def add_remote_code(folder: Path) -> None:
    """Copy the code to a saved checkpoint and register its classes in config.json and processor_config.json."""
    for file in find_runtime_files():
        shutil.copyfile(file, folder / file.name)
    with edit_json(folder / CONFIG_NAME) as config:
        config["auto_map"], config["custom_pipelines"] = MODEL_CLASSES, PIPELINES
    with edit_json(folder / PROCESSOR_NAME) as config:
        config["auto_map"] = PROCESSOR_CLASSES
        config["image_processor"]["auto_map"] = IMAGE_PROCESSOR_CLASSES
