"""Broken image files of every format give a result or the documented error, within limits.

A longer run: `FCLM_FUZZ_RUNS=100000 pytest tests/fuzz`, or without end and guided by coverage,
`python tests/fuzz/fuzz_images.py`.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_mutations import OPERATIONS, load_hostile_file, make_seeds, mutate
from limits import SECONDS, find_time


RUNS = int(os.environ.get("FCLM_FUZZ_RUNS", "400"))
SEEDS = make_seeds()
operations = st.tuples(
    st.sampled_from(OPERATIONS), st.floats(0, 1, exclude_max=True), st.integers(min_value=0, max_value=2**32 - 1)
)


@pytest.mark.filterwarnings("ignore")  # PIL's about broken metadata
@settings(max_examples=RUNS, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(sorted(SEEDS)), st.lists(operations, max_size=6), st.booleans())
def test_mutated_files(name: str, changes: list[tuple[str, float, int]], repair: bool) -> None:
    start = find_time()
    load_hostile_file(mutate(SEEDS[name], changes, repair))
    assert find_time() - start < SECONDS


@pytest.mark.parametrize("name", SEEDS)
def test_the_files_are_images_before_they_are_broken(name: str) -> None:
    assert load_hostile_file(SEEDS[name])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=max(50, RUNS // 8), deadline=None, database=None, derandomize=True)
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    load_hostile_file(data)
