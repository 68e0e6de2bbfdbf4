"""The application itself: its version, its help, and that neither waits for heavy imports."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

import fclm_hf
from fclm_hf.cli.main import app


COMMANDS = ("matte", "matte-dataset", "evaluate", "train", "export", "push")
HEAVY = {"cv2", "datasets", "huggingface_hub", "numpy", "pandas", "PIL", "timm", "torch", "torchvision", "transformers"}


def run_python(*words: str) -> str:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, check=True).stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"fclm {fclm_hf.__version__}\n")


def test_help_lists_the_commands() -> None:
    output = run_python("-m", "fclm_hf", "--help")
    assert all(command in output for command in COMMANDS)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "train"])
def test_commands_explain_themselves(command: str) -> None:
    result = CliRunner().invoke(app, [command])
    assert "Usage" in result.output
    for option in ("--help", "-h"):
        assert result.output.strip() == CliRunner().invoke(app, [command, option]).output.strip()


def test_help_does_not_wait_for_heavy_imports() -> None:
    script = """
import sys
from typer.testing import CliRunner
from fclm_hf.cli.main import app
for words in ("--help", "--version", "matte --help", "matte-dataset --help", "evaluate --help", "push --help"):
    assert CliRunner().invoke(app, words.split()).exit_code == 0
print(*sys.modules)
"""
    assert not HEAVY & set(run_python("-c", script).split())
