"""`fclm`: the application, its global options and its commands."""

from typing import Annotated

import typer

from .app import app as open_app
from .evaluate import evaluate
from .export import export
from .export_onnx import export_onnx
from .matte import MatteCommand, matte
from .matte_dataset import matte_dataset
from .push import push
from .reproduce import reproduce


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the version and exit if it is wanted."""
    if wanted:
        import fclm_hf  # the root is loaded anyway, and holds nothing else that a command may use

        typer.echo(f"fclm {fclm_hf.__version__}")
        raise typer.Exit


@app.callback()
def fclm(
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Matte any object in a photo: name it, click it or draw a box around it."""


app.command(cls=MatteCommand, no_args_is_help=True)(matte)
app.command(cls=MatteCommand, no_args_is_help=True)(matte_dataset)
app.command(no_args_is_help=True)(evaluate)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def train(context: typer.Context) -> None:
    """Train a model: CONFIG.yaml [--option value ...], where options override the file. --help lists them."""
    from .train import main as run

    raise typer.Exit(run(context.args or ["--help"]))


app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True}, no_args_is_help=True)(
    reproduce
)
app.command(no_args_is_help=True)(export)
app.command("export-onnx", no_args_is_help=True)(export_onnx)
app.command(no_args_is_help=True)(push)
app.command("app")(open_app)


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
