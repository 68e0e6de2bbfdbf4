"""The README's Python examples run, in order, as written."""

import re
from pathlib import Path

import pytest
import torch
from paths import ROOT

from fclm_hf import LITE_CHECKPOINT


pytestmark = pytest.mark.skipif(not Path(LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there")


def test_python_examples(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert len(blocks) >= 5
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "cat.png").stat().st_size > 10_000
    assert names["result"]["alpha"].mode == "L"
    assert names["matte"].shape == (1, *names["photo"].size[::-1])
    assert torch.isfinite(names["loss"])
