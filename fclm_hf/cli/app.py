"""`fclm app`: the matting app in the browser."""

from typing import Annotated

import typer

from .console import check_device, exit_on_error


LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def app(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Checkpoint to offer: a folder or Hub repository. Repeat for several; the first is the default."
            " fclm-lite, which is included, is always offered."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = LOCAL_HOSTS[0],
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on. Defaults to the first free one from 7860.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="Ask Gradio for a public address, through a program that it downloads.")
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda:0, mps, ... Defaults to the first GPU, or else the CPU.")
    ] = None,
) -> None:
    """Open the matting app in the browser: clicks, boxes, names, many photos, and an HTTP API.

    Visitors may type other checkpoints only while the app is reached from this machine alone.
    """
    check_device(device)
    with exit_on_error(options={"models": "--model"}):
        from ..app.engine import EMBEDDED, Engine
        from ..app.ui import build_app, launch_app

        engine = Engine([*(model or []), EMBEDDED], allow_other_models=host in LOCAL_HOSTS and not share, device=device)
        engine.load()  # a model that cannot be loaded is an error now, not on the page
        page = build_app(engine)
        typer.echo(f"{launch_app(page, engine, host, port, share, prevent_thread_lock=True)}  (Ctrl+C stops it)")
        page.block_thread()
