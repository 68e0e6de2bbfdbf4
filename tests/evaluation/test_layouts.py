"""Benchmarks on disk and on the Hub become samples with the right mattes, texts and names."""

import json
from pathlib import Path

import numpy as np
import pytest
from benchmark_folders import (
    SIZE,
    matte,
    photo,
    save,
    write_alphamatting,
    write_dev,
    write_dis5k,
    write_folders,
    write_him2k,
    write_refmatte,
)
from PIL import Image

from fclm_hf.evaluation.columns import open_rows
from fclm_hf.evaluation.layouts import open_folder
from fclm_hf.evaluation.samples import read_image, read_matte


def test_refmatte_joins_the_copies_of_a_photo(tmp_path: Path) -> None:
    benchmark = open_folder(write_refmatte(tmp_path))
    assert (benchmark.layout, benchmark.protocol, benchmark.length) == ("refmatte-rw100", "matting", 2)
    first, second = benchmark.samples
    assert [target.name for target in first.targets] == ["a_0", "a_1"]
    assert [target.text for target in first.targets] == ["second 0", "second 1"]
    assert second.targets[0].text == "first of b_0"
    assert Path(first.image).name == "a_0.png"


def test_him2k(tmp_path: Path) -> None:
    benchmark = open_folder(write_him2k(tmp_path))
    assert benchmark.protocol == "instances"
    assert [sample.name for sample in benchmark.samples] == ["one", "two"]
    assert [target.name for target in benchmark.samples[1].targets] == ["two/00", "two/01"]
    assert benchmark.samples[0].targets[0].cls == "person"


def test_dis5k_and_its_splits(tmp_path: Path) -> None:
    splits = ("DIS-VD", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4")
    root = write_dis5k(tmp_path, splits)
    validation = open_folder(root, split="DIS-VD").samples
    assert [sample.targets[0].cls for sample in validation] == ["traffic sign"]
    assert validation[0].name == "0#Graphics#4#TrafficSign#82457.1_o"
    assert open_folder(root, split="DIS-TE").length == 4
    assert open_folder(root / "DIS-TE2").samples == open_folder(root, split="DIS-TE2").samples
    with pytest.raises(ValueError, match=r"split must be one of DIS-VD, DIS-TE1.*DIS-TE for.*got None"):
        open_folder(root)
    with pytest.raises(ValueError, match=r"split must be one of .*, got 'test'"):
        open_folder(root, split="test")


def test_two_files_of_one_name_and_unmatched_mattes_are_errors(tmp_path: Path) -> None:
    data = write_alphamatting(tmp_path / "a")
    save(matte(20, 20), data / "input_training_lowres" / "GT01.bmp")
    with pytest.raises(ValueError, match=r"got both GT01\.bmp and GT01\.png"):
        open_folder(data)
    data = write_him2k(tmp_path / "b")
    (data / "images" / "natural" / "one.jpg").unlink()
    with pytest.raises(ValueError, match=r"natural has no image named one"):
        open_folder(data)


def test_hidden_files_are_not_images(tmp_path: Path) -> None:
    data = write_alphamatting(tmp_path)
    (data / "gt_training_lowres" / "._GT01.png").write_bytes(b"Mac OS X")
    assert open_folder(data).length == 2


def test_alphamatting_has_trimaps(tmp_path: Path) -> None:
    benchmark = open_folder(write_alphamatting(tmp_path))
    assert [sample.name for sample in benchmark.samples] == ["GT01", "GT02"]
    trimap = read_matte(benchmark.samples[0].targets[0].trimap, "trimap", SIZE)
    assert set(np.unique(trimap)) == {0, 128, 255}


def test_development_photos(tmp_path: Path) -> None:
    root = write_dev(tmp_path)
    coco = open_folder(root / "coco")
    assert (coco.layout, coco.protocol) == ("dev-coco", "masks")
    first, second = coco.samples[0].targets
    assert (first.cls, second.cls) == ("low", None)
    assert first.box == (5, 8, 28, 40)
    assert second.point == (46, 26)
    assert open_folder(root / "alphamatting").samples[0].targets[0].cls == "low er"


def test_wrong_folders(tmp_path: Path) -> None:
    assert open_folder(tmp_path) is None
    with pytest.raises(ValueError, match=r"does not match layout him2k, which needs .*alphas/natural"):
        open_folder(tmp_path, "him2k")
    root = write_refmatte(tmp_path / "a")
    (root / "image_all" / "b_0.png").unlink()
    with pytest.raises(ValueError, match=r"no image named b_0"):
        open_folder(root)
    (root / "refmatte_rw100_label.json").write_text("{")
    with pytest.raises(ValueError, match=r"refmatte_rw100_label.json cannot be read as JSON"):
        open_folder(root)
    (write_dis5k(tmp_path / "b") / "DIS-VD" / "gt" / "0#Graphics#4#TrafficSign#82457.1_o.png").unlink()
    with pytest.raises(ValueError, match=r"no image with a matte"):
        open_folder(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "image,alpha\n", "has no rows"),
        (
            "metadata.csv",
            "image,alpha\n../p0.png,alpha/p0.png\n",
            "row 0: image must be a relative path without '..', got",
        ),
        (
            "metadata.csv",
            "image,alpha\nimage/p0.png,/p0.png\n",
            "row 0: alpha must be a relative path without '..', got",
        ),
        (
            "metadata.csv",
            "image,alpha\nC:p0.png,alpha/p0.png\n",
            "row 0: image must be a relative path without '..', got",
        ),
        (
            "metadata.csv",
            f"image,alpha\n{'x' * 300},alpha/p0.png\n",
            "row 0: image must have parts of at most 255 bytes",
        ),
        ("metadata.csv", "\ufeffimage,alpha\nimage/p0.png\n", "row 0 has no alpha"),
        ("metadata.csv", "image,alpha,box\nimage/p0.png,alpha/p0.png,1 2 3\n", "row 0: box must be 4 finite numbers"),
        ("metadata.csv", "image,alpha,point\nimage/p0.png,alpha/p0.png,1 nan\n", "point must be 2 finite numbers"),
        (
            "metadata.csv",
            "image,alpha,point\nimage/p0.png,alpha/p0.png,center\n",
            "row 0: point must be 2 finite numbers, got 'center'",
        ),
        (
            "metadata.jsonl",
            '{"image": "image/p0.png", "alpha": "alpha/p0.png"}\n{"image": "b"}\n',
            "row 1 has no alpha",
        ),
        ("metadata.jsonl", '["image/p0.png"]\n', "must have one JSON object per line"),
        ("metadata.jsonl", "{\n", "cannot be read"),
    ],
)
def test_invalid_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    write_folders(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"data: .*{message}"):
        list(open_rows(str(tmp_path), {}, None, None).samples)


def test_folders_have_no_splits(tmp_path: Path) -> None:
    write_folders(tmp_path)
    with pytest.raises(ValueError, match=r"split must be None for the folder .*, got 'test'"):
        open_rows(str(tmp_path), {}, "test", None)
    with pytest.raises(ValueError, match=r"config_name must be None for the folder .*, got 'big'"):
        open_rows(str(tmp_path), {}, None, "big")


def test_folders_of_images_and_mattes(tmp_path: Path) -> None:
    write_folders(tmp_path, "original", "mask")
    benchmark = open_rows(str(tmp_path), {"image": "original", "alpha": "mask"}, None, None)
    assert [sample.name for sample in benchmark.samples] == [f"p{number}" for number in range(5)]
    with pytest.raises(
        ValueError, match=r"or folders named 'image' for image and 'alpha'.* Folders found: mask, original"
    ):
        open_rows(str(tmp_path), {}, None, None)
    (tmp_path / "mask" / "p3.png").unlink()
    with pytest.raises(ValueError, match=r"must have files of the same names, got 1 without a match, the first is p3"):
        open_rows(str(tmp_path), {"image": "original", "alpha": "mask"}, None, None)


def test_tables_of_file_names(tmp_path: Path) -> None:
    write_folders(tmp_path / "jsonl", "im", "gt")
    rows = [
        {"file": "im/p0.png", "alpha": "gt/p0.png", "caption": "low", "box": [1, 2, 30, 40]},
        {"file": "im/p1.png", "alpha": ["gt/p1.png", "gt/p2.png"], "caption": ["low", None], "box": None},
    ]
    (tmp_path / "jsonl" / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"image": "file", "text": "caption"}
    first, second = open_rows(str(tmp_path / "jsonl"), columns, None, None).samples
    assert (first.name, first.targets[0].name, first.targets[0].box) == ("p0", "p0", (1, 2, 30, 40))
    assert [target.name for target in second.targets] == ["p1/00", "p1/01"]
    assert [target.text for target in second.targets] == ["low", None]
    assert read_matte(second.targets[1].alpha, "matte").shape == SIZE

    write_folders(tmp_path / "csv", "im", "gt")
    (tmp_path / "csv" / "metadata.csv").write_text(
        "image,alpha,point\nim/p0.png,gt/p0.png,20 24\nim/p1.png,gt/p1.png,\n"
    )
    first, second = open_rows(str(tmp_path / "csv"), {}, None, None).samples
    assert (first.targets[0].point, second.targets[0].point) == ((20, 24), None)
    with pytest.raises(ValueError, match=r"no column 'photo' for image. Columns found: image, alpha, point"):
        open_rows(str(tmp_path / "csv"), {"image": "photo"}, None, None)


def test_streaming_resumes_after_dropped_connections() -> None:
    """Every third read fails, in the middle of files too."""
    from datasets import Dataset

    from fclm_hf.data.sources.retry import LostConnectionError, RetryPolicy
    from fclm_hf.evaluation.columns import _StreamedRows

    failing = {"reads": 0, "every": 3}

    def drop(row: dict) -> dict:
        failing["reads"] += 1
        if failing["reads"] % failing["every"] == 0:
            raise ConnectionError("dropped")
        return row

    stream = Dataset.from_list([{"id": number} for number in range(20)]).to_iterable_dataset(num_shards=4).map(drop)
    rows = _StreamedRows(stream, "stream", RetryPolicy(sleep=lambda seconds: None))
    for _ in range(2):
        assert [row["id"] for row in rows] == list(range(20))
    failing["every"] = 1
    with pytest.raises(LostConnectionError, match="Reading stream failed 9 times"):
        list(rows)


def test_parquet_is_streamed(tmp_path: Path) -> None:
    from datasets import Dataset, Features, Image, Value

    alphas = [matte(20, 24), matte(40, 24)]
    features = Features({"photo": Image(), "matte": Image(), "text": Value("string")})
    data = {"photo": [photo(each) for each in alphas], "matte": alphas, "text": ["low", "er"]}
    tmp_path.joinpath("data").mkdir()
    Dataset.from_dict(data, features).to_parquet(tmp_path / "data" / "test-00000-of-00001.parquet")
    benchmark = open_rows(str(tmp_path), {"image": "photo", "alpha": "matte"}, None, None)
    for _ in range(2):
        samples = list(benchmark.samples)
        assert [sample.targets[0].text for sample in samples] == ["low", "er"]
        assert samples[0].name != samples[1].name
    assert read_image(samples[1].image, "photo").size == SIZE[::-1]
    assert np.array_equal(read_matte(samples[1].targets[0].alpha, "matte"), np.asarray(alphas[1]))
    with pytest.raises(ValueError, match=r"no column 'image' for image.*Columns found: photo, matte, text"):
        open_rows(str(tmp_path), {"alpha": "matte"}, None, None)


@pytest.mark.parametrize("kind", ["RGB", "16-bit", "palette", "RGBA"])
def test_mattes_of_any_format(tmp_path: Path, kind: str) -> None:
    alpha = matte(20, 24)
    path = tmp_path / "matte.png"
    if kind == "16-bit":
        Image.fromarray(np.asarray(alpha).astype(np.uint16) * 257).save(path)
    elif kind == "palette":
        alpha.convert("P").save(path)
    else:
        alpha.convert(kind).save(path)
    assert np.array_equal(read_matte(path, "matte"), np.asarray(alpha))


def test_invalid_mattes(tmp_path: Path) -> None:
    cutout = photo(matte(20, 24))
    cutout.putalpha(matte(20, 24))
    save(cutout, tmp_path / "cutout.png")
    with pytest.raises(ValueError, match="cutout must be a grayscale matte, got an image with transparent pixels"):
        read_matte(tmp_path / "cutout.png", "cutout")
    save(matte(20, 24).resize((10, 20)), tmp_path / "small.png")
    with pytest.raises(ValueError, match="small must have the size of its photo, 64 x 48, got 10 x 20"):
        read_matte(tmp_path / "small.png", "small", SIZE)
