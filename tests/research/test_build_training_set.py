"""research/build_training_set.py on folders of drawn images and on stand-ins for the packages it fetches."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import save
from noise_discs import draw_disc
from PIL import Image
from scripts import load_script


build = load_script("build_training_set")


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
    build.main([*arguments, "--max-side", "200", "--foregrounds-license", "CC0"])
    foregrounds, backgrounds = read_set(out)
    assert sorted(foregrounds) == ["badger", "big wheel", "red fox"]
    printed = capsys.readouterr().out
    for reason in ("1 all opaque", "1 all empty", "1 tiny", "1 unreadable", "1 duplicate"):
        assert reason in printed.splitlines()[0]

    fox, badger, wheel = foregrounds["red fox"], foregrounds["badger"], foregrounds["big wheel"]
    assert (fox["cls"], wheel["cls"], fox["license"]) == ("animals", "cutouts", "CC0")
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


def test_training_set_is_replaced_atomically(cutouts: Path, tmp_path: Path, capsys) -> None:
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
    assert "must be a new or empty folder or a training set" in capsys.readouterr().err
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
    (names / "data-by-emoji.json").write_text(
        '{"🦊": {"name": "fox\N{RIGHT SINGLE QUOTATION MARK}s face", "group": "Animals & Nature"}}'
    )

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
