"""research/measure_matches.py: the area under the ROC curve, by name."""

from pathlib import Path

import numpy as np
import pytest
from scripts import load_script
from tiny_model import tiny_model, tiny_processor


matches = load_script("measure_matches")


def test_matches_of_names(real_photos: Path, checkpoint: Path, tmp_path: Path, capsys) -> None:
    truth = np.array([[True, True, False], [False, False, False]])
    assert matches.area_under_roc(np.array([[3.0, 2, 1], [1, 0, 0]]), truth) == 1
    assert matches.area_under_roc(np.array([[2.0, 0, 1], [1, 1, 1]]), truth) == 0.5
    assert matches.area_under_roc(np.zeros((2, 3)), truth) == 0.5

    scores = matches.main(["--data", str(real_photos), "--model", str(checkpoint)])
    assert set(scores) == {"low", "all"}
    assert 0 < scores["low"] == scores["all"] < 1
    assert "(1)" in capsys.readouterr().out
    tiny_model(semantic_head_size=None).save_pretrained(tmp_path / "plain")
    tiny_processor().save_pretrained(tmp_path / "plain")
    with pytest.raises(SystemExit):
        matches.main(["--data", str(real_photos), "--model", str(tmp_path / "plain")])
    assert "must have a semantic head" in capsys.readouterr().err
