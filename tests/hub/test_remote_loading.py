"""`fclm push` and a fresh interpreter without fclm_hf, each in a process of its own."""

import re
import subprocess
import sys
from pathlib import Path

from fresh_interpreter import check_loading
from local_hub import LocalHub
from local_hub.client import make_environment

from fclm_hf import LITE_CHECKPOINT


def test_lite(hub: LocalHub, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fclm_hf.cli", "push", LITE_CHECKPOINT, "cats"]
    environment = make_environment(hub, tmp_path / "home")
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=900).stdout
    assert re.fullmatch(rf"{hub.url}/tester/cats/commit/\w{{40}}", output.strip())
    check_loading(hub, tmp_path, Path(LITE_CHECKPOINT), "FCLMImageProcessor", hidden=["fclm_hf"])
