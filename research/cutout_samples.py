"""Samples of composites of cutouts, whose alphas are exact, with prompts, for train_real.py."""

import json
from pathlib import Path

import cv2
import numpy as np
from held_out import held_out_backgrounds, held_out_persons, is_held_out, read_rgba
from photo_samples import PhotoTable, decode, pick_absent

from fclm_hf.data import Composition, CompositionSettings, Foreground, PromptSettings, sample_prompt
from fclm_hf.data.synthesis.procedural import grow_plant
from fclm_hf.data.synthesis.spoiled_masks import blur_alpha, make_random_trimap


WEIGHTS = {"tux": 3.0, "wesnoth": 1.5, "Smileys & Emotion": 0.3}
_KEPT: dict[tuple[Path, int], np.ndarray] = {}


def read_small(path: Path, side: int) -> np.ndarray:
    """Read an image file as `read_rgba` does, shrunk to a longest side of `side`, and keep it in memory."""
    if (path, side) not in _KEPT:
        pixels = read_rgba(path)
        if (zoom := side / max(pixels.shape[:2])) < 1:
            pixels = cv2.resize(pixels, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA)
        _KEPT[path, side] = pixels
    return _KEPT[path, side]


def dress(colors: np.ndarray, rng: np.random.Generator, texture: np.ndarray | None) -> np.ndarray:
    """Give a white shirt, which is what is bright and gray in the lower two fifths, another color and texture."""
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
    """Foregrounds with true alphas: the training set, people with hair, animals and objects."""

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
        """Draw a foreground with a longest side of `side` at the most."""
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
        """Draw a photo with a longest side of 960 pixels at the most."""
        return read_small(self.paths[int(rng.integers(len(self.paths)))], 960)


class TrueSampler:
    """Draws composites of cutouts; some lie on real photos, whose own objects then count as background."""

    def __init__(
        self,
        cutouts: Cutouts,
        backgrounds: MixedBackgrounds,
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


class ZoomSampler:
    """Draws windows of composites at full size around a soft edge, whose only prompt is a blurred alpha or a trimap."""

    def __init__(self, cutouts: Cutouts, backgrounds: MixedBackgrounds, settings: CompositionSettings, count: int):
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
