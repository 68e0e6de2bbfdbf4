"""Every test runs offline, quietly and from the same seed."""

import gc
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING


# read by transformers and huggingface_hub when they are imported
os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TRANSFORMERS_VERBOSITY="error")

import numpy as np
import pytest
import torch
from local_hub import LocalHub


if TYPE_CHECKING:
    from fclm_hf import ReferringMattingPipeline


def pytest_collection_finish() -> None:
    """Leave what the imports have made out of garbage collections, which trainers start, too: there is a lot of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restore the number of threads, which training in this process sets: with another, alphas differ by 6e-6."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seed all random number generators before each test."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def pipe() -> "ReferringMattingPipeline":
    """Return a pipeline with a tiny random model."""
    from tiny_model import tiny_model, tiny_processor
    from transformers import pipeline

    return pipeline("referring-matting", model=tiny_model(), processor=tiny_processor(), device="cpu")


@pytest.fixture
def new_accelerator() -> Iterator[None]:
    """Forget the settings that accelerate keeps in this process after a test."""
    from training_runs import forget_accelerator

    yield
    forget_accelerator()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    """Serve a Hub on the loopback device; [`local_hub.client.run_client`] runs clients of it."""
    (tmp_path / "hub").mkdir()
    with LocalHub(tmp_path / "hub") as running:
        yield running


@pytest.fixture
def online(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log this process in to the local Hub; all other tests are offline."""
    from huggingface_hub import constants

    settings = {
        "ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_OFFLINE": False,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.url + "/{repo_id}/resolve/{revision}/{filename}",
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # keeps the address of the Hub of an earlier test
    monkeypatch.setenv("HF_TOKEN", next(iter(hub.tokens)))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture(scope="session")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ONNX export of the tiny model, whose masks act although it was not trained."""
    pytest.importorskip("onnxscript")
    from tiny_model import tiny_masked_model, tiny_processor

    from fclm_hf.exporters import export_onnx

    folder = tmp_path_factory.mktemp("onnx")
    tiny_masked_model().save_pretrained(folder / "tiny")
    tiny_processor().save_pretrained(folder / "tiny")
    return export_onnx(folder / "tiny", folder / "graphs")
