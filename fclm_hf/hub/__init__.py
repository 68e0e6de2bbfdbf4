"""Checkpoints as Hub repositories that contain their own code, so that they load where fclm_hf is not installed."""

from .checkpoints import check_checkpoint, load_checkpoint
from .export import export_checkpoint, export_saved_checkpoint
from .push import push_checkpoint


__all__ = ["check_checkpoint", "export_checkpoint", "export_saved_checkpoint", "load_checkpoint", "push_checkpoint"]
