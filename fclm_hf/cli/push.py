"""`fclm push`: a checkpoint with its code to the Hub."""

from pathlib import Path
from typing import Annotated

import typer

from .console import exit_on_error


def push(
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint: a folder or Hub repository.")],
    repo_id: Annotated[str, typer.Argument(help="Hub repository, name or namespace/name. Created if it is missing.")],
    card: Annotated[
        Path | None,
        typer.Option(help="Model card. Defaults to that of the checkpoint, or else a short one.", show_default=False),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to. Created if it is missing. Defaults to main.")
    ] = None,
    message: Annotated[str, typer.Option(help="First line of the commit message.")] = "Upload FCLM checkpoint",
) -> None:
    """Upload a checkpoint with its code to the Hub, so that it loads without fclm_hf."""
    with exit_on_error(options={"card": "--card", "revision": "--revision"}):
        from ..hub import push_checkpoint

        commit = push_checkpoint(
            checkpoint, repo_id, card=card, private=private or None, revision=revision, commit_message=message
        )
        typer.echo(commit.commit_url)
