"""research/average_weights.py: the mean, and what cannot be averaged."""

from pathlib import Path

import pytest
import torch
from scripts import load_script
from tiny_model import tiny_model

from fclm_hf import FCLMForImageMatting


averaging = load_script("average_weights")


def test_weights_are_averaged(checkpoint: Path, tmp_path: Path, capsys) -> None:
    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    models = ["--models", str(checkpoint), str(tmp_path / "other")]
    averaging.main([*models, "--shares", "0.75", "0.25", "--output", str(tmp_path / "mean")])
    first, second, mean = (
        FCLMForImageMatting.from_pretrained(folder).float().state_dict()
        for folder in (checkpoint, tmp_path / "other", tmp_path / "mean")
    )
    for name, value in mean.items():
        torch.testing.assert_close(
            value, 0.75 * first[name] + 0.25 * second[name], atol=1e-3, rtol=1e-3, check_dtype=False
        )

    averaging.main([*models, "--edges", str(tmp_path / "other"), "--output", str(tmp_path / "drawn")])
    drawn = FCLMForImageMatting.from_pretrained(tmp_path / "drawn").state_dict()
    for name in ("head.coefficients.weight", "model.detail_path.blocks.0.norm.weight"):
        torch.testing.assert_close(drawn[name].float(), second[name], atol=1e-3, rtol=1e-3)
    name = "model.decoder.layers.0.image_mlp.fc1.weight"
    torch.testing.assert_close(drawn[name].float(), (first[name] + second[name]) / 2, atol=1e-3, rtol=1e-3)

    tiny_model(semantic_head_size=None).save_pretrained(tmp_path / "plain")
    for wrong, message in (
        ([*models, "--shares", "0.5"], "must be 2 numbers, one per model"),
        ([*models, "--shares", "0.5", "0.6"], "with a sum of 1, got [0.5, 0.6]"),
        ([*models, str(tmp_path / "plain")], "plain must have the same weights as"),
    ):
        with pytest.raises(SystemExit):
            averaging.main([*wrong, "--output", str(tmp_path / "none")])
        assert message in capsys.readouterr().err
        assert not (tmp_path / "none").exists()
