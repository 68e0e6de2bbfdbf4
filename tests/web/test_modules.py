"""The JavaScript of the page, run by Node, does what the Python of the package does."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer
from web_page import NODE, WEB, needs_node, needs_packages

from fclm_hf import LITE_CHECKPOINT
from fclm_hf.foreground_fclm import make_cutout
from fclm_hf.image_processing_base_fclm import _find_resized_size
from fclm_hf.image_processing_pil_fclm import _resize
from fclm_hf.masks_fclm import resize_maps


pytestmark = needs_node

Pixels = np.ndarray

WRITE_PNG = """
import { PngWriter } from "./src/worker/png.js";
const [height, width, channels] = args;
const pixels = new Uint8Array(readFileSync(files[0]));
const png = new PngWriter(width, height, channels);
const half = Math.ceil(height / 2) * width * channels;
await png.writeRows(pixels.subarray(0, half));
await png.writeRows(pixels.subarray(half));
writeFileSync(files[1], Buffer.from(await (await png.finish()).arrayBuffer()));
"""
RESIZE = """
import { MapResizer, resizeStrips } from "./src/worker/resize.js";
const [from, to, rows] = args;
const pixels = new Uint8ClampedArray(readFileSync(files[0]));
const read = (top, bottom) => pixels.subarray(top * from[1] * 3, bottom * from[1] * 3);
writeFileSync(files[1], resizeStrips(read, from, to, 3, "triangle", rows));
const map = Float32Array.from({ length: from[0] * from[1] }, (_, i) => pixels[3 * i] / 255);
const resizer = new MapResizer(map, from, to);
const half = Math.floor(to[0] / 2);
writeFileSync(files[2], Buffer.concat([resizer.readRows(0, half), resizer.readRows(half, to[0])]));
"""
FIT = """
import { fitSize } from "./src/worker/resize.js";
console.log(JSON.stringify(args[0].map((size) => fitSize(size, 1024))));
"""
ESTIMATE = """
import { estimateForeground } from "./src/worker/foreground.js";
const [height, width] = args;
const pixels = new Uint8ClampedArray(readFileSync(files[0]));
const alpha = new Uint8Array(readFileSync(files[1]));
const strips = estimateForeground({
  height,
  width,
  readPixels: (top, bottom) => pixels.subarray(top * width * 4, bottom * width * 4),
  readAlpha: (top, bottom) => alpha.subarray(top * width, bottom * width),
});
writeFileSync(files[2], Buffer.concat(Array.from(strips, (strip) => strip.colors)));
"""
TOKENIZE = """
import { TextTokenizer } from "./src/worker/tokenizer.js";
const read = (name) => JSON.parse(readFileSync(`${args[0]}/${name}`));
const tokenizer = new TextTokenizer(read("tokenizer.json"), read("tokenizer_config.json"));
console.log(JSON.stringify(args[1].map((text) => tokenizer.encode(text))));
"""
SESSION = """
import { describePrompts, nameObject, Session } from "./src/session.js";
const session = new Session();
const states = args[0].map(([method, ...given]) => {
  session[method](...given);
  return {
    active: session.active,
    objects: session.objects.map((each) => `${nameObject(each)}: ${describePrompts(each.prompts)}`),
    undo: session.canUndo,
    redo: session.canRedo,
  };
});
console.log(JSON.stringify(states));
"""


def run_node(script: str, args: list[Any], files: list[Path] | None = None) -> str:
    """Run a script in web/ with `args` and `files` and return what it prints."""
    given = f"const args = {json.dumps(args)}, files = {json.dumps([str(each) for each in files or []])};"
    program = f'import {{ readFileSync, writeFileSync }} from "node:fs";\n{given}\n{script}'
    command = [NODE, "--input-type=module", "-e", program]
    return subprocess.run(command, cwd=WEB, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("size", "channels"), [((5, 7), 1), ((1, 1), 3), ((61, 40), 3), ((64, 97), 4)])
def test_png(size: tuple[int, int], channels: int, tmp_path: Path) -> None:
    pixels = np.random.randint(0, 256, (*size, channels), dtype=np.uint8)
    pixels[size[0] // 2 :] = 77  # rows that compress
    if channels == 4:
        pixels[: size[0] // 2, :, 3] = 0  # colors of invisible pixels must be kept
    files = [tmp_path / "pixels", tmp_path / "out.png"]
    pixels.tofile(files[0])
    run_node(WRITE_PNG, [*size, channels], files)
    with Image.open(files[1]) as image:
        assert image.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("size", "new_size", "rows"),
    [((50, 70), (50, 70), 8), ((97, 61), (40, 25), 16), ((30, 41), (77, 90), 256), ((300, 40), (7, 39), 128)],
)
def test_resize(size: tuple[int, int], new_size: tuple[int, int], rows: int, tmp_path: Path) -> None:
    pixels = np.random.randint(0, 256, (*size, 3), dtype=np.uint8)
    files = [tmp_path / name for name in ("pixels", "resized", "map")]
    pixels.tofile(files[0])
    run_node(RESIZE, [size, new_size, rows], files)
    resized = np.fromfile(files[1], np.uint8).reshape(*new_size, 3)
    expected = _resize(pixels.transpose(2, 0, 1), new_size, Image.Resampling.BILINEAR).transpose(1, 2, 0)
    assert np.abs(resized.astype(int) - expected).max() <= 1
    levels = np.fromfile(files[2], np.uint8).reshape(new_size)
    maps = resize_maps(torch.from_numpy(pixels[..., 0] / np.float32(255))[None], new_size)[0]
    assert np.abs(levels - 255 * maps.numpy()).max() < 0.51


def test_sizes() -> None:
    sizes = [(10, 20), (2048, 2048), (4000, 6000), (6000, 4001), (9000, 3), (1025, 1024), (777, 1999)]
    limit = type("Limit", (dict,), {"longest_edge": 1024, "shortest_edge": None, "height": None, "width": None})()
    assert json.loads(run_node(FIT, [sizes])) == [list(_find_resized_size(size, limit)) for size in sizes]


@pytest.mark.parametrize("size", [(120, 180), (300, 451), pytest.param((1300, 1700), marks=pytest.mark.slow)])
def test_foreground(size: tuple[int, int], tmp_path: Path, coffee: Image.Image) -> None:
    photo = coffee.resize(size[::-1])
    rows, columns = np.mgrid[: size[0], : size[1]]
    distance = np.hypot((columns - 0.55 * size[1]) / size[1] * 1.5, (rows - 0.45 * size[0]) / size[0])
    alpha = (((0.35 - distance) * 12).clip(0, 1) * 255).round().astype(np.uint8)
    files = [tmp_path / name for name in ("pixels", "alpha", "colors")]
    np.asarray(photo.convert("RGBA")).tofile(files[0])
    alpha.tofile(files[1])
    run_node(ESTIMATE, list(size), files)
    colors = np.fromfile(files[2], np.uint8).reshape(*size, 3)
    expected = np.asarray(make_cutout(photo, alpha))[..., :3]
    difference = np.abs(colors.astype(int) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.01


@needs_packages
def test_tokens() -> None:
    texts = [
        "cat", "A Cup of coffee", "  two\tspaces ", "crème brûlée", "it's 3 o'clock!", "日本語 😀", "a<|endoftext|>b",
        "word " * 60, "?",
    ]  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(LITE_CHECKPOINT)
    expected = tokenizer(texts, truncation=True)["input_ids"]
    assert json.loads(run_node(TOKENIZE, [str(LITE_CHECKPOINT), texts])) == expected


def test_session() -> None:
    steps = [
        ["addPoint", 3, 4, 1], ["addPoint", 5, 6, 0], ["undo"], ["redo"], ["undo"], ["setBox", [0, 0, 9, 9]],
        ["addObject"], ["addObject"], ["setText", "cup"], ["toggle", 0], ["undo"], ["remove", 0], ["setSalient"],
        ["remove", 1], ["remove", 0], ["undo"],
    ]  # fmt: skip
    states = json.loads(run_node(SESSION, [steps]))
    objects = [state["objects"] for state in states]
    assert objects[:3] == [["Object 1: 1 click"], ["Object 1: 2 clicks"], ["Object 1: 1 click"]]
    assert objects[3] == objects[1]
    assert objects[5] == ["Object 1: 1 click, box"]
    assert objects[6] == objects[7] == [*objects[5], "Object 2: click it in the photo"], "an empty object is enough"
    assert objects[8] == [*objects[5], "cup: name"]
    assert objects[11] == ["cup: name"]
    assert objects[12] == ["cup: name", "What stands out: no prompt needed"]
    assert objects[13] == objects[15] == ["cup: name"]
    assert len(objects[14]) == 1
    assert [state["redo"] for state in states[1:6]] == [False, True, False, True, False]
    assert not states[0]["redo"]
    assert states[0]["undo"]
    assert all(state["active"] < len(state["objects"]) for state in states)


def test_list_of_licenses_is_up_to_date() -> None:
    subprocess.run([NODE, "licenses.mjs", "--check"], cwd=WEB, check=True)


def test_versions_are_locked() -> None:
    package = json.loads((WEB / "package.json").read_text("utf-8"))
    lock = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    for name, version in {**package["dependencies"], **package["devDependencies"]}.items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
        assert lock[f"node_modules/{name}"]["version"] == version
    assert all("integrity" in each for folder, each in lock.items() if folder)
