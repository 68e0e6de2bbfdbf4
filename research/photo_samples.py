"""Samples of real photos with coarse masks, cropped and changed, with prompts, for train_real.py."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq

from fclm_hf.data import PromptSettings, sample_prompt
from fclm_hf.data.synthesis.augmentation import degrade_image, jitter_colors


VOC = (
    "airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog",
    "horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv",
)  # fmt: skip
SYNONYMS = {
    "teddy bear": ("toy", "toy bear", "bear toy", "stuffed animal", "stuffed toy"),
    "potted plant": ("plant", "plant in a pot", "houseplant"),
    "couch": ("sofa",),
    "tv": ("television", "monitor", "screen"),
    "cell phone": ("phone", "mobile phone"),
    "airplane": ("plane",),
    "motorcycle": ("motorbike",),
    "bicycle": ("bike",),
    "dining table": ("table",),
    "person": ("human",),
    "donut": ("doughnut",),
    "vase": ("pot",),
    "sports ball": ("ball",),
    "cup": ("mug",),
}


def with_synonyms(name: str) -> tuple[str, ...]:
    """Return a name and its synonyms."""
    return (name, *SYNONYMS.get(name, ()))


def pick_absent(known: list[str], present: set[str], rng: np.random.Generator) -> str:
    """Draw a name that shares no word with one that is there: no "bear" where there is a "teddy bear"."""
    words = {word for name in present for each in with_synonyms(name) for word in each.split()}
    fitting = [name for name in known if not words.intersection(name.split())]
    return str(rng.choice(fitting))


def find_crowd_factor(row: dict) -> float:
    """Return how much more often a photo with several instances of a kind is drawn: clicks are to tell them apart."""
    counts = Counter(name for name, is_one in zip(row["names"], row["instance"], strict=True) if is_one)
    return min(3.0, 0.5 + 0.5 * max(counts.values(), default=1))


class PhotoTable:
    """Photos of a folder of Parquet files, drawn so that rare classes come up more often."""

    def __init__(self, folder: Path):
        columns = ["source", "image", "alphas", "names", "instance", "unique", "complete"]
        tables = [pq.read_table(path, columns=columns) for path in sorted(folder.glob("*.parquet"))]
        self.rows = [row for table in tables for row in table.to_pylist()]
        counts = Counter(name for row in self.rows for name in set(row["names"]))
        rarity = {name: count**-0.5 for name, count in counts.items()}
        factor = {"coco2017": 2.0, "coco2017_partial": 1.2, "voc2012": 1.0}
        weights = [
            np.mean([rarity[n] for n in row["names"]]) * factor[row["source"]] * find_crowd_factor(row)
            for row in self.rows
        ]
        self.probabilities = np.array(weights) / np.sum(weights)
        self.names = sorted(counts)
        self.clear = [[bool(i or u) for i, u in zip(row["instance"], row["unique"], strict=True)] for row in self.rows]

    def sample(self, rng: np.random.Generator) -> dict:
        """Draw a row at random."""
        return self.rows[int(rng.choice(len(self.rows), p=self.probabilities))]


def decode(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an encoded image to an array."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if flags == cv2.IMREAD_COLOR else pixels


def edge_band(mask: np.ndarray, radius: int) -> np.ndarray:
    """Return True within `radius` pixels of an edge of a boolean mask, else False."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    mask = mask.astype(np.uint8)
    return cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)


class PhotoSampler:
    """Draws photos, cropped and changed, with prompts, targets and the pixels where the targets count."""

    def __init__(
        self, table: PhotoTable, size: int, prompts: PromptSettings, count: int, automatic: float, absent: float
    ):
        self.table, self.size, self.prompts = table, size, prompts
        self.count, self.automatic, self.absent = count, automatic, absent
        self.band = max(2, round(0.01 * size))

    def place(self, row: dict, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], tuple[int, int]]:
        """Scale, crop, flip and rotate a photo and its masks; return both and the height and width."""
        image = decode(row["image"]["bytes"])
        alphas = [decode(data, cv2.IMREAD_GRAYSCALE) for data in row["alphas"]]
        height, width = image.shape[:2]
        x0, y0, x1, y1 = 0.0, 0.0, float(width), float(height)
        if rng.random() < 0.6:  # a window: of any place, or around an object
            w, h = width * rng.uniform(0.45, 1.0), height * rng.uniform(0.45, 1.0)
            x0, y0 = rng.uniform(0, width - w), rng.uniform(0, height - h)
            x1, y1 = x0 + w, y0 + h
        zoom = self.size / max(x1 - x0, y1 - y0)
        if rng.random() < 0.25:
            zoom *= rng.uniform(0.6, 1.0)
        stretch = float(np.exp(rng.uniform(-0.1, 0.1)))
        zx, zy = zoom * min(1, stretch), zoom * min(1, 1 / stretch)
        w, h = max(64, round((x1 - x0) * zx)), max(64, round((y1 - y0) * zy))
        w, h = min(w, self.size), min(h, self.size)
        angle = rng.normal() * 0.06 if rng.random() < 0.3 else 0.0
        flip = -1 if rng.random() < 0.5 else 1
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([flip * zx, zy])
        center = np.array([(x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2])
        shift = np.array([(w - 1) / 2, (h - 1) / 2]) - turn @ center
        matrix = np.hstack([turn, shift[:, None]]).astype(np.float32)
        if zoom < 0.75:
            image = cv2.GaussianBlur(image, (0, 0), 0.4 / zoom)
        image = cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        warped = []
        for alpha in alphas:
            planes = [(alpha == 255).astype(np.float32), (alpha != 128).astype(np.float32)]
            inside, known = (
                cv2.warpAffine(p, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
                for p in planes
            )
            warped.append(np.where(known < 0.99, 2, inside > 0.5).astype(np.uint8))
        return image, warped, (h, w)

    def targets(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the target of a mask of 0, 1 and 2 (unknown), and the pixels where it counts."""
        inside = mask == 1
        unsure = mask == 2
        band = edge_band(inside, self.band) if inside.any() else np.zeros_like(inside)
        return inside.astype(np.float32), (~unsure & ~band)

    def __call__(self, rng: np.random.Generator) -> dict:
        """Draw a sample: image, targets, masks of what is known, prompts."""
        while True:
            row = self.table.sample(rng)
            image, masks, (height, width) = self.place(row, rng)
            visible = [(m == 1).sum() >= max(150, 0.002 * height * width) for m in masks]
            usable = [v and (i or u) for v, i, u in zip(visible, row["instance"], row["unique"], strict=True)]
            if any(usable):
                break
        image = jitter_colors(image.astype(np.float32), rng, 0.6)
        if rng.random() < 0.4:
            image = degrade_image(image, rng)
        image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
        order = rng.permutation(np.flatnonzero(usable))
        prompts, labels, valid = [], [], []
        for slot in range(self.count):
            prompt, mask = self.draw(row, masks, int(order[slot % len(order)]), rng)
            target, where = self.targets(mask)
            prompts.append(prompt), labels.append(target), valid.append(where)
        size = self.size
        below = ((0, size - height), (0, size - width))
        regions = [((row["names"][i],), masks[i] == 1) for i in np.flatnonzero(visible)]
        return {
            "image": np.pad(image, (*below, (0, 0))),
            "labels": np.pad(np.stack(labels), ((0, 0), *below)),
            "valid": np.pad(np.stack(valid), ((0, 0), *below)),
            "size": (height, width),
            "prompts": prompts,
            "regions": [(name, np.pad(region, below)) for name, region in regions],
        }

    def draw(
        self, row: dict, masks: list[np.ndarray], chosen: int, rng: np.random.Generator
    ) -> tuple[dict, np.ndarray]:
        """Draw a prompt for an object and its target."""
        if row["complete"] and rng.random() < self.automatic:
            stack = np.stack(masks)
            union = np.where((stack == 1).any(0), 1, np.where((stack == 2).any(0), 2, 0)).astype(np.uint8)
            return {}, union
        if row["complete"] and rng.random() < self.absent:
            known = self.table.names if row["source"] == "coco2017" else VOC
            text = str(rng.choice(self.prompts.templates)).format(pick_absent(known, set(row["names"]), rng))
            return {"text": text}, np.zeros_like(masks[0])
        instance, unique = row["instance"][chosen], row["unique"][chosen]
        kinds = self.prompts.kinds
        if not unique:
            kinds = {kind: weight for kind, weight in kinds.items() if "text" not in kind}
        if not instance:
            kinds = {"text": 1.0}
        settings = PromptSettings(kinds=kinds, templates=self.prompts.templates)
        alpha = (masks[chosen] == 1).astype(np.float32)
        names = (row["names"][chosen],)
        if rng.random() < 0.3:
            names = with_synonyms(names[0])
        return sample_prompt(alpha, names, rng, settings), masks[chosen]
