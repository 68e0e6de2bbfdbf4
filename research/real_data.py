"""Real photos with coarse masks, and composites of cut-outs with true alphas, as batches for train_real.py."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from held_out import held_out_backgrounds, held_out_persons, is_held_out, read_rgba
from torch.utils.data import IterableDataset, get_worker_info

from fclm_hf.data import Composition, CompositionSettings, Foreground, PromptSettings, collate_prompts, sample_prompt
from fclm_hf.data.synthesis.augmentation import degrade_image, jitter_colors
from fclm_hf.data.synthesis.procedural import grow_plant
from fclm_hf.data.synthesis.spoiled_masks import blur_alpha, make_random_trimap, spoil_mask


WEIGHTS = {"tux": 3.0, "wesnoth": 1.5, "Smileys & Emotion": 0.3}
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
    """A name that shares no word with one that is there: no "bear" where there is a "teddy bear"."""
    words = {word for name in present for each in with_synonyms(name) for word in each.split()}
    fitting = [name for name in known if not words.intersection(name.split())]
    return str(rng.choice(fitting))


def read_small(path: Path, side: int) -> np.ndarray:
    """As `read_rgba`, shrunk to a longest side of `side`; kept in memory."""
    if (path, side) not in _KEPT:
        pixels = read_rgba(path)
        if (zoom := side / max(pixels.shape[:2])) < 1:
            pixels = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        _KEPT[path, side] = pixels
    return _KEPT[path, side]


_KEPT: dict[tuple[Path, int], np.ndarray] = {}


def dress(colors: np.ndarray, rng: np.random.Generator, texture: np.ndarray | None) -> np.ndarray:
    """Another color and texture for the white shirt: what is bright and gray in the lower two fifths."""
    hsv = cv2.cvtColor(colors, cv2.COLOR_RGB2HSV)
    white = ((hsv[..., 1] < 60) & (hsv[..., 2] > 110)).astype(np.float32)
    white[: int(0.6 * len(white))] = 0
    white = cv2.GaussianBlur(cv2.medianBlur(white.astype(np.uint8) * 255, 7), (0, 0), 1.5).astype(np.float32) / 255
    tint = rng.uniform(0.1, 1.0, 3).astype(np.float32)
    cloth = colors.astype(np.float32) * tint
    if texture is not None:
        pattern = cv2.resize(texture, colors.shape[1::-1]).astype(np.float32)
        cloth = cloth * (0.35 + 0.65 * pattern / 255)
    share = white[..., None]
    return np.clip(colors * (1 - share) + cloth * share, 0, 255).astype(np.uint8)


class Cutouts:
    """Foregrounds of all sources of true alphas: the training set, people with hair, animals and objects."""

    def __init__(self, train: Path, cutouts: Path, general_names: dict, shares: tuple[float, float, float]):
        entries = json.loads((train / "foregrounds.json").read_text())
        general = {
            entry["file"]: general_names.get(entry["name"], []) + general_names.get(entry["cls"], [])
            for entry in entries
        }
        self.set = [
            {
                **entry,
                "path": train / entry["file"],
                "names": list(dict.fromkeys([entry["name"], *general[entry["file"]]])),
            }
            for entry in entries
        ]
        weights = np.array([WEIGHTS.get(e["source"], 1.0) * WEIGHTS.get(e["cls"], 1.0) for e in entries])
        self.weights = weights / weights.sum()
        index = json.loads((cutouts / "index.json").read_text())
        persons, backgrounds = held_out_persons(index), held_out_backgrounds(index)
        kept = [{**e, "path": cutouts / e["file"]} for e in index if not is_held_out(e, persons, backgrounds)]
        self.people = [entry for entry in kept if entry["file"].startswith("people/")]
        self.boss = [entry for entry in kept if entry["file"].startswith("boss/")]
        self.shares = np.array(shares) / sum(shares)
        self.textures: list[np.ndarray] = []

    def list_names(self) -> list[str]:
        """List the names of all foregrounds."""
        return [name for entry in self.set + self.people + self.boss for name in entry["names"]]

    def sample(self, rng: np.random.Generator, side: int = 640) -> Foreground:
        """Draw an item at random."""
        kind = int(rng.choice(3, p=self.shares))
        entries, weights = ((self.set, self.weights), (self.people, None), (self.boss, None))[kind]
        entry = entries[int(rng.choice(len(entries), p=weights))]
        pixels = read_small(entry["path"], side)
        colors, alpha = pixels[..., :3], pixels[..., 3].astype(np.float32) / 255
        sides = tuple(entry.get("truncated_LTRB", (False,) * 4))
        if kind == 1:
            texture = self.textures[int(rng.integers(len(self.textures)))] if rng.random() < 0.5 else None
            colors = dress(colors, rng, texture)
            sides = (sides[0], sides[1], sides[2], True)
        return Foreground(np.ascontiguousarray(colors), alpha, tuple(entry["names"]), sides)


class PhotoTable:
    """The photos of data/real: rows on demand, drawn so that rare classes come up more often."""

    def __init__(self, folder: Path):
        columns = ["source", "image", "alphas", "names", "instance", "unique", "complete"]
        tables = [pq.read_table(path, columns=columns) for path in sorted(folder.glob("*.parquet"))]
        self.rows = [row for table in tables for row in table.to_pylist()]
        counts = Counter(name for row in self.rows for name in set(row["names"]))
        rarity = {name: count**-0.5 for name, count in counts.items()}
        factor = {"coco2017": 2.0, "coco2017_partial": 1.2, "voc2012": 1.0}
        weights = [np.mean([rarity[n] for n in row["names"]]) * factor[row["source"]] for row in self.rows]
        self.probabilities = np.array(weights) / np.sum(weights)
        self.names = sorted(counts)
        self.clear = [[bool(i or u) for i, u in zip(row["instance"], row["unique"], strict=True)] for row in self.rows]

    def sample(self, rng: np.random.Generator) -> dict:
        """Draw an item at random."""
        return self.rows[int(rng.choice(len(self.rows), p=self.probabilities))]


def decode(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decode an encoded image to an array."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB) if flags == cv2.IMREAD_COLOR else pixels


def edge_band(mask: np.ndarray, radius: int) -> np.ndarray:
    """True within `radius` pixels of an edge of a boolean mask."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    mask = mask.astype(np.uint8)
    return cv2.dilate(mask, kernel) != cv2.erode(mask, kernel)


class PhotoSampler:
    """A photo, cropped and changed, with prompts, targets and the pixels where the targets count."""

    def __init__(
        self, table: PhotoTable, size: int, prompts: PromptSettings, count: int, automatic: float, absent: float
    ):
        self.table, self.size, self.prompts = table, size, prompts
        self.count, self.automatic, self.absent = count, automatic, absent
        self.band = max(2, round(0.01 * size))

    def place(self, row: dict, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray], tuple[int, int]]:
        """Scale, crop and flip a photo and its masks."""
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
        """0 / 1 / 2 (unknown) -> target and where it counts."""
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


class TrueSampler:
    """Composites of cut-outs with true alphas; some lie on real photos, whose own objects then count as background."""

    def __init__(
        self,
        cutouts: Cutouts,
        backgrounds: "MixedBackgrounds",
        settings: CompositionSettings,
        table: PhotoTable,
        prompts: PromptSettings,
        count: int,
        automatic: float,
        absent: float,
        on_photos: float,
    ):
        self.cutouts, self.backgrounds, self.settings = cutouts, backgrounds, settings
        self.table, self.prompts = table, prompts
        self.count, self.automatic, self.absent, self.on_photos = count, automatic, absent, on_photos

    def draw_foreground(self, rng: np.random.Generator) -> Foreground:
        """Draw a foreground, or grow a plant."""
        if rng.random() < self.settings.plant_prob:
            plant = grow_plant(rng, self.settings.size)
            return Foreground(plant.colors, plant.alpha, ("plant", "potted plant"), plant.cut_sides)
        return self.cutouts.sample(rng)

    def compose(self, rng: np.random.Generator, background: np.ndarray):
        """Compose foregrounds on a background until one is visible."""
        settings, composite = self.settings, None
        while composite is None:
            count, copies = 1 + int(rng.choice(3, p=settings.object_counts)), 1
            if count > 1 and rng.random() < settings.duplicate_prob:
                count, copies = 1, int(rng.integers(2, settings.max_duplicates + 1))
            foregrounds: list[Foreground] = []
            for foreground in (self.draw_foreground(rng) for _ in range(count)):
                if not any(set(foreground.names) & set(each.names) for each in foregrounds):
                    foregrounds.append(foreground)
            clutter = [self.cutouts.sample(rng) for _ in range(3)]
            texture = self.cutouts.textures[int(rng.integers(len(self.cutouts.textures)))]
            composite = Composition(clutter, [texture], settings).compose(foregrounds, background, rng, copies)
        return composite

    def __call__(self, rng: np.random.Generator) -> dict:
        """Draw a sample: image, targets, masks of what is known, prompts."""
        row = self.table.sample(rng) if rng.random() < self.on_photos else None
        taken = set(row["names"]) if row else set()
        sample = self.compose(rng, decode(row["image"]["bytes"]) if row else self.backgrounds.sample(rng))
        alphas, names = sample.alphas, [() if taken & set(own) else own for own in sample.names]
        automatic = 0.0 if taken else self.automatic
        prompts, labels = [], []
        order = rng.permutation(len(alphas))
        present = taken | {name for own in sample.names for name in own}
        for slot in range(self.count):
            chosen = order[slot % len(order)]
            if rng.random() < automatic:
                prompts.append({})
                labels.append(1 - np.prod(1 - alphas, axis=0))
            elif not taken and rng.random() < self.absent / 3:
                other = pick_absent(self.table.names, present, rng)
                prompts.append({"text": str(rng.choice(self.prompts.templates)).format(other)})
                labels.append(np.zeros_like(alphas[0]))
            else:
                prompts.append(sample_prompt(alphas[chosen], names[chosen], rng, self.prompts))
                labels.append(alphas[chosen])
        labels = np.stack(labels).astype(np.float32)
        return {
            "image": sample.image,
            "labels": labels,
            "valid": np.ones(labels.shape, bool),
            "size": sample.valid,
            "prompts": prompts,
            "regions": [(own, alpha) for own, alpha in zip(sample.names, alphas, strict=True) if own],
        }

    def list_names(self) -> list[str]:
        """List the names of all foregrounds."""
        return [*self.cutouts.list_names(), "plant", "potted plant"]


class MixedBackgrounds:
    """Photos without objects of interest."""

    def __init__(self, folders: list[Path]):
        self.paths: list[Path] = []
        for folder in folders:
            if (folder / "index.json").is_file():
                index = json.loads((folder / "index.json").read_text())
                persons, backgrounds = held_out_persons(index), held_out_backgrounds(index)
                kept = [e for e in index if e["file"].startswith("bg/") and not is_held_out(e, persons, backgrounds)]
                self.paths += [folder / e["file"] for e in kept]
            else:
                self.paths += [folder / e["file"] for e in json.loads((folder / "backgrounds.json").read_text())]

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Draw an item at random."""
        return read_small(self.paths[int(rng.integers(len(self.paths)))], 960)


def add_masks(sample: dict, rng: np.random.Generator, share: float, trimaps: float) -> None:
    """Gives a share of the prompts a spoiled mask of their target, most of these nothing else."""
    for prompt, target, valid in zip(sample["prompts"], sample["labels"], sample["valid"], strict=True):
        if rng.random() >= share or not prompt or target.max() < 0.3:
            continue
        height, width = sample["size"]
        unsure = ~valid[:height, :width]
        mask = spoil_mask(target[:height, :width], rng, unsure if unsure.any() else None, trimaps)
        if rng.random() < 0.7:
            prompt.clear()
        prompt["mask"] = np.pad(mask, ((0, len(target) - height), (0, len(target) - width)), constant_values=-1)


class ZoomSampler:
    """Windows of composites at full size around a soft edge, with a blurred alpha or a trimap as the only prompt."""

    def __init__(self, cutouts: Cutouts, backgrounds: "MixedBackgrounds", settings: CompositionSettings, count: int):
        self.cutouts, self.backgrounds, self.settings, self.count = cutouts, backgrounds, settings, count

    def __call__(self, rng: np.random.Generator) -> dict:
        """Draw a sample: image, targets, masks of what is known, prompts."""
        settings = self.settings
        while True:
            if rng.random() < settings.plant_prob:
                plant = grow_plant(rng, 2 * settings.size)
                foreground = Foreground(plant.colors, plant.alpha, ("plant",), plant.cut_sides)
            else:
                foreground = self.cutouts.sample(rng, 1000)
            texture = self.cutouts.textures[int(rng.integers(len(self.cutouts.textures)))]
            sample = Composition([], [texture], settings).compose([foreground], self.backgrounds.sample(rng), rng)
            if sample is None:
                continue
            alpha = sample.alphas[0]
            soft = ((alpha > 0.05) & (alpha < 0.95)).mean()
            if soft > 0.01 and (soft > 0.04 or rng.random() < 0.4):
                break
        masks = [self.blur(alpha, rng) for _ in range(self.count)]
        return {
            "image": sample.image,
            "labels": np.stack([alpha] * self.count).astype(np.float32),
            "valid": np.ones((self.count, *alpha.shape), bool),
            "size": sample.valid,
            "prompts": [{"mask": mask} for mask in masks],
            "regions": [],
        }

    def blur(self, alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a trimap, or the alpha as an earlier look at less than full size gives it."""
        if rng.random() < 0.4:
            return make_random_trimap(alpha, rng)
        return blur_alpha(alpha, rng)


def stack_masks(samples: list[dict]) -> dict[str, torch.Tensor]:
    """Stack the mask prompts of samples, if there are any."""
    if not any("mask" in prompt for s in samples for prompt in s["prompts"]):
        return {}
    absent = np.full(samples[0]["labels"].shape[1:], -1, np.float32)
    masks = np.stack([np.stack([prompt.get("mask", absent) for prompt in s["prompts"]]) for s in samples])
    return {"input_masks": torch.from_numpy(masks.astype(np.float32))}


def collate(samples: list[dict], tokenizer) -> dict:
    """Collate samples to the inputs and targets of the model."""
    size = samples[0]["image"].shape[0]
    masks = np.zeros((len(samples), size, size), np.int64)
    for mask, sample in zip(masks, samples, strict=True):
        mask[: sample["size"][0], : sample["size"][1]] = 1
    pixel_mask = torch.from_numpy(masks)
    pixels = torch.from_numpy(np.stack([s["image"] for s in samples]).astype(np.float32) / 127.5 - 1)
    pixels = (pixels.permute(0, 3, 1, 2) * pixel_mask[:, None]).contiguous(memory_format=torch.channels_last)
    regions = [(i, name, region) for i, s in enumerate(samples) for name, region in s["regions"]]
    grids = [cv2.resize(r.astype(np.float32), (24, 24), interpolation=cv2.INTER_AREA) for *_, r in regions]
    return {
        "inputs": {
            "pixel_values": pixels,
            "pixel_mask": pixel_mask,
            **collate_prompts([s["prompts"] for s in samples], tokenizer),
            **stack_masks(samples),
        },
        "labels": torch.from_numpy(np.stack([s["labels"] for s in samples])),
        "valid": torch.from_numpy(np.stack([s["valid"] for s in samples])) & pixel_mask[:, None].bool(),
        "region_images": torch.tensor([i for i, *_ in regions], dtype=torch.long),
        "region_names": [name for _, name, _ in regions],
        "region_grids": torch.from_numpy(np.stack(grids)) if grids else torch.zeros(0, 24, 24),
    }


class MixedBatches(IterableDataset):
    """Endless (step, {"photos": batch, "cutouts": batch}); the same seed and step give the same batch."""

    def __init__(
        self, photos: PhotoSampler, cutouts: TrueSampler, tokenizer, counts: tuple[int, int, int], seed: int,
        start: int, masks: float = 0.0, trimaps: float = 0.3, zooms: ZoomSampler | None = None,
    ):  # fmt: skip
        self.zooms = zooms
        self.masks, self.trimaps = masks, trimaps
        self.photos, self.cutouts, self.tokenizer = photos, cutouts, tokenizer
        self.counts, self.seed, self.start = counts, seed, start

    def make(self, step: int) -> dict:
        """Make the batches of a step."""
        rng = np.random.default_rng([self.seed, step])
        batch = {}
        for kind, draw, count in (
            ("photos", self.photos, self.counts[0]), ("cutouts", self.cutouts, self.counts[1]),
            ("zooms", self.zooms, self.counts[2]),
        ):  # fmt: skip
            if count:
                samples = [draw(rng) for _ in range(count)]
                if self.masks and kind != "zooms":
                    for sample in samples:
                        add_masks(sample, rng, self.masks, self.trimaps)
                batch[kind] = collate(samples, self.tokenizer)
        return batch

    def __iter__(self) -> Iterator[tuple[int, dict]]:
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        info = get_worker_info()
        step, stride = (self.start + info.id, info.num_workers) if info else (self.start, 1)
        while True:
            yield step, self.make(step)
            step += stride


def build_batches(args, tokenizer, general_names: dict, start: int) -> MixedBatches:
    """Build the stream of batches from the arguments."""
    templates = ("{}", "{}", "{}", "a {}", "the {}", "a photo of a {}.")
    kinds = {"box": 4, "point": 4, "text": args.text_weight, "box+point": 0.7, "text+box": 0.3, "text+point": 0.3}
    prompts = PromptSettings(kinds=kinds, templates=templates)
    table = PhotoTable(args.data / "real")
    cutouts = Cutouts(args.data / "train", args.data / "cutouts", general_names, tuple(args.shares))
    backgrounds = MixedBackgrounds([args.data / "train", args.data / "cutouts"])
    rng = np.random.default_rng(0)
    cutouts.textures = [cv2.resize(backgrounds.sample(rng), (256, 256)) for _ in range(40)]
    settings = CompositionSettings(
        size=args.cutout_size,
        plant_prob=args.plants,
        single_scale=(0.4, 1.6),
        soft_edge_prob=args.soft_edge,
        hair_prob=args.strands,
    )
    photos = PhotoSampler(table, args.photo_size, prompts, args.photo_prompts, 0.2, args.absent)
    varied = (*templates * 3, "{}s", "the {}s", "{} toy", "toy {}", "some {}s")
    named = PromptSettings(kinds={**kinds, "text": 2 * args.text_weight}, templates=varied)
    composites = TrueSampler(
        cutouts, backgrounds, settings, table, named, args.cutout_prompts, 0.22, args.absent, args.on_photos
    )
    close = CompositionSettings(
        size=args.zoom_size, plant_prob=0.15, single_scale=(1.0, 3.2), soft_edge_prob=0.1, hair_prob=0.3,
        cluster_prob=0.05, lattice_prob=0.05, shadow_prob=0.15, letterbox_prob=0.0, min_visible=0.02, min_area=0.02,
        photo_texture_prob=0.1, translucency_prob=0.04,
    )  # fmt: skip
    people = Cutouts(args.data / "train", args.data / "cutouts", general_names, (0.2, 0.55, 0.25))
    people.textures = cutouts.textures
    zooms = ZoomSampler(people, backgrounds, close, 1)
    counts = (args.photos, args.cutouts, args.zooms)
    return MixedBatches(photos, composites, tokenizer, counts, args.seed, start, args.masks, args.trimaps, zooms)
