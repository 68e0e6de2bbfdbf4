"""Small benchmarks in the layouts of the real ones."""

import json
from pathlib import Path

import numpy as np
from metric_inputs import disc
from PIL import Image


SIZE = (48, 64)  # height, width


def matte(x: float, y: float, radius: float = 9) -> Image.Image:
    """Return the matte of a soft disc."""
    return Image.fromarray(np.rint(disc(SIZE, (x, y), radius) * 255).astype(np.uint8))


def photo(*mattes: Image.Image, seed: int = 0) -> Image.Image:
    """Return noise with bright objects."""
    pixels = np.random.default_rng(seed).integers(0, 90, (*SIZE, 3))
    for number, each in enumerate(mattes):
        pixels[..., number % 3] += np.asarray(each) // 2
    return Image.fromarray(pixels.astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    """Save an image, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_refmatte(root: Path) -> Path:
    """Write a small RefMatte-RW100; its first photo has two objects and therefore appears twice."""
    objects = {"a_0": ("a", matte(20, 20)), "a_1": ("a", matte(45, 28)), "b_0": ("b", matte(30, 24, 14))}
    labels = {}
    for number, (stem, (name, alpha)) in enumerate(objects.items()):
        save(photo(*(each for other, each in objects.values() if other == name)), root / "image_all" / f"{stem}.png")
        save(alpha, root / "mask" / f"{stem}.png")
        labels[stem] = {"image_name": name, "expressions": [f"first of {stem}", f"second {number}"]}
    (root / "refmatte_rw100_label.json").write_text(json.dumps(labels))
    (root / "eval_index_expression.json").write_text(json.dumps({"a": 1, "b": 0}))
    return root


def write_him2k(root: Path) -> Path:
    """Write a small HIM2K and return its folder."""
    for name, centers in {"one": [(30, 24)], "two": [(16, 20), (46, 26)]}.items():
        alphas = [matte(*center) for center in centers]
        save(photo(*alphas), root / "images" / "natural" / f"{name}.jpg")
        for number, alpha in enumerate(alphas):
            save(alpha, root / "alphas" / "natural" / name / f"{number:02d}.png")
    return root


def write_dis5k(root: Path, splits: tuple[str, ...] = ("DIS-VD",)) -> Path:
    """Write small splits of DIS5K and return their folder."""
    for number, split in enumerate(splits):
        stem = f"{number}#Graphics#4#TrafficSign#82457.1_o"
        alpha = matte(20 + 2 * number, 24, 12).point(lambda value: 255 * (value > 128))
        save(photo(alpha), root / split / "im" / f"{stem}.jpg")
        save(alpha, root / split / "gt" / f"{stem}.png")
    return root


def write_alphamatting(root: Path) -> Path:
    """Write a small alphamatting.com training set and return its folder."""
    for number, name in enumerate(("GT01", "GT02")):
        alpha = matte(28 + 4 * number, 22, 13)
        values = np.asarray(alpha)
        trimap = np.where(values == 0, 0, np.where(values == 255, 255, 128)).astype(np.uint8)
        save(photo(alpha, seed=number), root / "input_training_lowres" / f"{name}.png")
        save(alpha, root / "gt_training_lowres" / f"{name}.png")
        save(Image.fromarray(trimap), root / "trimap_training_lowres" / "Trimap1" / f"{name}.png")
    return root


def write_dev(root: Path) -> Path:
    """Write both layouts of the development photos, root/coco and root/alphamatting."""
    alphas = [matte(16, 20), matte(46, 26)]
    save(photo(*alphas), root / "coco" / "images" / "000.jpg")
    objects = []
    for number, alpha in enumerate(alphas):
        save(alpha.point(lambda value: 255 * (value > 128)), root / "coco" / "masks" / f"000_{number}.png")
        box, point = [5 + 30 * number, 8, 28 + 30 * number, 40], [16 + 30 * number, 20 + 6 * number]
        item = {"cls": "low", "unique": number == 0, "mask": f"masks/000_{number}.png", "box": box, "point": point}
        objects.append(item)
    (root / "coco" / "index.json").write_text(json.dumps([{"image": "images/000.jpg", "objects": objects}]))
    save(photo(alphas[0]), root / "alphamatting" / "input" / "GT01.png")
    save(alphas[0], root / "alphamatting" / "alpha" / "GT01.png")
    entry = {"id": "GT01", "noun": "low er", "box": [5, 8, 28, 32], "point": [16, 20]}
    (root / "alphamatting" / "index.json").write_text(json.dumps([entry]))
    return root


def write_folders(root: Path, image: str = "image", alpha: str = "alpha", count: int = 5) -> Path:
    """Write folders of images and mattes."""
    for number in range(count):
        truth = matte(20 + 5 * number, 24, 8 + number)
        save(photo(truth, seed=number), root / image / f"p{number}.png")
        save(truth, root / alpha / f"p{number}.png")
    return root
