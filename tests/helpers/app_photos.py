"""A small checkpoint and photos for tests of the app."""

from pathlib import Path

from photo_files import make_photo
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline


def save_checkpoint(folder: Path) -> Path:
    """Save the tiny model with its processor."""
    pipeline("referring-matting", model=tiny_model(), processor=tiny_processor()).save_pretrained(folder)
    return folder


def save_photos(folder: Path) -> list[Path]:
    """Save photos of two sizes."""
    paths = [folder / "first.png", folder / "second.jpg"]
    photo = make_photo()
    photo.save(paths[0])
    photo.resize((photo.width // 2, photo.height)).rotate(90, expand=True).save(paths[1])
    return paths
