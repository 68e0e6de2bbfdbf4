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

import pytest
from limits import find_memory
from matte_command import list_files, run_matte
from photo_files import make_photo, serve, write_awkward_photos, write_truncated
from PIL import Image
from typer.testing import CliRunner

from fclm_hf.cli import matte as cli
from fclm_hf.cli import matte_jobs
from fclm_hf.cli.main import app


pytestmark = pytest.mark.usefixtures("one_pipeline")


def test_folder_with_awkward_files(tmp_path: Path) -> None:
    """Mirrors the structure; one broken file is reported, the others are done; nothing hidden or half-written."""
    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    sizes = write_awkward_photos(photos / "deep" / "er")
    make_photo().save(photos / "same.jpg")
    make_photo().save(photos / "same.png")
    make_photo().save(photos / ".hidden.png")
    write_truncated(photos / "broken.jpg")
    (photos / "notes.txt").write_text("no image")
    output = run_matte(photos, "-o", out, "--batch-size", 3, code=1)
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
    assert f"1 done, {len(sizes) + 1} skipped, 1 failed." in run_matte(photos, "-o", out, "--skip-existing", code=1)
    assert list_files(out) == sorted(expected)
    assert (out / "same.png.png").stat().st_mtime_ns == before


def test_files_of_the_same_name(tmp_path: Path) -> None:
    names = ["x/a.png", "y/a.png", "z/a-2.png", "z/A.png", "x/b.png", "x/b.jpg", "y/b.jpg"]
    for seed, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_photo(seed=seed).save(tmp_path / name)
    inputs = [tmp_path / name for name in names]
    assert "7 done, 0 skipped, 0 failed." in run_matte(*inputs, inputs[0], "-o", tmp_path / "out", "--alpha")
    expected = ["A-4.png", "a-2.png", "a-3.png", "a.png", "b.jpg-2.png", "b.jpg.png", "b.png.png"]
    assert list_files(tmp_path / "out") == expected
    run_matte(inputs[0], "-o", tmp_path / "first.png", "--alpha")
    assert (tmp_path / "out" / "a.png").read_bytes() == (tmp_path / "first.png").read_bytes()
    assert "7 skipped" in run_matte(*inputs, "-o", tmp_path / "out", "--alpha", "--skip-existing")


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
    assert "7 done, 0 skipped, 0 failed." in run_matte(photos, "-o", out)
    assert list_files(out) == sorted(Path(name).with_suffix(".png").as_posix() for name in [*names, "link.png"])
    assert "0 done, 7 skipped, 0 failed." in run_matte(photos, "-o", out, "--skip-existing")
    output = run_matte(photos / "a b.jpg", photos / "sub dir" / ".." / "a b.jpg", "-o", tmp_path / "one")
    assert output.endswith("a b.png")


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


def test_file_urls(tmp_path: Path) -> None:
    make_photo().save(tmp_path / "a photo.jpg")
    run_matte((tmp_path / "a photo.jpg").as_uri(), "-o", tmp_path / "out")
    assert list_files(tmp_path) == ["a photo.jpg", "out/a photo.png"]


def test_patterns_that_no_shell_expanded(tmp_path: Path) -> None:
    for name in ("in/a.png", "in/deep/b.png", "in/c.jpg", "in/[d].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo().save(tmp_path / name)
    assert "2 done" in run_matte(tmp_path / "in" / "**" / "[ab].png", "-o", tmp_path / "out")
    run_matte(tmp_path / "in" / "[d].png", "-o", tmp_path / "out")  # a name before a pattern
    assert list_files(tmp_path / "out") == ["[d].png", "a.png", "b.png"]
    assert "does not exist" in run_matte(tmp_path / "in" / "*.tif", "-o", tmp_path / "out", code=1)


def test_url(photo: Path, tmp_path: Path) -> None:
    with serve(photo.parent) as address:
        run_matte(f"{address}/photo.jpg?size=large", "-o", tmp_path / "out")
        assert list_files(tmp_path / "out") == ["photo.png"]
        assert "2 done" in run_matte(f"{address}/photo.jpg?size=large", photo, "-o", tmp_path / "out")
        output = run_matte(f"{address}/none.jpg", "-o", tmp_path / "out", code=1)
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
    run_matte(photo, "-o", out, "--skip-existing")
    assert list_files(out) == [".unfinished-0-1-photo.png", ".unfinished-01234567-other.png", "photo.png"]


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
            assert problem in run_matte(photo, "-o", out, code=1)
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
        output = run_matte(tmp_path, "-o", out, code=1)
    assert f"big.png: {out / 'big.png'} cannot be written: File too large. 2 done, 0 skipped, 1 failed." in output
    assert list_files(out) == ["a.png", "c.png"]
    for name in ("a.png", "c.png"):
        assert Image.open(out / name).size == (40, 30)
    assert "1 done, 2 skipped, 0 failed." in run_matte(tmp_path, "-o", out, "--skip-existing")


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
        output = run_matte(tmp_path, "-o", tmp_path / "out", code=1)
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
from fclm_hf.cli.matte import write_results
from fclm_hf.cli.matte_jobs import Job
image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (500, 500, 4), dtype=np.uint8))
job = Job("photo.jpg", [Path(sys.argv[1])])
while (error := write_results(job, [{}], lambda result: image)) is None:
    print("written", flush=True)
raise error
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
