"""Checkpoints that ship with the package."""

from pathlib import Path


LITE_CHECKPOINT = str(Path(__file__).parent / "fclm-lite")

__all__ = ["LITE_CHECKPOINT"]
