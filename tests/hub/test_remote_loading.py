"""A checkpoint that `fclm push` uploads loads in a fresh interpreter without fclm_hf."""

import re
from pathlib import Path

import pytest
from fresh_interpreter import check_loading
from local_hub import LocalHub
from typer.testing import CliRunner

from fclm_hf import LITE_CHECKPOINT
from fclm_hf.cli.main import app


@pytest.mark.slow  # as tests/hub/test_remote_code.py does with a tiny checkpoint
@pytest.mark.usefixtures("online")
def test_lite(hub: LocalHub, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["push", LITE_CHECKPOINT, "cats"])
    assert result.exit_code == 0, result.output
    assert re.fullmatch(rf"{hub.url}/tester/cats/commit/\w{{40}}", result.stdout.strip())
    check_loading(hub, tmp_path, Path(LITE_CHECKPOINT), "FCLMImageProcessor", hidden=["fclm_hf"])
