"""Uploads of `fclm push` load in new virtual environments that contain only the packages that the card requires."""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from fresh_interpreter import check_loading
from local_hub import LocalHub

from fclm_hf import LITE_CHECKPOINT
from fclm_hf.hub import push_checkpoint


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("online")]


def make_environment(folder: Path, packages: list[str]) -> Path:
    """A new virtual environment with packages in the versions that this one has; returns its interpreter."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pinned = [f"{package}=={version(package).split('+')[0]}" for package in packages]
    run = subprocess.run([python, "-m", "pip", "install", "-q", *pinned], capture_output=True, text=True)
    if run.returncode:
        pytest.skip(f"packages cannot be installed here: {run.stderr.splitlines()[-1]}")
    return python


def find_packages(card: str) -> list[str]:
    """Names of the packages that the card installs."""
    command = re.search(r"^pip install (.+)$", card, flags=re.MULTILINE)[1]
    return [re.match(r'"?([\w-]+)', word)[1] for word in command.split()]


@pytest.mark.parametrize("checkpoint", ["tiny", "lite"])
def test_loading(hub: LocalHub, saved: Path, tmp_path: Path, checkpoint: str) -> None:
    source, image_processor = Path(LITE_CHECKPOINT), "FCLMImageProcessor"
    if checkpoint == "tiny":
        source, image_processor = saved, "FCLMImageProcessorPil"
    push_checkpoint(source, "cats")
    card = hub.storage.repositories["model", "tester/cats"].branches["main"].files["README.md"]
    packages = find_packages(hub.storage.find_object(card.sha256).read_text())
    assert packages == ["transformers", "torch", "pillow", *(["torchvision", "timm"] if checkpoint == "lite" else [])]
    python = make_environment(tmp_path / "venv", packages)
    check_loading(hub, tmp_path, source, image_processor, python=python, PYTHONPATH="")
