"""The package works where it can write nothing but its output: read-only installation, no writable home, no root."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT
from photo_files import make_photo
from PIL import Image


# root may write anywhere unless it gives its capabilities up; its Python may be where no other user can read it
UNPRIVILEGED = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
PIPELINE = """
import os
import sys
from PIL import Image
from transformers import pipeline
from transformers.utils import logging
import fclm_hf
logging.disable_progress_bar()
assert fclm_hf.__file__.startswith(sys.argv[1]), fclm_hf.__file__
assert not os.access(sys.argv[1], os.W_OK) and not os.access(os.path.expanduser("~"), os.W_OK)
result = pipeline("referring-matting", device="cpu")(sys.argv[2], text="a disc")
assert result["cutout"].mode == "RGBA", result
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yields a folder that is removed, whatever its rights are."""
    path = Path(tempfile.mkdtemp(prefix="fclm-"))
    yield path
    for each in (path, *path.rglob("*")):
        if each.is_dir():
            each.chmod(0o755)
    shutil.rmtree(path)


def install(folder: Path) -> Path:
    """Install the package, and take all rights to write it away."""
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("fclm_hf", "examples/paper"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    words = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-compile",
        "--target",
        folder / "installed",
    ]
    subprocess.run([sys.executable, "-m", "pip", *words, source], check=True, capture_output=True)
    for each in (folder / "installed", *(folder / "installed").rglob("*")):
        each.chmod(0o555 if each.is_dir() else 0o444)
    return folder / "installed"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="this system has other rights")
@pytest.mark.skipif(not hasattr(os, "geteuid") or (os.geteuid() == 0 and not shutil.which("setpriv")), reason="root")
def test_nothing_is_written_but_the_output(folder: Path) -> None:
    installed, home, out = install(folder), folder / "home", folder / "out"
    home.mkdir()
    home.chmod(0o555)
    out.mkdir()
    make_photo().save(folder / "photo.png")
    user = UNPRIVILEGED if os.geteuid() == 0 else []
    unset = ("PYTHONPATH", "XDG_CACHE_HOME", "HF_HOME", "TRANSFORMERS_VERBOSITY", "NUMBA_CACHE_DIR")
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"HOME": str(home), "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}

    def run(*words: object) -> subprocess.CompletedProcess:
        command = [*user, sys.executable, *map(str, words)]
        return subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)

    result = run("-c", PIPELINE, installed, folder / "photo.png")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = run("-m", "fclm_hf.cli", "matte", folder / "photo.png", "-o", out / "cutout.png", "--text", "a disc")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{out}/cutout.png\n", "fclm-lite on cpu\n")
    with Image.open(out / "cutout.png") as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (50, 40))
    assert list(home.iterdir()) == []
    assert not any(path.suffix == ".pyc" for path in installed.rglob("*"))
