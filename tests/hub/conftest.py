"""What the tests of the Hub share."""

from pathlib import Path

import pytest
from tiny_model import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as training saves it: without code."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder
