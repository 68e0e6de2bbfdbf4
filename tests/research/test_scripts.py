"""The scripts of examples/ that build a training set, score a checkpoint on real photos and time the model."""

import json
from pathlib import Path

import numpy as np
import pytest
from paths import BENCHMARKS, RESEARCH
from PIL import Image
from scripts import load_script


build = load_script("build_training_set")
evaluation = load_script("evaluate_real_photos")
benchmark = load_script("benchmark")
averaging = load_script("average_weights")


def draw_disc(size: tuple[int, int], centre: tuple[int, int], radius: int, seed: int = 0) -> Image.Image:
    """A disc of noise, its alpha falling from 255 to 0 over six pixels."""
    width, height = size
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(columns - centre[0], rows - centre[1])
    alpha = np.clip((radius - distance) / 6, 0, 1) * 255
    colours = np.random.default_rng(seed).integers(0, 256, (height, width, 3))
    return Image.fromarray(np.dstack([colours, alpha]).astype(np.uint8))


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture
def cutouts(tmp_path: Path) -> Path:
    root = tmp_path / "cutouts"
    save(draw_disc((160, 120), (80, 60), 40), root / "animals" / "Red_Fox-1.png")
    save(draw_disc((160, 120), (80, 110), 40, seed=1), root / "animals" / "badger.png")
    save(draw_disc((400, 300), (200, 150), 140, seed=2), root / "the big wheel.webp")
    save(draw_disc((160, 120), (80, 60), 40), root / "copy of fox.png")
    save(draw_disc((160, 120), (80, 60), 9), root / "small.png")
    save(Image.new("RGB", (120, 100), "red"), root / "opaque.jpg")
    save(Image.new("RGBA", (120, 100)), root / "empty.png")
    (root / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (root / "notes.txt").write_text("not an image")
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for index in range(2):
        save(draw_disc((400, 300), (0, 0), 2000, seed=index).convert("RGB"), root / f"view {index}.png")
    save(draw_disc((400, 300), (200, 150), 100), root / "with alpha.png")
    save(Image.new("RGB", (40, 30)), root / "tiny.png")
    return root


def read_set(out: Path) -> tuple[dict[str, dict], list[dict]]:
    foregrounds = json.loads((out / "foregrounds.json").read_text())
    return {entry["name"]: entry for entry in foregrounds}, json.loads((out / "backgrounds.json").read_text())


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_training_set_of_a_folder(cutouts: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "set"
    arguments = ["--out", str(out), "--foregrounds", str(cutouts), "--backgrounds", str(photos)]
    build.main([*arguments, "--max-side", "200", "--foregrounds-licence", "CC0"])
    foregrounds, backgrounds = read_set(out)
    assert sorted(foregrounds) == ["badger", "big wheel", "red fox"]
    printed = capsys.readouterr().out
    for reason in ("1 all opaque", "1 all empty", "1 tiny", "1 unreadable", "1 copy"):
        assert reason in printed.splitlines()[0]

    fox, badger, wheel = foregrounds["red fox"], foregrounds["badger"], foregrounds["big wheel"]
    assert (fox["cls"], wheel["cls"], fox["licence"]) == ("animals", "cutouts", "CC0")
    original = np.asarray(Image.open(cutouts / "animals" / "Red_Fox-1.png"))[..., 3]
    rows, columns = np.nonzero((original > 5).any(1))[0], np.nonzero((original > 5).any(0))[0]
    expected = original[rows[0] - 2 : rows[-1] + 3, columns[0] - 2 : columns[-1] + 3]
    alpha = np.asarray(Image.open(out / fox["file"]))[..., 3]
    assert np.array_equal(alpha, expected)
    assert fox["size"] == [alpha.shape[1], alpha.shape[0]]
    assert fox["orig_size"] == [160, 120]
    assert fox["soft"] == pytest.approx(((alpha > 5) & (alpha < 250)).mean(), abs=1e-4)
    assert fox["truncated_LTRB"] == [False] * 4
    assert badger["truncated_LTRB"] == [False, False, False, True]
    assert max(wheel["size"]) == 200

    assert [entry["origin"] for entry in backgrounds] == ["photos/view 0.png", "photos/view 1.png"]
    assert Image.open(out / backgrounds[0]["file"]).size == (400, 300)
    assert not hidden(tmp_path)


def test_training_set_is_replaced_whole_or_not_at_all(cutouts: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "set"
    arguments = ["--out", str(out), "--foregrounds", str(cutouts)]
    build.main(arguments)
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    with pytest.raises(SystemExit) as stop:
        build.main([*arguments, "--backgrounds", str(tmp_path / "missing")])
    assert stop.value.code == 1
    assert "missing is not a folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before

    (cutouts / "animals" / "badger.png").unlink()
    build.main(arguments)
    assert "badger" not in read_set(out)[0]
    assert not list(out.rglob("*badger*"))
    assert not hidden(tmp_path)

    with pytest.raises(SystemExit):
        build.main(["--out", str(cutouts), "--foregrounds", str(cutouts)])
    assert "something else than a training set" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        build.main(["--out", str(tmp_path / "other")])
    assert "no foregrounds" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_training_set_of_unpacked_packages(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stamps = tmp_path / "tuxpaint" / "usr" / "share" / "tuxpaint" / "stamps"
    save(draw_disc((160, 120), (80, 60), 40), stamps / "animals" / "fox_7.png")
    (stamps / "animals" / "fox_7.txt").write_text("A red fox. It hunts!\nde.utf8=Ein Fuchs.\n")
    save(draw_disc((160, 120), (80, 60), 45), stamps / "animals" / "fox_7_mirror.png")
    save(draw_disc((160, 120), (80, 60), 50), stamps / "animals" / "cartoon" / "fox.png")
    flat = np.asarray(draw_disc((160, 120), (80, 60), 40)) * np.array([0, 0, 0, 1], dtype=np.uint8)
    save(Image.fromarray(flat), stamps / "animals" / "drawn.png")
    portraits = tmp_path / "wesnoth" / "images" / "portraits"
    save(draw_disc((160, 120), (80, 60), 40, seed=3), portraits / "elves" / "archer+female.png")
    assets = tmp_path / "fluent" / "assets"
    save(draw_disc((160, 120), (80, 60), 40, seed=4), assets / "1f98a.webp")
    save(draw_disc((160, 120), (80, 60), 40, seed=5), assets / "1f44d-1f3fb.webp")
    (tmp_path / "fluent" / "package.json").write_text('{"version": "9.8.7"}')
    names = tmp_path / "names"
    names.mkdir()
    (names / "data-by-emoji.json").write_text('{"🦊": {"name": "fox’s face", "group": "Animals & Nature"}}')

    sources = {"tuxpaint": tmp_path / "tuxpaint", "wesnoth": tmp_path / "wesnoth", "fluent": tmp_path / "fluent"}
    options = [f"--{name}={path}" for name, path in sources.items()]
    build.main(["--out", str(tmp_path / "set"), *options, f"--emoji-names={names}"])
    foregrounds, _ = read_set(tmp_path / "set")
    assert sorted(foregrounds) == ["elf archer woman", "fox's face", "red fox"]
    assert "1 not photographic" in capsys.readouterr().out
    assert foregrounds["fox's face"]["origin"].startswith("npm @lobehub/fluent-emoji-3d 9.8.7")
    with pytest.raises(SystemExit):
        build.main(["--out", str(tmp_path / "set"), "--tuxpaint", str(names)])
    assert "is it tuxpaint-stamps-default?" in capsys.readouterr().err


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
    from tiny_model import tiny_model, tiny_processor

    folder = tmp_path / "checkpoint"
    tiny_model().save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return folder


def test_scores_of_real_photos(real_photos: Path, checkpoint: Path, tmp_path: Path, capsys) -> None:
    import torch

    from fclm_hf import FCLMForImageMatting, FCLMProcessor

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
        (["--data", str(tmp_path / "nowhere")], "neither coco/index.json nor alphamatting/index.json"),
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
    assert "is 10 x 10, its photo 64 x 48" in capsys.readouterr().err
    (real_photos / "coco" / "index.json").write_text('[{"image": "images/0.png"}]')
    with pytest.raises(SystemExit):
        evaluation.main(arguments)
    assert "lacks objects" in capsys.readouterr().err


def test_weights_are_averaged(checkpoint: Path, tmp_path: Path, capsys) -> None:
    import torch
    from tiny_model import tiny_model

    from fclm_hf import FCLMForImageMatting

    tiny_model(seed=1).save_pretrained(tmp_path / "other")
    models = ["--models", str(checkpoint), str(tmp_path / "other")]
    averaging.main([*models, "--shares", "0.75", "0.25", "--output", str(tmp_path / "mean")])
    first, second, mean = (
        FCLMForImageMatting.from_pretrained(folder).float().state_dict()
        for folder in (checkpoint, tmp_path / "other", tmp_path / "mean")
    )
    for name, value in mean.items():
        torch.testing.assert_close(
            value, 0.75 * first[name] + 0.25 * second[name], atol=1e-3, rtol=1e-3, check_dtype=False
        )

    tiny_model(semantic_head_size=None).save_pretrained(tmp_path / "plain")
    for wrong, message in (
        ([*models, "--shares", "0.5"], "one for each of the 2 models"),
        ([*models, "--shares", "0.5", "0.6"], "of sum 1"),
        ([*models, str(tmp_path / "plain")], "plain have other weights"),
    ):
        with pytest.raises(SystemExit):
            averaging.main([*wrong, "--output", str(tmp_path / "none")])
        assert message in capsys.readouterr().err
        assert not (tmp_path / "none").exists()


def test_matches_of_names(real_photos: Path, checkpoint: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.syspath_prepend(RESEARCH)
    import measure_matches
    from tiny_model import tiny_model, tiny_processor

    truth = np.array([[True, True, False], [False, False, False]])
    assert measure_matches.area_under_roc(np.array([[3.0, 2, 1], [1, 0, 0]]), truth) == 1
    assert measure_matches.area_under_roc(np.array([[2.0, 0, 1], [1, 1, 1]]), truth) == 0.5
    assert measure_matches.area_under_roc(np.zeros((2, 3)), truth) == 0.5

    scores = measure_matches.main(["--data", str(real_photos), "--model", str(checkpoint)])
    assert set(scores) == {"low", "all"}
    assert 0 < scores["low"] == scores["all"] < 1
    assert "(1)" in capsys.readouterr().out
    tiny_model(semantic_head_size=None).save_pretrained(tmp_path / "plain")
    tiny_processor().save_pretrained(tmp_path / "plain")
    with pytest.raises(SystemExit):
        measure_matches.main(["--data", str(real_photos), "--model", str(tmp_path / "plain")])
    assert "no semantic head" in capsys.readouterr().err


@pytest.mark.slow
def test_benchmark_on_small_images(capsys: pytest.CaptureFixture) -> None:
    ballast = np.ones(200_000_000)  # 1.6 GB here must not count in the process that is measured
    options = ["--sections", "encoder", "cached", "memory", "lite", "--side", "64", "--repeats", "1"]
    summary = benchmark.main([*options, "--photo", "320x240"])
    del ballast
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == summary
    rows = summary["rows"]
    assert [row["section"] for row in rows] == ["encoder", *["cached"] * 6, *["memory"] * 4, "lite"]
    for row in rows:
        assert row["pass"] == (row["value"] <= row["bound"])
    assert rows[0]["value"] > 1
    assert all(0.1 < row["value"] < 1.6 for row in rows if row["section"] == "memory")
