"""Many photos at once: one zip archive of their results."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from ..utils.files import number_names
from .engine import Engine, explain
from .pictures import Style, unite, write_zip


MAX_FILES = 200


def write_batch(
    engine: Engine,
    photos: Sequence[str | Path],
    path: Path,
    prompts: Mapping[str, Any],
    style: Style,
    model: str | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, str]:
    """Matte the same object in many photos and write the results as PNG files into a zip archive.

    Args:
        engine: The engine.
        photos: Files.
        path: The archive.
        prompts: Prompts for each photo, see [`Engine.matte`].
        style: What to make of each matte.
        model: See [`Engine.load`].
        report: Called before each photo with the numbers of photos done and of all.

    Returns:
        What went wrong, by the name of the photo; the others are in the archive.

    Raises:
        ValueError: If there is no photo, or too many, or the model is invalid, or no photo could be matted.
        OSError: See [`Engine.load`].
    """
    if not 1 <= len(photos) <= MAX_FILES:
        raise ValueError(f"A batch must have 1 to {MAX_FILES} photos, got {len(photos)}.")
    engine.load(model)
    stems = number_names([Path(style.name_file(photo)).with_suffix("") for photo in photos])
    failures: dict[str, str] = {}

    def make_pictures() -> Iterator[tuple[str, Image.Image]]:
        for index, (photo, stem) in enumerate(zip(photos, stems, strict=True)):
            report(index, len(photos))
            try:
                results = unite(engine.matte(photo, prompts, model, style.foreground))
                picture = style.render(results[0])
            except ValueError as error:  # one bad photo must not stop the others
                failures[Path(photo).name] = explain(error, photo)
                continue
            yield f"{stem}.png", picture

    write_zip(path, make_pictures())
    if len(failures) == len(photos):
        name, problem = next(iter(failures.items()))
        raise ValueError(f"None of {len(photos)} photos could be matted. {name}: {problem}")
    return failures


__all__ = ["MAX_FILES", "write_batch"]
