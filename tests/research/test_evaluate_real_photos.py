"""research/evaluate_real_photos.py: its scores, contact sheets and errors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scripts import load_script

from fclm_hf import FCLMForImageMatting, FCLMProcessor


evaluation = load_script("evaluate_real_photos")


def test_scores_of_real_photos(real_photos: Path, checkpoint: Path, tmp_path: Path, capsys) -> None:
    sheets = tmp_path / "sheets"
    arguments = ["--data", str(real_photos), "--model", str(checkpoint)]
    summary = evaluation.main([*arguments, "--baselines", "--save", str(sheets)])
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    coco, matting = summary["coco"], summary["alphamatting"]
    assert {prompt: scores["count"] for prompt, scores in coco.items()} == {
        "box": 4,
        "point": 4,
        "text": 1,
        "none": 2,
        "box as mask": 4,
        "GrabCut from box": 4,
    }
    assert coco["box as mask"]["iou"] == 1
    alpha = np.asarray(Image.open(real_photos / "alphamatting" / "alpha" / "A1.png").convert("L")) / 255
    box = np.zeros_like(alpha)
    box[10:51, 20:61] = 1
    assert matting["box as mask"]["sad"] == pytest.approx(np.abs(box - alpha).sum() / 1000, rel=1e-5)
    assert matting["box as mask"]["mse"] == pytest.approx(np.square(box - alpha).mean(), rel=1e-5)

    # the model's own scores, from one plain call without cached embeddings
    model, processor = FCLMForImageMatting.from_pretrained(checkpoint), FCLMProcessor.from_pretrained(checkpoint)
    photo = Image.open(real_photos / "alphamatting" / "input" / "A1.png")
    inputs = processor(images=photo, input_points=[[[[40, 30]]]], input_labels=[[[1]]], return_tensors="pt")
    keys = ("pixel_values", "pixel_mask", "input_points", "input_labels")
    with torch.no_grad():
        outputs = model(**{key: inputs[key] for key in keys})
    predicted = processor.post_process_image_matting(outputs, target_sizes=[(60, 80)])[0]["alpha"][0].numpy()
    assert matting["point"]["sad"] == pytest.approx(np.abs(predicted - alpha).sum() / 1000, rel=1e-4)

    assert sorted(path.name for path in sheets.iterdir()) == [
        "alphamatting_01.png",
        "coco_01.png",
        "coco_automatic_01.png",
    ]
    width, height = Image.open(sheets / "coco_01.png").size
    assert width > 5 * 200
    assert height > 4 * 150


def test_options_and_errors_of_real_photos(real_photos: Path, checkpoint: Path, tmp_path: Path, capsys) -> None:
    arguments = ["--data", str(real_photos), "--model", str(checkpoint)]
    summary = evaluation.main([*arguments, "--prompts", "box", "--limit", "1", "--encoder-size", "28"])
    assert summary["encoder_size"] == 28
    assert list(summary["coco"]) == ["box"]
    assert summary["coco"]["box"]["count"] == 2

    for wrong, message in (
        (["--data", str(tmp_path / "nowhere")], "must contain coco/index.json or alphamatting/index.json"),
        ([*arguments, "--template", "a photo"], "must contain {}"),
        ([*arguments, "--limit", "0"], "at least 1"),
    ):
        with pytest.raises(SystemExit) as stop:
            evaluation.main(wrong)
        assert stop.value.code == 2
        assert message in capsys.readouterr().err

    Image.new("L", (10, 10)).save(real_photos / "coco" / "masks" / "1_0.png")
    with pytest.raises(SystemExit) as stop:
        evaluation.main(arguments)
    assert stop.value.code == 1
    assert "1_0.png must have the size of its photo, 64 x 48, got 10 x 10" in capsys.readouterr().err
    index = real_photos / "coco" / "index.json"
    entries = json.loads(index.read_text())
    for broken, message in (([{"image": "images/0.png"}], "image and objects"), ([entries[0], {}], "lacks 'objects'")):
        index.write_text(json.dumps(broken))
        with pytest.raises(SystemExit):
            evaluation.main(arguments)
        assert message in capsys.readouterr().err
