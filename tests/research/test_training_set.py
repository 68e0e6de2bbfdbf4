"""A training set folder as sources: objects drawn by their weights, with their general names."""

import json
from pathlib import Path

import pytest
from scripts import load_script
from training_sets import make_background, make_cutout

from fclm_hf.data import CompositionSettings, PairSettings, PairStream, Shard


training_set = load_script("training_set")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    entries = []
    for number in range(8):
        make_cutout(number).save(tmp_path / f"{number}.png")
        entry = {"file": f"{number}.png", "name": f"object {number}", "source": "tux" if number < 2 else "other"}
        entries.append({**entry, "cls": "animals/birds" if number == 2 else "things"})
    (tmp_path / "foregrounds.json").write_text(json.dumps(entries))
    make_background(0, 40).save(tmp_path / "view.png")
    (tmp_path / "backgrounds.json").write_text(json.dumps([{"file": "view.png"}]))
    return tmp_path


def test_objects_are_drawn_by_their_weights(folder: Path) -> None:
    sources = training_set.open_foregrounds(folder)
    assert sorted((source.config.weight, len(source.config.keep["file"])) for source in sources) == [(6, 2), (6, 6)]
    settings = PairSettings(CompositionSettings(size=32, object_counts=(1, 0, 0), plant_prob=0))
    stream = PairStream(sources, training_set.open_backgrounds(folder), Shard(), settings)
    firsts = [drawn.keys[0][1].rpartition(":")[2] for drawn in stream.draw(120)]
    assert set(firsts) == {f"{number}.png" for number in range(8)}
    assert 40 < sum(name in ("0.png", "1.png") for name in firsts) < 80
    (alone,) = training_set.open_foregrounds(folder, weights={})
    assert not alone.config.keep


def test_names_come_with_general_ones(folder: Path) -> None:
    names = training_set.list_names(training_set.read_entries(folder))
    assert names[:5] == ["object 0", "object 1", "object 2", "bird", "animal"]
    assert len(names) == 10
