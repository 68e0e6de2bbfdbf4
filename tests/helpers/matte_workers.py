"""Mattes of photos in another process."""

from pathlib import Path
from typing import Any

from photo_files import make_photo


SHARED: dict[str, Any] = {}  # what forked processes inherit


def matte_seeds(pipe: Any, seeds: list[int]) -> list[bytes]:
    """Return the alphas and cutouts of photos, bit by bit."""
    results = [pipe(make_photo(170, 160, seed), input_boxes=[5, 5, 150, 150]) for seed in seeds]
    return [result["predicted_alpha"].numpy().tobytes() + result["cutout"].tobytes() for result in results]


def matte_with_loaded(checkpoint: Path, seeds: list[int]) -> list[bytes]:
    """Load the pipeline in this process."""
    from transformers import pipeline

    import fclm_hf  # noqa: F401 - registers the pipeline

    return matte_seeds(pipeline("referring-matting", model=str(checkpoint), device="cpu"), seeds)


def matte_with_inherited(seeds: list[int]) -> list[bytes]:
    """Use the pipeline of the process that this one was forked from."""
    return matte_seeds(SHARED["pipe"], seeds)
