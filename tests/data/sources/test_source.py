"""Sources in every layout: what is found, what is refused, and what their rows decode to."""

import json

import numpy as np
import pytest
from PIL import Image
from training_sets import (
    background_rows,
    cutout_rows,
    encode,
    make_background,
    make_cutout,
    write_metadata,
    write_parquet,
    write_webdataset,
)

from fclm_hf.data import Foreground, InvalidSampleError, Photo, RetryPolicy, Sample, Shard, SourceConfig, open_source
from fclm_hf.data.sources.rows import OrderedRows
from fclm_hf.data.sources.samples import decode_row


def read(config: SourceConfig) -> list[Sample]:
    """All samples of one epoch."""
    source = open_source(config)
    rows = OrderedRows(source, Shard(), seed=0, retry=RetryPolicy(0))
    return [decode_row(source, row, 0, RetryPolicy(0)) for row in iter(rows.read, None)]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Three photos with two alphas each, as a folder with metadata."""
    folder = tmp_path_factory.mktemp("photos")
    rows = []
    for number in range(3):
        make_background(number).save(folder / f"{number}.png")
        for part in range(2):
            alpha = np.zeros((24, 24), np.uint8)
            alpha[:, 12 * part : 12 * part + 10] = 200
            Image.fromarray(alpha).save(folder / f"{number}_{part}.png")
        rows.append(
            {
                "file_name": f"{number}.png",
                "matte_file_name": f"{number}_0.png",
                "alphas_file_names": [f"{number}_0.png", f"{number}_1.png"],
                "class": "cat",
                "names": ["cat", "dog"],
                "texts": [["the cat", "what sits left"], ["the dog"]],
                "count": 2,
            }
        )
    return write_metadata(folder, rows)


def test_image_and_alpha_in_a_folder_with_metadata(photos):
    samples = read(SourceConfig(str(photos), "image_alpha", columns={"alpha": "matte", "name": "class"}))
    assert sorted(sample.key for sample in samples) == [f"{photos}:{number}.png" for number in range(3)]
    for sample in samples:
        assert isinstance(sample.content, Photo)
        assert sample.content.names == [("cat",)]
        number = int(sample.key[-5])
        np.testing.assert_array_equal(sample.content.image, np.asarray(make_background(number)))
        assert sample.content.alphas[0][:, :10].min() == 200
        assert sample.content.alphas[0][:, 10:].max() == 0


@pytest.mark.parametrize("kind", ["instances", "text"])
def test_several_alphas_per_image(photos, kind):
    for sample in read(SourceConfig(str(photos), kind)):
        photo = sample.content
        assert [alpha.shape for alpha in photo.alphas] == [(24, 24)] * 2
        assert photo.alphas[1][:, 12:22].min() == 200
        assert photo.names == [("cat",), ("dog",)]
        expected = [("the cat", "what sits left"), ("the dog",)] if kind == "text" else [(), ()]
        assert photo.texts == expected


def test_rgba_in_parquet_with_names_as_classes_or_strings(tmp_path):
    samples = read(SourceConfig(str(write_parquet(tmp_path / "strings", cutout_rows(20), files=3)), "rgba"))
    assert sorted(int(sample.key.rpartition(":")[2]) for sample in samples) == list(range(20))
    for sample in samples:
        number = int(sample.key.rpartition(":")[2])
        assert isinstance(sample.content, Foreground)
        assert sample.content.names == (f"object {number}",)
        assert (sample.content.colors[8, 8] == (number, 0, 128)).all()
        assert sample.content.alpha[8, 8] == 1
    for name in ("cat", "dog"):
        (tmp_path / "classes" / name).mkdir(parents=True)
        make_cutout(3).save(tmp_path / "classes" / name / "0.png")
    samples = read(SourceConfig(str(tmp_path / "classes"), "rgba", columns={"name": "label"}))
    assert sorted(sample.content.names for sample in samples) == [("cat",), ("dog",)]


def test_webdataset_with_fields_of_json_and_a_column_per_object(tmp_path):
    alpha = encode(Image.fromarray(np.eye(24, dtype=np.uint8) * 255))
    fields = {"jpg": encode(make_background(0), "JPEG"), "alpha_0.png": alpha, "alpha_1.png": alpha}
    samples = [(f"{index:02d}", {**fields, "json": json.dumps({"label": "cat"}).encode()}) for index in range(4)]
    write_webdataset(tmp_path / "train.tar", samples)
    one = SourceConfig(
        str(tmp_path), "image_alpha", columns={"image": "jpg", "alpha": "alpha_0.png", "name": "json.label"}
    )
    assert [sample.content.names for sample in read(one)] == [[("cat",)]] * 4
    assert sorted(sample.key[-3:] for sample in read(one)) == [":00", ":01", ":02", ":03"]
    columns = {"image": "jpg", "alphas": ["alpha_0.png", "alpha_1.png"]}
    assert [len(sample.content.alphas) for sample in read(SourceConfig(str(tmp_path), "instances", columns))] == [2] * 4


GENERAL_NAMES = {"beast": ["animal"], "object 0": ["ball", "object 0"], "object 9": ["nothing"]}


def test_a_training_set_of_this_project_filtered_and_with_general_names(tmp_path):
    entries = []
    for number in range(6):
        make_cutout(number).save(tmp_path / f"{number}.webp", lossless=True)
        kept = {"cls": "beast", "source": "a" if number < 4 else "b", "truncated_LTRB": [False, True, False, False]}
        entries.append({"file": f"{number}.webp", "name": f"object {number}", **kept})
    (tmp_path / "foregrounds.json").write_text(json.dumps(entries))
    (tmp_path / "backgrounds.json").write_text(json.dumps([{"file": "0.webp"}]))
    config = SourceConfig(str(tmp_path), "rgba", keep={"source": ["a"]}, general_names=GENERAL_NAMES)
    contents = [sample.content for sample in read(config)]
    names = [("object 0", "ball", "animal"), *((f"object {number}", "animal") for number in (1, 2, 3))]
    assert sorted(content.names for content in contents) == names
    assert all(content.cut_sides == (False, True, False, False) for content in contents)
    (background,) = read(SourceConfig(str(tmp_path), "background"))
    assert background.content.shape == (16, 16, 3)


def test_downloading_first_gives_the_same_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = write_parquet(tmp_path / "set", background_rows(9), files=2)
    streamed, stored = (
        {sample.key: sample.content for sample in read(SourceConfig(str(folder), "background", streaming=streaming))}
        for streaming in (True, False)
    )
    assert streamed.keys() == stored.keys()
    assert len(streamed) == 9
    assert all((streamed[key] == stored[key]).all() for key in streamed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"columns": {"alpha": "mask"}},
            r"'mask' for 'alpha' does not exist.*found: image, matte, alphas, class",
        ),
        ({}, r"column 'alpha' for 'alpha' does not exist. Columns found: image, matte"),
        ({"columns": {"alpha": "count"}}, r"column 'count' for 'alpha' must hold images, got .*int64"),
        ({"columns": {"alpha": "matte", "name": "title"}}, r"column 'title' for 'name' does not exist.*found: image"),
        ({"kind": "instances", "columns": {"alphas": "matte"}}, "'matte' for 'alphas' must hold a list of images"),
        ({"columns": {"alpha": "matte"}, "split": "dev"}, r"split: dev. Available splits: \['train'\]"),
        ({"columns": {"alpha": "matte"}, "keep": {"year": [1]}}, "column 'year' of keep does not exist. Columns found"),
    ],
)
def test_mismatched_columns_are_reported_early(photos, changes, message):
    config = SourceConfig(**{"path": str(photos), "kind": "image_alpha", **changes})
    with pytest.raises(ValueError, match=message):
        open_source(config)


def test_invalid_configurations(tmp_path):
    with pytest.raises(ValueError, match=r"kind must be one of image_alpha, rgba, .*, got 'rgb'"):
        SourceConfig("set", "rgb")
    with pytest.raises(ValueError, match="columns maps 'alpha', but kind 'background' takes image"):
        SourceConfig("set", "background", columns={"alpha": "matte"})
    with pytest.raises(ValueError, match="weight must be positive, got 0"):
        SourceConfig("set", "background", weight=0)
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"'image' does not exist\. Columns found: text"):
        open_source(SourceConfig(str(tmp_path), "background"))


def coarse_rows(**columns) -> list[dict]:
    mask = np.zeros((24, 24), np.uint8)
    mask[4:20, 6:18], mask[4:20, 18:20] = 255, 128
    cell = {"bytes": encode(make_background(1)), "path": None}
    given = {"names": ["cat", "dog"], "instance": [True, False], "unique": [False, True], "complete": False}
    return [{"image": cell, "alphas": [encode(Image.fromarray(mask))] * 2, **given, **columns}]


def test_coarse_masks_and_their_flags(tmp_path):
    write_parquet(tmp_path, coarse_rows())
    (sample,) = read(SourceConfig(str(tmp_path), "instances", mask_quality="coarse", absent_names=["zebra"]))
    photo = sample.content
    assert photo.is_coarse
    assert set(np.unique(photo.alphas[0])) == {0, 128, 255}
    assert photo.names == [(), ("dog",)]
    assert photo.instance == [True, False]
    assert not photo.is_complete
    assert photo.absent_names == ()  # who knows what is not annotated


def test_absent_names_are_those_that_a_complete_photo_lacks(tmp_path):
    write_parquet(tmp_path, coarse_rows(complete=True))
    config = SourceConfig(str(tmp_path), "instances", mask_quality="coarse", absent_names=["cat", "zebra"])
    assert read(config)[0].content.absent_names == ("zebra",)


def test_a_coarse_mask_of_another_size_is_not_mixed(tmp_path):
    mask = Image.fromarray(np.kron([[0, 255], [128, 255]], np.ones((25, 25))).astype(np.uint8))
    write_parquet(tmp_path, coarse_rows(alphas=[encode(mask)] * 2))
    photo = read(SourceConfig(str(tmp_path), "instances", mask_quality="coarse"))[0].content
    assert photo.alphas[0].shape == (24, 24)
    assert set(np.unique(photo.alphas[0])) == {0, 128, 255}


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"instance": [True]}, "2 alphas, 2 names, 2 texts, 2 unique, 1 instance"),
        ({"alphas": [encode(Image.fromarray(np.full((24, 24), 128, np.uint8)))] * 2}, "no pixel is 255"),
    ],
)
def test_faulty_coarse_rows(tmp_path, columns, reason):
    write_parquet(tmp_path, coarse_rows(**columns))
    with pytest.raises(InvalidSampleError, match=reason):
        read(SourceConfig(str(tmp_path), "instances", mask_quality="coarse"))


def test_refused_mask_qualities():
    with pytest.raises(ValueError, match="mask_quality must be one of alpha, coarse, got 'rough'"):
        SourceConfig("x", "instances", mask_quality="rough")
    with pytest.raises(ValueError, match="kind 'rgba' has no masks that could be coarse"):
        SourceConfig("x", "rgba", mask_quality="coarse")
