"""Four threads and four processes at once give the mattes that one gives."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import matte_workers
import pytest
import torch
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline

from fclm_hf import ReferringMattingPipeline


SEEDS = [[0, 1, 2], [3, 4, 5], [0, 2, 4], [5, 3, 1]]
# as in workers of a DataLoader: the threads of OpenMP do not survive a fork, and their number changes the last bits
ONE_THREAD = {"initializer": torch.set_num_threads, "initargs": (1,)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(checkpoint: Path) -> ReferringMattingPipeline:
    return pipeline("referring-matting", model=str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def expected(pipe: ReferringMattingPipeline) -> list[list[bytes]]:
    alphas = matte_workers.matte_seeds(pipe, list(range(6)))
    assert len(set(alphas)) == 6
    return [[alphas[seed] for seed in seeds] for seeds in SEEDS]


def test_threads(pipe: ReferringMattingPipeline, expected: list[list[bytes]]) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda seeds: matte_workers.matte_seeds(pipe, seeds), SEEDS)) == expected


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_forked_processes(pipe: ReferringMattingPipeline, expected: list[list[bytes]]) -> None:
    matte_workers.SHARED["pipe"] = pipe
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork"), **ONE_THREAD) as pool:
        assert list(pool.map(matte_workers.matte_with_inherited, SEEDS, timeout=300)) == expected


@pytest.mark.slow  # each imports everything
def test_spawned_processes(checkpoint: Path, expected: list[list[bytes]]) -> None:
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn"), **ONE_THREAD) as pool:
        loading = pool.map(matte_workers.matte_with_loaded, [checkpoint] * 4, SEEDS, timeout=600)
        assert list(loading) == expected
