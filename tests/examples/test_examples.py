"""Every script of examples/ runs as its README says, on small copies of its data, and gives what it promises."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from paths import EXAMPLES, PHOTOS
from PIL import Image

from fclm_hf import LITE_CHECKPOINT


pytestmark = pytest.mark.skipif(not Path(LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    """Run an example with these arguments in a folder of its own; return what it prints."""
    monkeypatch.chdir(tmp_path)

    def run_example(name: str, *arguments: object) -> str:
        monkeypatch.setattr("sys.argv", [f"{name}.py", *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def shrink(source: Path, target: Path, side: int) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        image.thumbnail((side, side))
        image.save(target)
    return target


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two of the bundled pairs at 128 pixels."""
    for path in sorted((EXAMPLES / "pairs").glob("*/plant_[24].*")):
        shrink(path, tmp_path / "pairs" / path.relative_to(EXAMPLES / "pairs"), 128)
    return tmp_path / "pairs"


def read_metrics(printed: str) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"^(\w+) +([\d.]+)$", printed, flags=re.MULTILINE)}


def test_cutout_is_opaque_on_the_object_and_transparent_beside_it(run):
    assert run("cutout") == "Saved cutout.png\n"
    with Image.open("cutout.png") as cutout, Image.open(PHOTOS / "cat.jpg") as photo:
        assert cutout.mode == "RGBA"
        assert cutout.size == photo.size
        alpha = np.asarray(cutout)[..., 3]
    assert (alpha[60:110, 130:230] > 240).mean() > 0.95  # between the eyes
    assert alpha[-30:, -30:].max() < 20


def test_cutout_of_another_photo(run, tmp_path):
    photo = shrink(PHOTOS / "coffee.jpg", tmp_path / "photo.jpg", 96)
    run("cutout", photo, "--text", "cup", "--output", "cup.png")
    assert Image.open("cup.png").size == (96, 64)


def test_click_and_box_write_a_matte_for_each_prompt(run, tmp_path):
    printed = run("click_and_box", "--output_dir", "mattes")
    mattes = {path.stem: np.asarray(Image.open(path)) / 255 for path in (tmp_path / "mattes").iterdir()}
    assert set(mattes) == {"box", "click", "clicks"}
    for name, matte in mattes.items():
        assert matte.shape == (400, 600)
        assert matte[60:180, 230:370].mean() > 0.95  # the cup
        assert matte[:40, :40].max() < 0.1
        assert float(re.search(rf"^{name}: .* covers ([\d.]+)%", printed, re.MULTILINE)[1]) == pytest.approx(
            100 * matte.mean(), abs=0.2
        )
    assert mattes["box"][340:].mean() < 0.02  # nothing below the box
    assert mattes["click"][300, 180] > 0.9  # one click takes the saucer along, until it is clicked away
    assert mattes["clicks"][300, 180] < 0.1
    assert mattes["clicks"][270, 480] < 0.1


def test_batch_folder_gives_every_photo_the_cutout_it_gets_alone(run, tmp_path):
    for name in ("astronaut", "cat", "coffee"):
        shrink(PHOTOS / f"{name}.jpg", tmp_path / "photos" / f"{name}.jpg", 128)
    (tmp_path / "photos" / "notes.txt").write_text("not a photo")
    printed = run("batch_folder", "photos", "--output_dir", "together", "--batch_size", "2")
    run("batch_folder", "photos", "--output_dir", "alone", "--batch_size", "1")
    assert printed.count("Saved") == 3
    for name in ("astronaut", "cat", "coffee"):
        together, alone = (np.asarray(Image.open(f"{each}/{name}.png")).astype(int) for each in ("together", "alone"))
        assert together.shape[2] == 4
        assert 0.1 < together[..., 3].mean() / 255 < 0.9
        assert np.abs(together - alone)[..., 3].max() <= 1


def test_replace_background_keeps_the_object_and_changes_the_rest(run):
    run("replace_background")
    composite = np.asarray(Image.open("composite.jpg").convert("RGB")).astype(int)
    photo = np.asarray(Image.open(PHOTOS / "astronaut.jpg").convert("RGB")).astype(int)
    assert composite.shape == photo.shape
    change = np.abs(composite - photo).mean(-1)
    assert change[70:120, 200:260].mean() < 5  # her face
    assert change[:60, :120].mean() > 30  # the flag


def test_finetuning_lowers_the_loss_and_the_errors_of_the_saved_checkpoint(run, pairs):
    before = read_metrics(run("evaluate_my_model", pairs))
    printed = run("finetune", pairs, "--output_dir", "tuned", "--epochs", "3")
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", printed)]
    assert len(losses) == 3
    assert losses[-1] < 0.9 * losses[0]
    after = read_metrics(run("evaluate_my_model", pairs, "--model", "tuned"))
    assert list(before) == list(after) == ["sad", "mse", "mad", "gradient", "connectivity"]
    assert after["sad"] < 0.9 * before["sad"]
    assert after["mse"] < before["mse"]


def test_evaluation_measures_the_mattes_of_the_pipeline(run, pairs):
    from transformers import pipeline

    metrics = read_metrics(run("evaluate_my_model", pairs))
    matting = pipeline("referring-matting", model=LITE_CHECKPOINT)
    errors = []
    for path in sorted((pairs / "images").iterdir()):
        target = Image.open(pairs / "mattes" / f"{path.stem}.png")
        alpha = matting(str(path), input_boxes=[list(target.getbbox())])["predicted_alpha"]
        errors.append(torch.from_numpy(np.asarray(target) / 255) - alpha)
    assert metrics["mad"] == pytest.approx(np.mean([error.abs().mean() for error in errors]), abs=6e-5)
    assert metrics["mse"] == pytest.approx(np.mean([error.square().mean() for error in errors]), abs=6e-5)


def test_bundled_mattes_fit_their_images():
    images, mattes = (sorted((EXAMPLES / "pairs" / folder).iterdir()) for folder in ("images", "mattes"))
    assert [path.stem for path in images] == [path.stem for path in mattes]
    for image, matte in zip(images, mattes, strict=True):
        assert Image.open(image).size == Image.open(matte).size
        assert Image.open(matte).mode == "L"


def test_examples_are_short():
    for path in EXAMPLES.glob("*.py"):
        assert 10 <= len(path.read_text(encoding="utf-8").splitlines()) <= 40, path.name
