"""`fclm matte` on real files: what is written where, and what happens to bad ones."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from limits import find_memory
from photo_files import make_photo, serve, write_awkward_photos, write_truncated
from PIL import Image
from tiny_model import tiny_model, tiny_processor
from transformers import pipeline
from typer.testing import CliRunner

from fclm_hf.cli import matte as cli
from fclm_hf.cli import matte_jobs
from fclm_hf.cli.main import app


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    pipeline("referring-matting", model=tiny_model(), processor=tiny_processor()).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def one_pipeline(checkpoint: Path) -> None:
    """Loads the model once for all calls of this file."""
    loaded = {}
    load = cli.load_pipeline

    def load_once(model: str | None, device: str | None, dtype: str) -> object:
        if model is not None and model != str(checkpoint):
            return load(model, device, dtype)
        if dtype not in loaded:
            loaded[dtype] = load(str(checkpoint), device, dtype)
        return loaded[dtype]

    cli.load_pipeline = load_once
    yield
    cli.load_pipeline = load


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["matte", *map(str, words)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.replace("│", " ").split())


def list_files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    make_photo().save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_one_image(photo: Path, checkpoint: Path) -> None:
    out = photo.with_name("out.png")
    assert run(photo, "--text", "a cat", "-o", out).endswith("out.png")
    expected = pipeline("referring-matting", model=str(checkpoint), device="cpu")(photo, text="a cat")["cutout"]
    with Image.open(out) as cutout:
        assert (cutout.format, cutout.mode) == ("PNG", "RGBA")
        np.testing.assert_array_equal(np.asarray(cutout), np.asarray(expected))
    assert list_files(photo.parent) == ["out.png", "photo.jpg"]


def test_prompts_reach_the_pipeline() -> None:
    assert cli.collect_prompts(None, None, None, None) == ({}, 1)
    prompts, objects = cli.collect_prompts(["cat", "dog"], ["1 2 3 4", "5,6,7,8.5"], None, None)
    assert prompts == {"text": ["cat", "dog"], "input_boxes": [[1, 2, 3, 4], [5, 6, 7, 8.5]]}
    assert objects == 2
    prompts, objects = cli.collect_prompts(None, None, ["1 2", "3 4"], ["5 6"])
    assert prompts == {"input_points": [[[1, 2], [3, 4], [5, 6]]], "input_labels": [[1, 1, 0]]}
    assert objects == 1


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--box", 1, 2, 30, 35, "--box=5 5 20 20"], ["out_1.png", "out_2.png"]),
        (["--text", "low", "--text", "owl", "--box", 1, 2, 30, 35, "--box", 1, 1, 9, 9.5], ["out_1.png", "out_2.png"]),
        (["--point", 9, 8, "--point", 20, 20, "--negative-point", 40, 30, "--box", 0, 0, 50, 40], ["out.png"]),
    ],
)
def test_repeated_options(photo: Path, words: list[object], names: list[str]) -> None:
    run(*words, photo, "-o", photo.with_name("out.png"))
    assert list_files(photo.parent) == [*names, "photo.jpg"]


def test_folder_with_awkward_files(tmp_path: Path) -> None:
    """Mirrors the structure; one broken file is reported, the others are done; nothing hidden or half-written."""
    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    sizes = write_awkward_photos(photos / "deep" / "er")
    make_photo().save(photos / "same.jpg")
    make_photo().save(photos / "same.png")
    make_photo().save(photos / ".hidden.png")
    write_truncated(photos / "broken.jpg")
    (photos / "notes.txt").write_text("no image")
    output = run(photos, "-o", out, "--batch-size", 3, code=1)
    assert f"{len(sizes) + 2} done, 0 skipped, 1 failed." in output
    assert output.count("broken.jpg") == 1  # the message names it, and nothing else does
    assert "broken.jpg is not an image that PIL can read" in output
    expected = [f"deep/er/{Path(name).stem}.png" for name in sizes] + ["same.jpg.png", "same.png.png"]
    assert list_files(out) == sorted(expected)
    for name, size in sizes.items():
        with Image.open((out / "deep" / "er" / name).with_suffix(".png")) as cutout:
            assert cutout.size == size, name
            assert ("icc_profile" in cutout.info) == (name == "profile.png")
    # a second run takes no output of the first for an input, and does only what is missing
    (out / "same.jpg.png").unlink()
    before = (out / "same.png.png").stat().st_mtime_ns
    assert f"1 done, {len(sizes) + 1} skipped, 1 failed." in run(photos, "-o", out, "--skip-existing", code=1)
    assert list_files(out) == sorted(expected)
    assert (out / "same.png.png").stat().st_mtime_ns == before


def test_coordinates_are_typed_with_spaces_or_commas(photo: Path, tmp_path: Path) -> None:
    """Files may stand before and after them, and may be called like numbers."""
    make_photo(seed=1).save(tmp_path / "7.png")
    alphas = []
    for words in (
        ["--box", 5, 5, 30, 35, photo],
        ["--box", "5,5,30,35", photo],
        ["--box", "5, 5, 30, 35", photo],
        ["--box", "5,", "5,", "30,", 35, photo],
        ["--box=5", 5, 30, 35, photo],
        ["--box=5,5,30,35", photo],
        [photo, "--box", 5, 5, 30, 35],
    ):
        run(*words, "-o", tmp_path / "out.png", "--alpha")
        alphas.append((tmp_path / "out.png").read_bytes())
    assert len(set(alphas)) == 1
    run("--box", 5, 5, 30, 35, tmp_path / "7.png", "-o", tmp_path / "other.png", "--alpha")
    words = ["--box", "5", "5", "30", "35", "7.png", "8"]
    assert cli.take_numbers(words[1:], 4) == (words[1:5], ["7.png", "8"])
    assert cli.take_numbers(["-1", "-0.5", "8", "9", "-o"], 4) == (["-1", "-0.5", "8", "9"], ["-o"])


def test_standard_streams(photo: Path, tmp_path: Path) -> None:
    run(photo, "--text", "a cat", "-o", tmp_path / "file.png")
    for words in (["-", "-o", "-"], [photo, "-o", "-"]):
        command = ["matte", *map(str, words), "--text", "a cat"]
        result = CliRunner().invoke(app, command, input=photo.read_bytes())
        assert result.exit_code == 0, result.output
        assert result.stdout_bytes == (tmp_path / "file.png").read_bytes()  # nothing but the image
        assert result.stderr == "fclm-lite on cpu\n"
    result = CliRunner().invoke(app, ["matte", "-", "-o", str(tmp_path / "out"), "--text", "a cat"], photo.read_bytes())
    assert result.stdout.replace("\n", "").endswith("stdin.png")
    assert (tmp_path / "out" / "stdin.png").read_bytes() == (tmp_path / "file.png").read_bytes()
    for data in (b"", b"no image"):
        result = CliRunner().invoke(app, ["matte", "-", "-o", "-"], input=data)
        assert (result.exit_code, result.stdout_bytes) == (1, b"")
        assert "standard input: image" in result.stderr


def test_a_reader_that_stops_early(photo: Path, checkpoint: Path) -> None:
    """As in `fclm matte photo.jpg -o - | head -c 10`."""
    script = """
import sys
from fclm_hf.cli.streams import write_standard_output
print("ready", file=sys.stderr, flush=True)
sys.stdin.read()
try:
    write_standard_output(bytes(1000000))
except BrokenPipeError:
    print("stopped", file=sys.stderr)
"""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], env=env, **pipes) as process:
        assert process.stderr.readline() == b"ready\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b"stopped\n"
        assert process.wait() == 0


def test_files_of_the_same_name(tmp_path: Path) -> None:
    names = ["x/a.png", "y/a.png", "z/a-2.png", "z/A.png", "x/b.png", "x/b.jpg", "y/b.jpg"]
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_photo(seed=seed).save(tmp_path / name)
    inputs = [tmp_path / name for name in names]
    assert "7 done, 0 skipped, 0 failed." in run(*inputs, inputs[0], "-o", tmp_path / "out", "--alpha")
    expected = ["A-4.png", "a-2.png", "a-3.png", "a.png", "b.jpg-2.png", "b.jpg.png", "b.png.png"]
    assert list_files(tmp_path / "out") == expected
    run(inputs[0], "-o", tmp_path / "first.png", "--alpha")
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "first.png").read_bytes()
    assert "7 skipped" in run(*inputs, "-o", tmp_path / "out", "--alpha", "--skip-existing")


def test_links_and_awkward_names(tmp_path: Path) -> None:
    """A link is an image of its own name; what leads nowhere is left out."""
    photos = tmp_path / "my photos é"
    names = ["a b.jpg", "new\nline.png", "-dash.png", "猫 🐱.webp", "x" * 251 + ".png", "sub dir/[1].png"]
    for name in names:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo().save(photos / name)
    (photos / "link.jpg").symlink_to(photos / "a b.jpg")
    (photos / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (photos / "loop").symlink_to(photos)
    out = tmp_path / "out"
    assert "7 done, 0 skipped, 0 failed." in run(photos, "-o", out)
    assert list_files(out) == sorted(Path(name).with_suffix(".png").as_posix() for name in [*names, "link.png"])
    assert "0 done, 7 skipped, 0 failed." in run(photos, "-o", out, "--skip-existing")
    assert run(photos / "a b.jpg", photos / "sub dir" / ".." / "a b.jpg", "-o", tmp_path / "one").endswith("a b.png")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/cat.jpg", "cat.jpg"),
        ("/", "image"),
        ("/..", "image"),
        ("/a/..%2f..%2fstolen.png", "stolen.png"),
        ("/..%5c..%5cstolen.png", "_.._stolen.png"),
        ("/C:stolen.png", "C_stolen.png"),
        ("/.hidden.png", "hidden.png"),
        ("/a%00b.png", "a_b.png"),
        ("/" + "x" * 300 + ".png", "x" * 96 + ".png"),
        ("/" + "%C3%A9" * 100 + ".png", "é" * 48 + ".png"),
        ("/%ff%fe.png", "\ufffd\ufffd.png"),
    ],
)
def test_names_from_urls_stay_in_the_folder(tmp_path: Path, path: str, name: str) -> None:
    assert matte_jobs.make_file_name(path) == name
    (tmp_path / name).touch()
    assert list_files(tmp_path) == [name]


def test_interruption_leaves_what_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C does it."""
    for name in ("a.png", "b.png", "c.png"):
        make_photo().save(tmp_path / name)
    original = cli.encode_image

    def interrupt(image: Image.Image, path: Path) -> memoryview:
        if path.name == "b.png":
            raise KeyboardInterrupt
        return original(image, path)

    monkeypatch.setattr(cli, "encode_image", interrupt)
    result = CliRunner().invoke(app, ["matte", str(tmp_path), "-o", str(tmp_path / "out")])
    assert result.exit_code == 130
    assert list_files(tmp_path / "out") == ["a.png"]


def test_devices(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for device, problem in [
        ("cuda", "--device cuda is unavailable: torch "),
        ("cuda:3", "finds no cuda device here."),
        ("gpu", "--device must be cpu, cuda, cuda:0, mps, ..., got 'gpu'."),
        ("meta", "--device meta is unavailable"),
    ]:
        result = CliRunner().invoke(app, ["matte", str(photo), "-o", str(tmp_path / "o.png"), "--device", device])
        assert result.exit_code == 1
        assert problem in result.stderr
        assert len(result.stderr.splitlines()) == 1
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert "torch finds 2 cuda devices here" in run(photo, "-o", tmp_path / "o.png", "--device", "cuda:2", code=1)
    assert list_files(tmp_path) == ["photo.jpg"]


def test_matte_and_background(photo: Path, tmp_path: Path) -> None:
    run(photo, "-o", tmp_path / "matte.jpg", "--alpha")
    run(photo, "-o", tmp_path / "cutout.webp")
    run(photo, "-o", tmp_path / "red.png", "--background", "#ff0000")
    Image.new("RGB", (300, 20), (0, 0, 255)).save(tmp_path / "backdrop.bmp")
    run(photo, "-o", tmp_path / "blue.tif", "--background", tmp_path / "backdrop.bmp")
    modes = {name: Image.open(tmp_path / name).mode for name in ("matte.jpg", "cutout.webp", "red.png", "blue.tif")}
    assert modes == {"matte.jpg": "L", "cutout.webp": "RGBA", "red.png": "RGB", "blue.tif": "RGB"}
    cutout = np.asarray(Image.open(tmp_path / "cutout.webp")).astype(float)
    opacity = cutout[..., 3:] / 255
    for name, color in (("red.png", (255, 0, 0)), ("blue.tif", (0, 0, 255))):
        expected = opacity * cutout[..., :3] + (1 - opacity) * np.array(color)
        np.testing.assert_allclose(np.asarray(Image.open(tmp_path / name)), expected, atol=1.5)


def test_file_urls(tmp_path: Path) -> None:
    make_photo().save(tmp_path / "a photo.jpg")
    run((tmp_path / "a photo.jpg").as_uri(), "-o", tmp_path / "out")
    assert list_files(tmp_path) == ["a photo.jpg", "out/a photo.png"]


def test_patterns_that_no_shell_expanded(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/deep/b.png", "in/c.jpg", "in/[d].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo().save(tmp_path / name)
    assert "2 done" in run(tmp_path / "in" / "**" / "[ab].png", "-o", tmp_path / "out")
    run(tmp_path / "in" / "[d].png", "-o", tmp_path / "out")  # a name before a pattern
    assert list_files(tmp_path / "out") == ["[d].png", "a.png", "b.png"]
    assert "does not exist" in run(tmp_path / "in" / "*.tif", "-o", tmp_path / "out", code=1)


def test_url(photo: Path, tmp_path: Path) -> None:
    with serve(photo.parent) as address:
        run(f"{address}/photo.jpg?size=large", "-o", tmp_path / "out")
        assert list_files(tmp_path / "out") == ["photo.png"]
        assert "2 done" in run(f"{address}/photo.jpg?size=large", photo, "-o", tmp_path / "out")
        output = run(f"{address}/none.jpg", "-o", tmp_path / "out", code=1)
        assert "404" in output
    assert list_files(tmp_path / "out") == ["photo-2.png", "photo.png"]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://host/a/b.jpg?size=1#top", "b.jpg"),
        ("http://host/..", "image"),
        ("http://host/", "image"),
        ("http://host", "image"),
        ("http://host/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("http://host/..%5C..%5Cboot.ini", "_.._boot.ini"),
        ("http://host/a%00b.jpg", "a_b.jpg"),
        ("http://host/C:evil.jpg", "C_evil.jpg"),
        ("http://host/.bashrc", "bashrc"),
        ("http://host/" + 300 * "a" + ".jpg", 96 * "a" + ".jpg"),
    ],
)
def test_names_from_addresses_stay_in_the_folder(address: str, name: str, tmp_path: Path) -> None:
    assert [str(path) for _, path in matte_jobs.find_images(address, tmp_path)] == [name]
    [job] = matte_jobs.plan_jobs([address], str(tmp_path / "out"), 1, matte_jobs.TRANSPARENT_FORMATS)
    assert [target.resolve().parent for target in job.targets] == [(tmp_path / "out").resolve()]


def test_what_killed_runs_left_goes(photo: Path, tmp_path: Path) -> None:
    """But not what others may be writing."""
    out = tmp_path / "out"
    out.mkdir()
    for name in (".unfinished-01234567-photo.png", ".unfinished-01234567-other.png", ".unfinished-0-1-photo.png"):
        (out / name).write_bytes(b"half")
    run(photo, "-o", out, "--skip-existing")
    assert list_files(out) == [".unfinished-0-1-photo.png", ".unfinished-01234567-other.png", "photo.png"]


def test_usage_errors(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "same.png")
    before = list_files(tmp_path)
    for words, problem in [
        ([photo, photo, "-o", "out.png"], "must be a folder for several images"),
        (
            [photo, "-o", "out.jpg"],
            "-o out.jpg: JPEG has no transparency. Add --background COLOR to fill it, or --alpha",
        ),
        ([photo, "-o", "out.gif"], "must end in one of .png"),
        ([tmp_path / "same.png", "-o", tmp_path], "would be overwritten"),
        ([tmp_path / "same.png", "-o", tmp_path / "same.png"], "would be overwritten"),
        ([tmp_path / "empty", "-o", tmp_path / "out"], "No image found in"),
        ([photo, "", "-o", tmp_path / "out"], "IMAGE must not be empty."),
        ([photo, "-o", ""], "-o must not be empty."),
        ([photo, "-o", "x" * 300 + ".png"], "x...: File name too long."),
        (["x" * 300 + ".jpg", "-o", "o"], "x...: File name too long."),
        (["file://elsewhere/x.jpg", "-o", "o"], "IMAGE: a file URL must be that of a local file"),
        ([photo, "-o", "o", "--box", 1, 2, 3], "--box takes 4 numbers, X0 Y0 X1 Y1, got 3: 1 2 3."),
        (["--box", 1, 2, 3, photo, "-o", "o"], "--box takes 4 numbers, X0 Y0 X1 Y1, got 3: 1 2 3."),
        ([photo, "-o", "o", "--box", "1,2,3"], "--box takes 4 numbers, X0 Y0 X1 Y1, got 3: 1,2,3."),
        (["--box", 1, 2, 3, 4, 5, photo, "-o", "o"], "got 5: 1 2 3 4 5."),
        ([photo, "-o", "o", "--box", 1, 2, "--point", 3, 4], "--box takes 4 numbers, X0 Y0 X1 Y1, got 2: 1 2."),
        ([photo, "-o", "o", "--box"], "--box takes 4 numbers, X0 Y0 X1 Y1, got none."),
        ([photo, "-o", "o", "--point", 1], "--point takes 2 numbers, X Y, got 1: 1."),
        ([photo, "-o", "o", "--point", "a,b"], "--point takes 2 numbers, X Y, got 'a,b'."),
        ([photo, "-o", "o", "--box", "nan", 0, 1, 1], "--box takes finite numbers"),
        ([photo, "-o", "o", "--box", 5, 5, 5, 9], "--box is empty: X0 < X1 and Y0 < Y1"),
        ([photo, "-o", "o", "--text", " "], "--text must not be empty"),
        ([photo, "-o", "o", "--text", "a", "--text", "b", "--point", 1, 2], "different numbers of objects"),
        ([photo, "-o", "o", "--alpha", "--background", "red"], "mutually exclusive"),
        ([photo, "-o", photo / "out"], "photo.jpg is a file"),
        ([tmp_path, "-o", photo / "deep" / "er"], "photo.jpg is a file"),
        ([photo, "-o", "o", "--background", "gren"], "no such color or file: 'gren'. Did you mean green?"),
        ([photo, "-o", "o", "--background", "none.jpg"], "no such color or file: 'none.jpg'."),
        (["-", "-", "-o", "o"], "- (standard input) holds one image and can be given once"),
        ([photo, photo, "-o", "-"], "-o - (standard output) takes a single image"),
        ([photo, "-o", "-", "--text", "a", "--text", "b"], "-o - (standard output) takes a single object"),
    ]:
        output = run(*words, code=2)
        assert all(word in output for word in problem.split()), (words, output)
    for words, problem, name in [
        (["--model", tmp_path / "empty"], "The model cannot be loaded: ", "empty"),
        (["--box", 60, 0, 70, 9.5], "photo.jpg: --box 60 0 70 9.5 does not overlap the image", "--box"),
        (["--text", "b", "--point", 999, 9], "photo.jpg: --point 999 9 is outside the image", "--point"),
        (["--point", 1, 1, "--negative-point", 9, 999], "--negative-point 9 999 is outside the image", "point"),
    ]:
        output = run(photo, "-o", tmp_path / "o.png", *words, code=1)
        assert problem in output
        assert "input_" not in output
        assert output.count(name) == 1
    output = run(photo, "-o", tmp_path / "o.png", "--max-pixels", 1999, code=1)
    assert output.endswith("50 x 40 exceeds the limit of 1999. Raise --max-pixels if you trust its source.")
    for name in (tmp_path / "none.jpg", "catt"):  # the latter would be base64
        output = run(name, "-o", tmp_path / "o.png", code=1)
        assert f"The image file '{name}' does not exist." in output
        assert output.count(str(name)) == 1
    (tmp_path / "loop").symlink_to("loop")
    for name in ("photos\\cat.jpg", 'it\'s "it".jpg', tmp_path / "loop"):
        output = run(name, "-o", tmp_path / "o.png", code=1)
        assert output == f"fclm-lite on cpu The image file {str(name)!r} does not exist."
    (tmp_path / "loop").unlink()
    assert list_files(tmp_path) == before


def test_failed_writes_leave_nothing(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"the old one")

    def write_half(path: Path, data: memoryview) -> None:
        with path.open("wb") as file:
            file.write(data[:50])
        raise OSError("No space left on device")

    def refuse(*args: object) -> None:
        raise OSError("No permission")

    for owner, name, replacement, problem in [
        (Path, "write_bytes", write_half, "No space left"),
        (os, "replace", refuse, "No permission"),
    ]:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, replacement)
            assert problem in run(photo, "-o", out, code=1)
    assert list_files(tmp_path) == ["out.png", "photo.jpg"]
    assert out.read_bytes() == b"the old one"


@contextlib.contextmanager
def limit(kind: int, value: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def test_a_file_system_that_takes_no_more(tmp_path: Path) -> None:
    """The limit on the size of a file fails where a full disk does: in the middle of writing."""
    for name, size in (("a.png", (40, 30)), ("big.png", (400, 400)), ("c.png", (40, 30))):
        Image.effect_noise(size, 64).save(tmp_path / name)
    out = tmp_path / "out"
    with limit(resource.RLIMIT_FSIZE, 20_000):
        output = run(tmp_path, "-o", out, code=1)
    assert f"big.png: {out / 'big.png'} cannot be written: File too large. 2 done, 0 skipped, 1 failed." in output
    assert list_files(out) == ["a.png", "c.png"]
    for name in ("a.png", "c.png"):
        assert Image.open(out / name).size == (40, 30)
    assert "1 done, 2 skipped, 0 failed." in run(tmp_path, "-o", out, "--skip-existing")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_device_behind_standard_output() -> None:
    script = """
import sys
from fclm_hf.cli.matte import encode_image, write_results
from fclm_hf.cli.matte_jobs import Job
from PIL import Image
error = write_results(Job("photo.jpg", [None]), [{}], lambda result: Image.new("RGB", (9, 9)))
print(error, file=sys.stderr)
"""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.stderr == "Standard output cannot be written: No space left on device.\n"
    assert done.returncode == 0


def test_out_of_memory(photo: Path, tmp_path: Path) -> None:
    """An image that needs more memory than there is fails by itself; the next one is done."""
    Image.new("RGB", (8000, 8000)).save(tmp_path / "large.png")
    with limit(resource.RLIMIT_AS, find_memory() + 450_000_000):
        output = run(tmp_path, "-o", tmp_path / "out", code=1)
    assert "large.png: out of memory. 1 done, 0 skipped, 1 failed." in output
    assert list_files(tmp_path / "out") == ["photo.png"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ValueError("image 0 cannot be decoded: Unable to allocate 9 GiB: not enough memory"),
    ],
)
def test_libraries_agree_about_memory(error: Exception) -> None:
    assert cli.describe(error) == "out of memory."
    assert cli.describe(ValueError("no memory of it")) == "no memory of it"


def test_killed_writes_leave_no_partial_file(tmp_path: Path) -> None:
    """A process that keeps replacing a large file is killed at any moment: the file is whole."""
    script = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
from fclm_hf.cli.matte import write_image
image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (500, 500, 4), dtype=np.uint8))
while True:
    write_image(image, Path(sys.argv[1]))
    print("written", flush=True)
"""
    path = tmp_path / "out.png"
    env = {**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=env) as process:
        process.stdout.readline()
        for delay in (0.03, 0.017, 0.05):
            time.sleep(delay)
            Image.open(path).load()
        process.send_signal(signal.SIGKILL)
    with Image.open(path) as image:
        image.load()
        assert image.size == (500, 500)
    assert [name for name in list_files(tmp_path) if not name.startswith(".")] == ["out.png"]


def test_masks_reach_the_pipeline(photo: Path, tmp_path: Path) -> None:
    assert cli.collect_prompts(None, None, None, None, ["a.png", "b.png"]) == (
        {"input_masks": ["a.png", "b.png"]},
        2,
    )
    trimap = np.zeros((40, 50), np.uint8)
    trimap[10:20], trimap[20:22] = 255, 128
    Image.fromarray(trimap).save(tmp_path / "trimap.png")
    run(photo, "--mask", tmp_path / "trimap.png", "--alpha", "-o", tmp_path / "out.png")
    alpha = np.asarray(Image.open(tmp_path / "out.png"))
    assert (alpha[trimap != 128] == trimap[trimap != 128]).all()
    trimap = trimap[:20]
    Image.fromarray(trimap).save(tmp_path / "small.png")
    output = run(photo, "--mask", tmp_path / "small.png", "-o", tmp_path / "out.png", code=1)
    assert f"--mask '{tmp_path / 'small.png'}' must have the shape" in output
    assert "input_masks" not in output
