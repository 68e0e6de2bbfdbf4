"""Mattes of photos in another process."""

from pathlib import Path
from typing import Any

from photo_files import make_photo


SHARED: dict[str, Any] = {}  # what forked processes inherit


def matte_seeds(pipe: Any, seeds: list[int]) -> list[bytes]:
    """Return the alphas of photos, bit by bit."""
    photos = [make_photo(70, 60, seed) for seed in seeds]
    return [
        pipe(photo, input_boxes=[5, 5, 50, 50], cutout=False)["predicted_alpha"].numpy().tobytes() for photo in photos
    ]


def matte_with_loaded(checkpoint: Path, seeds: list[int]) -> list[bytes]:
    """Load the pipeline in this process."""
    from transformers import pipeline

    import fclm_hf  # noqa: F401 - registers the pipeline

    return matte_seeds(pipeline("referring-matting", model=str(checkpoint), device="cpu"), seeds)


def matte_with_inherited(seeds: list[int]) -> list[bytes]:
    """Use the pipeline of the process that this one was forked from."""
    return matte_seeds(SHARED["pipe"], seeds)
