"""What commands share: errors as a single line, progress bars and their options."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import typer


if TYPE_CHECKING:
    from rich.progress import Progress


def fail(error: object) -> NoReturn:
    """Print an error in red on standard error and exit with code 1."""
    typer.secho(str(error), fg="red", err=True)
    raise typer.Exit(1)


@contextlib.contextmanager
def exit_on_error(prefix: str = "") -> Iterator[None]:
    """Turn expected errors into a single line on standard error and exit code 1, and hide progress bars of others.

    Args:
        prefix: Start of the error message.
    """
    from huggingface_hub.utils import httpx
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading weights: ours count images
    try:
        yield
    except (ImportError, OSError, RuntimeError, ValueError, httpx.HTTPError) as error:
        fail(f"{prefix}{error}")


def make_progress(**kwargs: Any) -> "Progress":
    """Return a progress bar on standard error with a description, a count and the remaining time.

    Args:
        kwargs: Arguments of `rich.progress.Progress`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), **kwargs)
