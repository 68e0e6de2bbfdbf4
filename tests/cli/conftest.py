"""A photo, a checkpoint, and the pipeline of `fclm matte`, which is loaded once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from photo_files import make_photo
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline

from fclm_hf.cli import matte as cli


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    pipeline("referring-matting", model=tiny_model(), processor=tiny_processor()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def one_pipeline(checkpoint: Path) -> Iterator[None]:
    """Load the model once for all calls of a test file."""
    loaded = {}
    load = cli.load_pipeline

    def load_once(model: str | None, device: str | None, dtype: str) -> object:
        if model is not None and model != str(checkpoint):
            return load(model, device, dtype)
        if dtype not in loaded:
            loaded[dtype] = load(str(checkpoint), device, dtype)
        return loaded[dtype]

    cli.load_pipeline = load_once
    yield
    cli.load_pipeline = load


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    make_photo().save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"
