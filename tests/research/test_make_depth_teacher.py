"""The depth teacher that is made on the spot: its targets, and that a run can learn from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from paper_data import write_paper_data
from scripts import load_script
from transformers import DepthAnythingForDepthEstimation


make = load_script("make_depth_teacher")


def test_an_object_is_nearer_than_what_is_behind_it() -> None:
    foreground = np.zeros((56, 56), np.float32)
    foreground[10:30, 10:30] = 1
    depth = make.make_depth(foreground, 56)
    assert depth.shape == (56, 56)
    assert 0 <= depth.min() <= depth.max() <= 1
    assert depth[12, 12] == depth[28, 28] > depth[29, 40]
    assert (make.make_depth(np.zeros((56, 56), np.float32), 56).diff(dim=0) > 0).all()


@pytest.mark.slow
def test_it_learns(tmp_path: Path) -> None:
    data = write_paper_data(tmp_path / "data")
    base = {
        "model": "lite",
        "sources": [{"path": "P3M-10k", "layout": "p3m-10k", "kind": "image_alpha"}],
        "backgrounds": [{"path": "BG-20k", "layout": "bg-20k", "kind": "background"}],
        "composition": {"size": 64},
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    words = ["--base", tmp_path / "base.yaml", "--data", data, "--output", tmp_path / "teacher", "--steps", 30]
    result = make.main(list(map(str, words)))
    assert result["last"] < 0.8 * result["first"]
    teacher = DepthAnythingForDepthEstimation.from_pretrained(tmp_path / "teacher")
    assert torch.isfinite(teacher(torch.zeros(1, 3, 56, 56)).predicted_depth).all()
