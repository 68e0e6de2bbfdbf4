"""Model cards hold the values of their summary files, and nothing that was typed by hand."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from benchmark_folders import write_dev
from huggingface_hub import ModelCard
from paths import ROOT

from fclm_hf.evaluation import EvaluationOptions, evaluate
from fclm_hf.evaluation.card_tables import make_command, make_eval_results, make_markdown
from fclm_hf.evaluation.comparison import CELL, choose_examples, draw_comparison
from fclm_hf.evaluation.layouts import open_folder
from fclm_hf.evaluation.summary import format_value


CARDS = ROOT / "model_cards"
NAMES = ("fclm-lite", "fclm-matting-small", "fclm-dis-base")


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_model_cards", CARDS / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_result(method: str, kind: str, prompt: str, **measures: float) -> dict[str, Any]:
    return {"method": method, "kind": kind, "prompt": prompt, "objects": 7, "measures": measures}


def make_summary(*results: dict[str, Any]) -> dict[str, Any]:
    settings = {"template": "{CLS}", "known_words": True}
    benchmark = {"layout": "alphamatting", "split": "lowres", "data": "x"}
    return {"benchmark": benchmark, "settings": settings, "results": list(results)}


def test_committed_cards_are_what_the_builder_makes(build: ModuleType, tmp_path: Path) -> None:
    build.build_lite(CARDS / "fclm-lite", tmp_path / "fclm-lite")
    paper = build.read_json(CARDS / "paper.json")
    for name, facts in paper["cards"].items():
        build.build_paper_card(name, facts, paper["source"], tmp_path / name)
    for name in NAMES:
        assert (CARDS / name / "README.md").read_text() == (tmp_path / name).read_text()


def test_lite_card_holds_every_measured_value() -> None:
    card = ModelCard.load(CARDS / "fclm-lite" / "README.md")
    listed = {
        (each.dataset_type, each.dataset_config, each.metric_type): each.metric_value for each in card.data.eval_results
    }
    count = 0
    for name in ("alphamatting", "coco"):
        summary = json.loads((CARDS / "fclm-lite" / f"{name}.json").read_text())
        assert {result["method"] for result in summary["results"]} == {
            "fclm-lite",
            "box-as-mask",
            "grabcut",
            "closed-form",
        }
        for result in summary["results"]:
            shown = [
                format_value(result["measures"][key]) for key in ("sad", "gradient", "iou") if key in result["measures"]
            ]
            assert all(f"| {value} |" in card.text for value in shown)
            if result["kind"] == "checkpoint":
                for key, value in result["measures"].items():
                    assert listed[f"dev-{name}", f"prompt: {result['prompt']}", key] == value
                    count += 1
    assert count == len(listed) == 6 * 6 + 6 * 2


def test_paper_cards_name_their_source_and_claim_no_weights() -> None:
    printed = json.loads((CARDS / "paper.json").read_text())["cards"]
    for name in NAMES[1:]:
        card = ModelCard.load(CARDS / name / "README.md")
        assert "There are no weights for this model yet" in card.text
        assert "no-weights" in card.data.tags
        assert all("paper" in each.source_name for each in card.data.eval_results)
        values = [value for entry in printed[name]["results"] for value in entry["measures"].values()]
        assert sorted(each.metric_value for each in card.data.eval_results) == sorted(values)


@pytest.mark.parametrize("name", NAMES)
def test_cards_say_what_a_reader_needs(name: str) -> None:
    text = (CARDS / name / "README.md").read_text()
    for word in ("## Use", "ntended use", "imits", "icense\n", "fclm evaluate", "license: apache-2.0"):
        assert word in text
    for path in CARDS.rglob("*.json"):
        assert "/work" not in path.read_text()
        assert "/tmp" not in path.read_text()
    assert "/work" not in text
    assert "None" not in text
    assert "{{" not in text


def test_lite_card_says_whose_the_photos_are() -> None:
    text = (CARDS / "fclm-lite" / "README.md").read_text()
    assert "whether they may be redistributed is not known" in " ".join(text.split())


@pytest.mark.parametrize("name", NAMES)
def test_metadata_survives_a_round_trip(name: str) -> None:
    card = ModelCard.load(CARDS / name / "README.md")
    again = ModelCard(str(ModelCard.from_template(card.data, template_str="---\n{{ card_data }}\n---\n")))
    assert again.data.to_dict() == card.data.to_dict()
    assert again.data.eval_results == card.data.eval_results != []


def test_tables_and_commands() -> None:
    summary = make_summary(
        make_result("fclm-lite", "checkpoint", "none", sad=60.87, mse=0.1),
        make_result("grabcut", "baseline", "box", sad=12.184),
    )
    assert make_markdown(summary, ["sad", "mse"]).splitlines() == [
        "| prompt | objects | SAD (thousands) | MSE |",
        "|---|---|---|---|",
        "| none (automatic) | 7 | 60.87 | 0.1000 |",
        "| *GrabCut from the box (OpenCV)* | 7 | 12.18 |  |",
    ]
    command = make_command(summary, "DIR", "OUT", "MODEL")
    assert command == "fclm evaluate DIR -o OUT --model MODEL --prompt none --baseline grabcut --known-words"


def test_metadata_describes_one_checkpoint() -> None:
    one = make_result("a", "checkpoint", "box", sad=1.5)
    (result,) = make_eval_results(make_summary(one, make_result("grabcut", "baseline", "box", sad=3.0)))
    assert (result.metric_type, result.metric_value, result.dataset_split) == ("sad", 1.5, "lowres")
    for results in ([one, {**one, "method": "b"}], []):
        with pytest.raises(ValueError, match="one checkpoint"):
            make_eval_results(make_summary(*results))


def test_best_median_and_worst() -> None:
    scores = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 9.0, "e": 5.0}
    assert choose_examples(scores, higher_is_better=False) == {"best": "b", "median": "a", "worst": "d"}
    assert choose_examples(scores, higher_is_better=True) == {"best": "d", "median": "a", "worst": "b"}
    assert choose_examples({"a": 1.0}, higher_is_better=True) == {"best": "a"}


def test_comparison_shows_photo_truth_and_matte(tmp_path: Path) -> None:
    data = write_dev(tmp_path / "data") / "coco"
    evaluate(EvaluationOptions(str(data), tmp_path / "out", baselines=["box-as-mask"], workers=0, save_mattes=True))
    benchmark = open_folder(data)
    sheet = np.asarray(draw_comparison(benchmark, tmp_path / "out" / "box-as-mask" / "box", "masks"))
    assert sheet.shape[1] == 3 * CELL[0] + 8
    cell = sheet[32 : 32 + 48, 2 * (CELL[0] + 4) : 2 * (CELL[0] + 4) + 64]  # of photos that small nothing is scaled
    assert set(np.unique(cell)) == {0, 255}
    with pytest.raises(ValueError, match="must hold results of this benchmark"):
        draw_comparison(benchmark, tmp_path / "nothing", "masks")
    for matte in (tmp_path / "out").rglob("*.png"):
        matte.unlink()
    with pytest.raises(ValueError, match="must hold saved mattes"):
        draw_comparison(benchmark, tmp_path / "out" / "box-as-mask" / "box", "masks")
