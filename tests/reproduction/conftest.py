"""The data sets of the paper and a tiny model, for all tests of reproductions."""

from pathlib import Path
from typing import Any

import pytest
from paper_data import save_tiny_parts, write_paper_data

from fclm_hf.reproduction import ReproductionOptions


@pytest.fixture(scope="session")
def paper_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small copies of the data sets."""
    return write_paper_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags that train a tiny model."""
    return save_tiny_parts(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_options(paper_data: Path, flags: list[str], tmp_path: Path) -> Any:
    """Return a function that makes options of a short reproduction with a tiny model."""

    def make(table: str, **changes: Any) -> ReproductionOptions:
        fields = {"data": paper_data, "out": tmp_path / "out", "steps": 1, "seeds": [0], "workers": 0, "flags": flags}
        return ReproductionOptions(table, **{**fields, **changes})

    return make
