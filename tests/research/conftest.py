"""Real photos and a checkpoint, for the scripts that measure checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import save
from noise_discs import draw_disc
from PIL import Image
from tiny_model import tiny_model, tiny_processor


@pytest.fixture
def real_photos(tmp_path: Path) -> Path:
    """Two photos with rectangles for objects ("low" is in the tiny vocabulary, "zebra" is not) and one soft matte."""
    root = tmp_path / "real"
    generator = np.random.default_rng(0)
    entries = []
    for index in range(2):
        pixels = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        save(Image.fromarray(pixels), root / "coco" / "images" / f"{index}.png")
        objects = []
        for number, (cls, box) in enumerate((("low", [4, 6, 30, 40]), ("zebra", [40, 10, 60, 44]))):
            mask = np.zeros((48, 64), dtype=np.uint8)
            mask[box[1] : box[3], box[0] : box[2]] = 255
            file = f"masks/{index}_{number}.png"
            save(Image.fromarray(mask).convert("1"), root / "coco" / file)
            unique = index == 0 or cls == "zebra"
            objects.append({"cls": cls, "unique": unique, "mask": file, "box": box, "point": [box[0] + 3, box[1] + 3]})
        entries.append({"image": f"images/{index}.png", "size": [64, 48], "objects": objects})
    (root / "coco" / "index.json").write_text(json.dumps(entries))
    matte = draw_disc((80, 60), (40, 30), 20)
    save(matte.convert("RGB"), root / "alphamatting" / "input" / "A1.png")
    save(matte.getchannel("A").convert("RGB"), root / "alphamatting" / "alpha" / "A1.png")
    entry = {"id": "A1", "noun": "low", "box": [20, 10, 61, 51], "point": [40, 30]}
    (root / "alphamatting" / "index.json").write_text(json.dumps([entry]))
    return root


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Return the folder of a tiny checkpoint."""
    folder = tmp_path / "checkpoint"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder
