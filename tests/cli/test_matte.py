"""`fclm matte`: its options reach the pipeline, and its results the file, stream or format that is asked for."""

import base64
import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import typer
from matte_command import list_files, run_matte
from photo_files import make_photo
from PIL import Image
from transformers import pipeline
from typer.testing import CliRunner

from fclm_hf.cli import matte as cli
from fclm_hf.cli.main import app
from fclm_hf.cli.matte_jobs import Job, plan_jobs


pytestmark = pytest.mark.usefixtures("one_pipeline")


def test_one_image(photo: Path, checkpoint: Path) -> None:
    out = photo.with_name("out.png")
    assert run_matte(photo, "--text", "a cat", "-o", out).endswith("out.png")
    expected = pipeline("referring-matting", model=str(checkpoint), device="cpu")(photo, text="a cat")["cutout"]
    with Image.open(out) as cutout:
        assert (cutout.format, cutout.mode) == ("PNG", "RGBA")
        np.testing.assert_array_equal(np.asarray(cutout), np.asarray(expected))
    assert list_files(photo.parent) == ["out.png", "photo.jpg"]
    make_photo().save(photo, dpi=(300, 300))
    for suffix in (".png", ".jpg", ".tif"):
        out = photo.with_name(f"out{suffix}")
        run_matte(photo, "--background", "white", "-o", out)
        with Image.open(out) as picture:
            assert [round(each) for each in picture.info["dpi"]] == [300, 300]


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
    run_matte(*words, photo, "-o", photo.with_name("out.png"))
    assert list_files(photo.parent) == [*names, "photo.jpg"]


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
        run_matte(*words, "-o", tmp_path / "out.png", "--alpha")
        alphas.append((tmp_path / "out.png").read_bytes())
    assert len(set(alphas)) == 1
    run_matte("--box", 5, 5, 30, 35, tmp_path / "7.png", "-o", tmp_path / "other.png", "--alpha")
    words = ["--box", "5", "5", "30", "35", "7.png", "8"]
    assert cli.take_numbers(words[1:], 4) == (words[1:5], ["7.png", "8"])
    assert cli.take_numbers(["-1", "-0.5", "8", "9", "-o"], 4) == (["-1", "-0.5", "8", "9"], ["-o"])


def test_standard_streams(photo: Path, tmp_path: Path) -> None:
    run_matte(photo, "--text", "a cat", "-o", tmp_path / "file.png")
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no FIFOs")
def test_named_pipes_and_devices(photo: Path, tmp_path: Path) -> None:
    """As in `fclm matte <(curl ...) -o >(convert ...)`."""
    run_matte(photo, "-o", tmp_path / "file.png")
    expected = (tmp_path / "file.png").read_bytes()
    source, target = tmp_path / "source", tmp_path / "target"
    os.mkfifo(source)
    os.mkfifo(target)
    received = []
    writer = threading.Thread(target=source.write_bytes, args=(photo.read_bytes(),))
    reader = threading.Thread(target=lambda: received.append(target.read_bytes()))
    for thread in (writer, reader):
        thread.start()
    run_matte(source, "-o", target)
    for thread in (writer, reader):
        thread.join()
    assert received == [expected]
    assert target.is_fifo()
    for words in ([photo, "-o", "/dev/null", "--skip-existing"], ["/dev/stdin", "-o", "/dev/stdout"]):
        result = CliRunner().invoke(app, ["matte", *map(str, words)], input=photo.read_bytes())
        assert result.exit_code == 0, result.output
    assert result.stdout_bytes == expected
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("stream", "name"), [("stdin", "- (standard input)"), ("stdout", "-o - (standard output)")])
def test_closed_streams(stream: str, name: str, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in `fclm matte - -o - <&-`, or in a program without a console."""
    monkeypatch.setattr(sys, stream, None)
    with pytest.raises(typer.BadParameter, match=rf"{re.escape(name)} is closed\."):
        plan_jobs(["-" if stream == "stdin" else str(photo)], "-", 1, {})


def test_data_urls(photo: Path, tmp_path: Path) -> None:
    url = f"data:image/jpeg;base64,{base64.b64encode(photo.read_bytes()).decode()}"
    run_matte(photo, "-o", tmp_path / "a.png")
    run_matte(url, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "image.png").read_bytes() == (tmp_path / "a.png").read_bytes()
    assert len(run_matte(url[: len(url) // 2], "-o", tmp_path / "b.png", code=1)) < 400


def test_what_is_skipped_and_what_cannot_be_told(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_matte(photo, "-o", tmp_path / "a.png")
    assert run_matte(photo, "-o", tmp_path / "a.png", "--skip-existing") == "0 done, 1 skipped, 0 failed."

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli.typer, "echo", refuse)
    with pytest.raises(typer.Exit):
        cli.report([Job(photo, [photo])], [Job(photo, [photo])], {})
    assert capsys.readouterr().err == "Standard output cannot be written: No space left on device.\n"


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
    assert "torch finds 2 cuda devices here" in run_matte(photo, "-o", tmp_path / "o.png", "--device", "cuda:2", code=1)
    assert list_files(tmp_path) == ["photo.jpg"]


def test_matte_and_background(photo: Path, tmp_path: Path) -> None:
    run_matte(photo, "-o", tmp_path / "matte.jpg", "--alpha")
    run_matte(photo, "-o", tmp_path / "cutout.webp")
    run_matte(photo, "-o", tmp_path / "red.png", "--background", "#ff0000")
    Image.new("RGB", (300, 20), (0, 0, 255)).save(tmp_path / "backdrop.bmp")
    run_matte(photo, "-o", tmp_path / "blue.tif", "--background", tmp_path / "backdrop.bmp")
    modes = {name: Image.open(tmp_path / name).mode for name in ("matte.jpg", "cutout.webp", "red.png", "blue.tif")}
    assert modes == {"matte.jpg": "L", "cutout.webp": "RGBA", "red.png": "RGB", "blue.tif": "RGB"}
    cutout = np.asarray(Image.open(tmp_path / "cutout.webp")).astype(float)
    opacity = cutout[..., 3:] / 255
    for name, color in (("red.png", (255, 0, 0)), ("blue.tif", (0, 0, 255))):
        expected = opacity * cutout[..., :3] + (1 - opacity) * np.array(color)
        np.testing.assert_allclose(np.asarray(Image.open(tmp_path / name)), expected, atol=1.5)


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
        ([photo, "-o", "o", "--background", "#ff000080"], "--background must be opaque, got the transparent color"),
        ([photo, "cat", "-o", "o.png"], "There is no file 'cat'; a --text of several words needs quotes."),
        ([photo, "-o", "/dev/null", "--text", "a", "--text", "b"], "-o /dev/null takes a single object"),
        (["-", "-", "-o", "o"], "- (standard input) holds one image and can be given once"),
        ([photo, photo, "-o", "-"], "-o - (standard output) takes a single image"),
        ([photo, "-o", "-", "--text", "a", "--text", "b"], "-o - (standard output) takes a single object"),
    ]:
        output = run_matte(*words, code=2)
        assert all(word in output for word in problem.split()), (words, output)
    for words, problem, name in [
        (["--model", tmp_path / "empty"], "The model cannot be loaded: ", "empty"),
        (["--box", 60, 0, 70, 9.5], "photo.jpg: --box 60 0 70 9.5 does not overlap the image", "--box"),
        (["--text", "b", "--point", 999, 9], "photo.jpg: --point 999 9 is outside the image", "--point"),
        (["--point", 1, 1, "--negative-point", 9, 999], "--negative-point 9 999 is outside the image", "point"),
    ]:
        output = run_matte(photo, "-o", tmp_path / "o.png", *words, code=1)
        assert problem in output
        assert "input_" not in output
        assert output.count(name) == 1
    output = run_matte(photo, "-o", tmp_path / "o.png", "--max-pixels", 1999, code=1)
    assert output.endswith("50 x 40 exceeds the limit of 1999. Raise --max-pixels if you trust its source.")
    for name in (tmp_path / "none.jpg", "catt"):  # the latter would be base64
        output = run_matte(name, "-o", tmp_path / "o.png", code=1)
        assert f"The image file '{name}' does not exist." in output
        assert output.count(str(name)) == 1
    (tmp_path / "loop").symlink_to("loop")
    for name in ("photos\\cat.jpg", 'it\'s "it".jpg', tmp_path / "loop"):
        output = run_matte(name, "-o", tmp_path / "o.png", code=1)
        assert output == f"fclm-lite on cpu The image file {str(name)!r} does not exist."
    (tmp_path / "loop").unlink()
    assert list_files(tmp_path) == before


def test_masks_reach_the_pipeline(photo: Path, tmp_path: Path) -> None:
    assert cli.collect_prompts(None, None, None, None, ["a.png", "b.png"]) == (
        {"input_masks": ["a.png", "b.png"]},
        2,
    )
    trimap = np.zeros((40, 50), np.uint8)
    trimap[10:20], trimap[20:22] = 255, 128
    Image.fromarray(trimap).save(tmp_path / "trimap.png")
    run_matte(photo, "--mask", tmp_path / "trimap.png", "--alpha", "-o", tmp_path / "out.png")
    alpha = np.asarray(Image.open(tmp_path / "out.png"))
    assert (alpha[trimap != 128] == trimap[trimap != 128]).all()
    trimap = trimap[:20]
    Image.fromarray(trimap).save(tmp_path / "small.png")
    output = run_matte(photo, "--mask", tmp_path / "small.png", "-o", tmp_path / "out.png", code=1)
    assert f"--mask '{tmp_path / 'small.png'}' must have the shape" in output
    assert "input_masks" not in output
