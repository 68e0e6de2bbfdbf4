"""The command `fclm matte`, run in this process."""

from pathlib import Path

from typer.testing import CliRunner

from fclm_hf.cli.main import app


def run_matte(*words: object, code: int = 0) -> str:
    """Run the command and return what it prints, on one line, if it exits with `code`."""
    result = CliRunner().invoke(app, ["matte", *map(str, words)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.replace("│", " ").split())


def list_files(folder: Path) -> list[str]:
    """List the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
