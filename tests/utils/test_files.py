"""Atomic writing, and names that are not trusted."""

from pathlib import Path

import pytest

from fclm_hf.utils.files import (
    UNFINISHED,
    join_inside,
    remove_unfinished_files,
    write_atomically,
    write_bytes,
    write_folder,
)


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/../../x", "/x", "//host/x", "..\\x", "a\\..\\..\\x", "\\x", "C:x", "C:\\x", "c:/x"),
        *("a\0b", "x" * 300, "é" * 150, f"a/{'x' * 256}/b", None, 3, b"x"),
    ],
)
def test_names_that_lead_out_of_their_folder(name: object) -> None:
    with pytest.raises(ValueError, match=r"^photo must (be a relative path|have parts of at most 255 bytes)"):
        join_inside("folder", name, "photo")


@pytest.mark.parametrize(
    "name", ["x", "a/b.png", "a/./b", "...", "..x", "x..", "é" * 127, "猫 🐱.png", "a\nb", "-o", "~"]
)
def test_names_that_stay_in_their_folder(name: str, tmp_path: Path) -> None:
    path = join_inside(tmp_path, name)
    assert tmp_path in path.resolve().parents
    write_bytes(path, b"data")
    assert path.read_bytes() == b"data"


def test_longest_names_can_be_written(tmp_path: Path) -> None:
    """A file has another name until it is complete, which must not be too long where its own is not."""
    for name in ("x" * 251 + ".png", "é" * 127, "x" * 255):
        with write_atomically(tmp_path / name) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == Path(name).suffix
            temporary.write_bytes(b"half")
            leftover = tmp_path / f"{UNFINISHED}00000000-{temporary.name.removeprefix(UNFINISHED).partition('-')[2]}"
        leftover.write_bytes(b"half")
        remove_unfinished_files([tmp_path / "other", tmp_path / name])
        assert [path.name for path in tmp_path.iterdir()] == [name]
        (tmp_path / name).unlink()
    with write_folder(tmp_path / ("x" * 255)) as inside:
        (inside / "file").touch()
    assert (tmp_path / ("x" * 255) / "file").is_file()


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "out.png").symlink_to(tmp_path / "secret")
    write_bytes(tmp_path / "out.png", b"new")
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert not (tmp_path / "out.png").is_symlink()
    assert (tmp_path / "out.png").read_bytes() == b"new"
