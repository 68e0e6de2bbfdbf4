"""The figure of foreground tokens: a picture and a number for each panel, from tiny models and images made here."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import load_script
from tiny_model import tiny_model, tiny_processor
from training_sets import make_background, make_cutout


pytest.importorskip("matplotlib", reason="needs the extra figures")
pytest.importorskip("sklearn", reason="needs the extra figures")
plot = load_script("plot_alignment")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory) -> dict[str, str]:
    """Two checkpoints, one in half precision, and a training set as build_training_set.py writes it."""
    root = tmp_path_factory.mktemp("alignment")
    for seed, name in enumerate(("before", "after")):
        model = tiny_model(seed)
        (model if name == "before" else model.bfloat16()).save_pretrained(root / name)
        tiny_processor().save_pretrained(root / name)
    data = root / "data"
    data.mkdir()
    foregrounds = [{"file": f"object_{number}.png", "name": f"object {number}"} for number in range(3)]
    for number, entry in enumerate(foregrounds):
        make_cutout(40 + 100 * number, 60).save(data / entry["file"])
    backgrounds = [{"file": f"photo_{number}.png"} for number in range(3)]
    for number, entry in enumerate(backgrounds):
        make_background(number, 80).save(data / entry["file"])
    (data / "foregrounds.json").write_text(json.dumps(foregrounds))
    (data / "backgrounds.json").write_text(json.dumps(backgrounds))
    small = {"--images": "4", "--tokens": "30", "--size": "64"}
    return {"--before": str(root / "before"), "--after": str(root / "after"), "--data": str(data), **small}


def run(arguments: dict[str, str], **changed: str) -> dict[str, dict[str, float]]:
    options = {**arguments, **{f"--{name}": value for name, value in changed.items()}}
    return plot.main([part for option in options.items() for part in option])


def test_figure_and_numbers(arguments, tmp_path, capsys):
    output = tmp_path / "new" / "figure.png"
    scores = run(arguments, output=str(output))
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed == {**scores, "tokens": 30, "images": 4}
    assert list(scores) == ["before", "after"]
    assert all(0 <= value <= 1 for score in scores.values() for value in score.values())
    with Image.open(output) as figure:
        pixels = np.asarray(figure.convert("RGB"))
        assert figure.format == "PNG"
        assert figure.width > figure.height > 300
    for color in ((255, 127, 14), (31, 119, 180)):  # points of A and of B in both panels
        for half in np.array_split(pixels.astype(int), 2, axis=1):
            assert (np.abs(half - color).sum(-1) < 150).any()
    again = run(arguments, output=str(output))
    assert again == scores


def test_the_same_checkpoint_twice_gives_the_same_number(arguments, tmp_path):
    scores = run(arguments, after=arguments["--before"], output=str(tmp_path / "figure.png"))
    assert scores["before"] == scores["after"]


def test_wrong_input_gives_one_clear_error(arguments, tmp_path, monkeypatch, capsys):
    def fail(*_):
        pytest.fail("pairs were composed")

    monkeypatch.setattr(plot, "compose_pairs", fail)
    empty = tmp_path / "empty"
    empty.mkdir()
    for changed, message in (
        ({"data": str(tmp_path / "nowhere")}, "nowhere holds no foregrounds.json and no backgrounds.json"),
        ({"data": str(empty)}, "empty holds no foregrounds.json"),
        ({"before": str(tmp_path / "nowhere")}, "--before: checkpoint must be a folder or the id"),
        ({"after": str(empty)}, "--after: checkpoint .*empty must contain config.json"),
        ({"images": "1"}, "--images must be at least 2"),
    ):
        with pytest.raises(SystemExit) as stop:
            run(arguments, **changed)
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.count("error:") == 1
        assert re.search(message, error)
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run(arguments)
    assert "matplotlib and sklearn cannot be found" in capsys.readouterr().err


def test_broken_files_give_one_clear_error(arguments, tmp_path):
    data = Path(arguments["--data"])
    broken = tmp_path / "data"
    broken.mkdir()
    for name in ("foregrounds.json", "backgrounds.json"):
        (broken / name).write_bytes((data / name).read_bytes())
    for path in data.glob("object_*.png"):
        (broken / path.name).write_bytes(path.read_bytes())
    with pytest.raises(SystemExit, match=r"error: .*photo_"):
        run(arguments, data=str(broken))
