"""The ablation of Table 5, on a tiny set, with one step."""

import json
import sys

import pytest
from benchmark_folders import write_dev
from paths import RESEARCH
from tiny_model import tiny_config, tiny_tokenizer
from training_sets import make_background, make_cutout

from fclm_hf import FCLMForImageMatting, FCLMImageProcessor, FCLMProcessor


@pytest.fixture
def ablation(monkeypatch):
    monkeypatch.syspath_prepend(str(RESEARCH))
    import ablate_alignment

    yield ablate_alignment
    for name in ("ablate_alignment", "evaluate_real_photos", "training_set"):
        sys.modules.pop(name, None)


@pytest.fixture
def training_set(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for kind, make, side in (("foregrounds", make_cutout, 60), ("backgrounds", make_background, 80)):
        entries = []
        for number in range(6):
            make(number, side).save(folder / f"{kind}_{number}.png")
            entries.append({"file": f"{kind}_{number}.png", "name": f"object {number}"})
        (folder / f"{kind}.json").write_text(json.dumps(entries))
    return folder


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "start"
    backbone = {
        "model_type": "timm_backbone",
        "backbone": "test_efficientnet",
        "out_indices": [2, 3, 4],
        "freeze_batch_norm_2d": True,
    }
    FCLMForImageMatting(tiny_config(backbone_config=backbone, coarse_level=1, encoder_size=64)).save_pretrained(folder)
    FCLMProcessor(FCLMImageProcessor(), tiny_tokenizer()).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_rows_differ_and_finished_runs_are_kept(ablation, training_set, checkpoint, tmp_path, capsys):
    pytest.importorskip("timm")
    arguments = ["--train", str(training_set), "--real", str(write_dev(tmp_path)), "--output", str(tmp_path / "runs")]
    arguments += ["--init", str(checkpoint), "--steps", "1", "--batch-size", "2", "--size", "64", "--seeds", "0"]
    results = ablation.main(arguments)
    assert list(results) == ["before", *ablation.ROWS.values()]
    sads = {row: runs[0]["alphamatting"]["box"]["sad"] for row, runs in results.items()}
    assert len(set(sads.values())) == len(sads)  # each row trained another model
    table = capsys.readouterr().out
    assert all(f"| {row} | " in table for row in results)
    assert "alphamatting SAD, box" in table

    kept = tmp_path / "runs" / "full_0.json"
    before = kept.stat().st_mtime_ns
    (tmp_path / "runs" / "none_0.json").unlink()
    again = ablation.main(arguments)
    assert kept.stat().st_mtime_ns == before
    assert again["w/o alignment"][0]["alphamatting"] == results["w/o alignment"][0]["alphamatting"]  # a run repeats
    with pytest.raises(SystemExit, match=r"steps must be 1, as in .*, got 2"):
        ablation.main([*arguments, "--steps", "2"])
