"""What commands share: errors as a single line, progress bars and their options."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from ..utils.errors import is_panic


if TYPE_CHECKING:
    from rich.progress import Progress


def fail(error: object) -> NoReturn:
    """Print an error in red on standard error and exit with code 1."""
    typer.secho(str(error), fg="red", err=True)
    raise typer.Exit(1)


@contextlib.contextmanager
def exit_on_error(
    prefix: str = "",
    name: str | None = None,
    options: Mapping[str, str] | None = None,
    errors: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Turn expected errors into a single line on standard error and exit code 1, and hide progress bars of others.

    Args:
        prefix: Start of the error message.
        name: What the prefix names after a space, which is left out if the message names it, too.
        options: Options of the command by the argument that errors name them by.
        errors: Further errors that are expected, as files that others made may cause any.
    """
    from huggingface_hub.errors import StrictDataclassError
    from huggingface_hub.utils import httpx
    from transformers.utils import logging

    logging.disable_progress_bar()  # those of loading weights; ours count images
    expected = (ImportError, OSError, RuntimeError, ValueError, StrictDataclassError, httpx.HTTPError, *errors)
    try:
        yield
    except BaseException as error:
        if not isinstance(error, expected) and not (errors and is_panic(error)):
            raise
        # a config of transformers wraps what is wrong with it
        message = str(error.__cause__ or error) if isinstance(error, StrictDataclassError) else str(error)
        argument, *rest = message.split(" ", 1)
        if argument in (options or {}):
            message = " ".join([options[argument], *rest])
        if name is not None and name in message:
            prefix = prefix.replace(f" {name}", "")
        fail(f"{prefix}{message}")


def check_device(device: str | None) -> None:
    """Exit with an error unless a device that was asked for is there.

    Args:
        device: Name of the device for torch, or None if any will do.
    """
    if device is None:
        return
    import torch

    try:
        wanted = torch.device(device)
    except RuntimeError:
        fail(f"--device must be cpu, cuda, cuda:0, mps, ..., got {device!r}.")
    if wanted.type == "cpu":
        return
    backends = [getattr(place, wanted.type, None) for place in (torch, torch.backends)]
    backend = next((each for each in backends if hasattr(each, "is_available")), None)
    if backend is None or not backend.is_available():
        fail(f"--device {device} is unavailable: torch {torch.__version__} finds no {wanted.type} device here.")
    count = backend.device_count() if hasattr(backend, "device_count") else 1
    if (wanted.index or 0) >= count:
        fail(f"--device {device} is unavailable: torch finds {count} {wanted.type} device{'s' * (count > 1)} here.")


def make_progress(**kwargs: Any) -> "Progress":
    """Return a progress bar on standard error with a description, a count and the remaining time.

    Args:
        kwargs: Arguments of `rich.progress.Progress`.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), **kwargs)
