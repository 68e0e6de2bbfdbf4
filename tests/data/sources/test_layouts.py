"""Data sets in the folders of their authors are sources of training, and say what they lack."""

import shutil
from pathlib import Path

import pytest
from paper_data import write_paper_data

from fclm_hf.data import CompositionSettings, PairSettings, PairStream, Shard, SourceConfig, open_source
from fclm_hf.data.sources.layouts import SOURCE_LAYOUTS, find_missing, read_layout
from fclm_hf.evaluation.layouts import open_folder


FOLDERS = {"p3m-10k": "P3M-10k", "bg-20k": "BG-20k", "refmatte": "RefMatte", "him2k": "HIM2K", "dis5k": "DIS5K"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_paper_data(tmp_path_factory.mktemp("data"))


def make_source(data: Path, layout: str, split: str = "train") -> SourceConfig:
    return SourceConfig(str(data / FOLDERS[layout]), SOURCE_LAYOUTS[layout].kind, layout=layout, split=split)


@pytest.mark.parametrize(
    ("layout", "split", "names"),
    [
        ("p3m-10k", "train", [("person",)]),
        ("refmatte", "train", [(), ()]),
        ("him2k", "comp", [(), ()]),  # two persons, of whom no name tells which
        ("dis5k", "DIS-TR", [("traffic sign",)]),
    ],
)
def test_pairs_of_each_layout(data: Path, layout: str, split: str, names: list[tuple[str, ...]]) -> None:
    source = open_source(make_source(data, layout, split))
    background = open_source(make_source(data, "bg-20k"))
    settings = PairSettings(CompositionSettings(size=48), max_invalid_fraction=0, min_sample_count=1)
    drawn = PairStream([source], [background], Shard(), settings).draw(8)
    assert any(pair.pair.names == names for pair in drawn)
    if layout == "refmatte":
        assert {text for pair in drawn for texts in pair.pair.texts for text in texts} == {
            "low 0",
            "low 1",
            "er 0",
            "er 1",
        }
    keys = {key for pair in drawn for _, key in pair.keys}
    assert all(key.startswith(f"{data / FOLDERS[layout]}:") for key in keys)


def test_rows_are_each_image_once(data: Path) -> None:
    assert [row["id"] for row in read_layout("p3m-10k", data / "P3M-10k", "train")] == ["p_00", "p_01", "p_02"]
    assert [len(row["alphas"]) for row in read_layout("refmatte", data / "RefMatte", "train")] == [1, 2, 1]
    assert [row["unique"] for row in read_layout("him2k", data / "HIM2K", "comp")] == [[True], [False, False]]
    assert len(read_layout("dis5k", data / "DIS5K", "DIS-TE")) == 4
    assert len(read_layout("bg-20k", data / "BG-20k", "testval")) == 1


def test_training_and_test_see_the_same(data: Path) -> None:
    for layout, split in (("p3m-10k", "P3M-500-P"), ("him2k", "natural"), ("dis5k", "DIS-VD")):
        rows = read_layout(layout, data / FOLDERS[layout], split)
        benchmark = open_folder(data / FOLDERS[layout], layout, split)
        assert [sample.name for sample in benchmark.samples] == [row["id"] for row in rows]
        assert [str(sample.image) for sample in benchmark.samples] == [row["image"] for row in rows]
    assert open_folder(data / "P3M-10k", split="P3M-500-NP").samples[0].targets[0].cls == "person"


def test_folders_may_lie_one_level_higher(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "RefMatte" / "RefMatte" / "train", tmp_path / "train")
    assert not find_missing("refmatte", tmp_path, "train")
    shutil.copytree(data / "P3M-10k" / "validation" / "P3M-500-P", tmp_path / "P3M-500-P")
    assert len(read_layout("p3m-10k", tmp_path, "P3M-500-P")) == 3


def test_what_is_missing_is_listed(data: Path, tmp_path: Path) -> None:
    root = shutil.copytree(data / "RefMatte", tmp_path / "RefMatte")
    home = root / "RefMatte" / "train"
    (home / "refmatte_train_label.json").rename(home / "labels.json")
    shutil.rmtree(home / "mask")
    assert find_missing("refmatte", root, "train") == [home / "mask", home / "refmatte_train_label.json"]
    with pytest.raises(
        ValueError, match=r"does not match layout refmatte, it lacks .*mask, .*refmatte_train_label.json"
    ):
        open_source(make_source(tmp_path, "refmatte"))
    (tmp_path / "BG-20k" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no image in split train"):
        open_source(make_source(tmp_path, "bg-20k"))


def test_wrong_layouts() -> None:
    for fields, message in (
        ({"layout": "p3m"}, "layout must be one of p3m-10k, bg-20k, refmatte, him2k, dis5k, got 'p3m'"),
        ({"layout": "bg-20k"}, "kind must be 'background' for layout bg-20k, got 'image_alpha'"),
        ({"layout": "dis5k"}, "split must be one of DIS-TR, .* for layout dis5k, got 'train'"),
    ):
        with pytest.raises(ValueError, match=message):
            SourceConfig("folder", "image_alpha", **fields)
