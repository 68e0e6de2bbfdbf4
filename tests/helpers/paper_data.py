"""Small copies of the data sets of the paper, in the folders of their authors, and flags that train a tiny model."""

import json
from pathlib import Path

from benchmark_folders import matte, photo, save, write_dis5k, write_him2k, write_refmatte
from tiny_model import tiny_model, tiny_processor, tiny_teacher
from training_sets import make_background


def write_p3m(root: Path) -> Path:
    """Write a small P3M-10k and return its folder."""
    splits = {
        "train": "blurred_image",
        "validation/P3M-500-P": "blurred_image",
        "validation/P3M-500-NP": "original_image",
    }
    for number, (split, images) in enumerate(splits.items()):
        for index in range(3):
            alpha, stem = matte(20 + 8 * index, 24, 10 + number), f"p_{number}{index}"
            save(photo(alpha, seed=index), root / split / images / f"{stem}.jpg")
            save(alpha, root / split / "mask" / f"{stem}.png")
    return root


def write_bg20k(root: Path) -> Path:
    """Write a small BG-20k and return its folder."""
    for number in range(4):
        save(make_background(number, 64), root / ("train" if number else "testval") / f"h_{number}.jpg")
    return root


def write_refmatte_training(root: Path) -> Path:
    """Write a small RefMatte, whose second image has two objects, and return its folder."""
    home, labels = root / "RefMatte" / "train", {}
    for name, centers in {"c_0": [(30, 24)], "c_1": [(16, 20), (46, 26)], "c_2": [(24, 30)]}.items():
        alphas = [matte(*center) for center in centers]
        save(photo(*alphas), home / "img" / f"{name}.jpg")
        for number, alpha in enumerate(alphas):
            save(alpha, home / "mask" / f"{name}_{number}.png")
            texts = [f"low {number}", f"er {number}"]
            labels[f"{name}_{number}"] = {"image_name": name, "expressions": texts}
    (home / "refmatte_train_label.json").write_text(json.dumps(labels))
    return root


def write_paper_data(root: Path) -> Path:
    """Write all data sets of the paper below a folder."""
    write_p3m(root / "P3M-10k")
    write_bg20k(root / "BG-20k")
    write_refmatte_training(root / "RefMatte")
    write_refmatte(root / "RefMatte_RW_100")
    write_him2k(root / "HIM2K")
    for name, centers in {"c0": [(30, 24)], "c1": [(16, 20), (46, 26)]}.items():
        save(photo(*(matte(*center) for center in centers)), root / "HIM2K" / "images" / "comp" / f"{name}.jpg")
        for number, center in enumerate(centers):
            save(matte(*center), root / "HIM2K" / "alphas" / "comp" / name / f"{number:02d}.png")
    write_dis5k(root / "DIS5K", ("DIS-TR", "DIS-VD", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4"))
    return root


def save_tiny_parts(folder: Path) -> list[str]:
    """Save a tiny student and teacher; return the flags with which the paper's experiments train them."""
    tiny_model().save_pretrained(folder / "start")
    tiny_processor().save_pretrained(folder / "start")
    tiny_teacher().save_pretrained(folder / "teacher")
    fields = {
        "model": folder / "start",
        "teacher": folder / "teacher",
        "composition.size": 32,
        "settings.transport_iterations": 5,
        "per_device_train_batch_size": 2,
        "dataloader_num_workers": 0,
        "mixed_precision": "no",
        "threads": 1,
    }
    return [word for name, value in fields.items() for word in (f"--{name}", str(value))]
