"""Whole evaluations of small benchmarks: metrics, interruptions, shards, missing files and invalid arguments."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_folders import (
    write_alphamatting,
    write_dev,
    write_dis5k,
    write_folders,
    write_him2k,
    write_refmatte,
)
from metric_inputs import disc
from PIL import Image
from pyarrow import parquet
from tiny_model import tiny_model, tiny_processor

from fclm_hf.evaluation import EvaluationOptions, evaluate, evaluator
from fclm_hf.evaluation.options import name_sources
from fclm_hf.evaluation.summary import list_remarks
from fclm_hf.metrics import InstanceMattingQuality, connectivity_error, sad


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        tiny_model(seed).save_pretrained(root / f"seed{seed}" / "final")
        tiny_processor(size={"longest_edge": 64}).save_pretrained(root / f"seed{seed}" / "final")
    return [str(root / f"seed{seed}" / "final") for seed in range(2)]


def run(data: Path, out: Path, **options: Any) -> dict[str, Any]:
    return evaluate(EvaluationOptions(str(data), out, **{"workers": 0, **options}))


def read_alpha(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) / 255


def test_checkpoint_by_every_prompt(tmp_path: Path, checkpoints: list[str]) -> None:
    data, out = write_dev(tmp_path / "data") / "alphamatting", tmp_path / "out"
    prompts = ["box", "point", "text", "none"]
    summary = run(data, out, models=checkpoints, prompts=prompts, save_mattes=True, rows="csv", template="{CLS}")
    assert [(result["method"], result["prompt"]) for result in summary["results"]] == [
        (f"seed{seed}_final", prompt) for seed in range(2) for prompt in prompts
    ]
    assert summary == json.loads((out / "summary.json").read_text())
    truth = read_alpha(data / "alpha" / "GT01.png")
    for result in summary["results"]:
        folder = out / result["method"] / result["prompt"]
        matte = read_alpha(folder / "mattes" / "GT01.png")
        assert result["measures"]["sad"] == pytest.approx(sad(matte, truth))
        assert result["measures"]["connectivity_gca"] == pytest.approx(connectivity_error(matte, truth, variant="gca"))
        (row,) = csv.DictReader((folder / "rows.csv").open())
        assert row["target"] == "GT01"
        assert float(row["sad"]) == result["measures"]["sad"]
    first, second = (summary["results"][index]["measures"]["sad"] for index in (0, 4))
    spread = summary["spread"][0]["measures"]["sad"]
    assert summary["spread"][0]["prompt"] == "box"
    assert first != second
    assert spread == {"mean": pytest.approx((first + second) / 2), "std": pytest.approx(abs(first - second) / 2**0.5)}


@pytest.mark.parametrize("config", [{}, {"refinement_size": 28}])
def test_predictor_agrees_with_the_pipeline(tmp_path: Path, checkpoints: list[str], config: dict[str, int]) -> None:
    from transformers import pipeline

    data, out = write_dev(tmp_path / "data") / "coco", tmp_path / "out"
    run(data, out, models=checkpoints[:1], prompts=["box", "none"], save_mattes=True, config_overrides=config)
    photo = str(data / "images" / "000.jpg")
    matting = pipeline("referring-matting", model=checkpoints[0], model_kwargs=config)
    boxes = [item["box"] for item in json.loads((data / "index.json").read_text())[0]["objects"]]
    expected = matting(photo, input_boxes=boxes, cutout=False)
    for number, result in enumerate(expected):
        matte = Image.open(out / "final" / "box" / "mattes" / f"000_{number}.png")
        assert np.abs(np.asarray(matte, int) - np.asarray(result["alpha"], int)).max() <= 1
    alone = matting(photo, cutout=False)["alpha"]
    matte = Image.open(out / "final" / "none" / "mattes" / "000.png")
    assert np.abs(np.asarray(matte, int) - np.asarray(alone, int)).max() <= 1


def test_text_prompts_skip_objects_without_text(tmp_path: Path, checkpoints: list[str]) -> None:
    data = write_dev(tmp_path / "data") / "coco"
    summary = run(data, tmp_path / "out", models=checkpoints[:1], prompts=["text", "box"], known_words=True)
    text, box = summary["results"]
    assert (text["objects"], text["skipped"]) == (1, {"no text": 1})
    assert (box["objects"], box["skipped"]) == (2, {})
    assert set(text["measures"]) == {"iou", "solidity"}


def test_written_mattes_score_the_same_when_read(tmp_path: Path, checkpoints: list[str]) -> None:
    for name, write in {"a": write_refmatte, "b": write_alphamatting, "c": write_him2k}.items():
        data = write(tmp_path / name)
        first = run(data, tmp_path / f"{name}1", models=checkpoints[:1], prompts=["box"], save_mattes=True)
        mattes = tmp_path / f"{name}1" / "final" / "box" / "mattes"
        second = run(data, tmp_path / f"{name}2", predictions=[mattes])
        assert second["results"][0]["measures"] == first["results"][0]["measures"]
        assert second["results"][0]["kind"] == "predictions"


def test_perfect_and_missing_predictions(tmp_path: Path) -> None:
    data = write_alphamatting(tmp_path / "data")
    predictions = tmp_path / "mine"
    predictions.mkdir()
    shutil.copy(data / "gt_training_lowres" / "GT01.png", predictions)
    (result,) = run(data, tmp_path / "out", predictions=[predictions])["results"]
    truth = read_alpha(data / "gt_training_lowres" / "GT02.png")
    assert result["missing"] == 1
    assert result["objects"] == 2
    assert result["measures"]["sad"] == pytest.approx(sad(np.zeros_like(truth), truth) / 2)
    assert 0 < result["measures"]["sad_trimap"] < result["measures"]["sad"]
    rows = parquet.read_table(tmp_path / "out" / "mine" / "box" / "rows.parquet").to_pylist()
    assert [(row["target"], row["missing"], row["sad"] == 0) for row in rows] == [("GT01", 0, True), ("GT02", 1, False)]


def test_names_of_predictions(tmp_path: Path) -> None:
    """Suffixes in capitals are found, files of no object named, and one name must not stand for two files."""
    data, mine = write_alphamatting(tmp_path / "data"), tmp_path / "mine"
    mine.mkdir()
    for name in ("GT01.PNG", "GT03.png"):
        shutil.copy(data / "gt_training_lowres" / "GT01.png", mine / name)
    (mine / "notes.txt").write_text("of another program")
    summary = run(data, tmp_path / "out", predictions=[mine])
    (result,) = summary["results"]
    assert (result["missing"], result["unused"], result["trimaps"]) == (1, ["GT03"], 2)
    assert list(list_remarks(summary)) == [
        "mine: 1 of 2 mattes are missing and count as empty or missed",
        "mine: 1 mattes belong to no prompted object, the first is GT03",
    ]
    shutil.copy(mine / "GT01.PNG", mine / "GT01.bmp")
    with pytest.raises(ValueError, match=r"got both GT01\.PNG and GT01\.bmp"):
        run(data, tmp_path / "out2", predictions=[mine])


def test_trimaps_of_some_images(tmp_path: Path) -> None:
    data, mine = write_alphamatting(tmp_path / "data"), tmp_path / "mine"
    mine.mkdir()
    shutil.copy(data / "gt_training_lowres" / "GT01.png", mine)
    both = run(data, tmp_path / "both", predictions=[mine])["results"][0]["measures"]
    folder = data / "trimap_training_lowres" / "Trimap1"
    (folder / "GT01.png").unlink()
    summary = run(data, tmp_path / "one", predictions=[mine])
    measures = summary["results"][0]["measures"]
    assert measures["sad"] == both["sad"]
    assert measures["sad_trimap"] == pytest.approx(2 * both["sad_trimap"])
    assert both["sad_trimap"] > 0
    assert list(list_remarks(summary))[-1] == "mine: metrics over trimaps cover 1 of 2 objects"
    Image.open(folder / "GT02.png").point(lambda value: min(value, 127)).save(folder / "GT02.png")
    with pytest.raises(ValueError, match=r"trimap of GT02 must hold only 0, 128 and 255, got \[127\]"):
        run(data, tmp_path / "wrong", baselines=["box-as-mask"])


def test_missing_and_false_instances(tmp_path: Path) -> None:
    data = write_him2k(tmp_path / "data")
    mine = tmp_path / "mine"
    (mine / "two").mkdir(parents=True)
    truth = (data / "alphas" / "natural" / "two" / "01.png").read_bytes()
    for name in ("x.png", "y.png", "z.png"):
        (mine / "two" / name).write_bytes(truth)
    (result,) = run(data, tmp_path / "out", predictions=[mine])["results"]
    measures = result["measures"]
    assert (measures["tp"], measures["fp"], measures["fn"]) == (1, 2, 2)
    assert measures["imq_mad"] == pytest.approx(100 / 3, rel=1e-5)
    assert result["missing"] == 1
    assert result["objects"] == 3
    expected, alpha = InstanceMattingQuality(0.75), read_alpha(data / "alphas" / "natural" / "two" / "01.png")
    expected.update(np.stack([alpha] * 3), np.stack([read_alpha(data / "alphas/natural/two/00.png"), alpha]))
    expected.update(np.zeros((0, *alpha.shape)), alpha[None])
    assert measures["imq_conn_75"] == expected.compute()["imq_conn"]


def test_instances_are_truncated_and_mattes_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor of half a gray level must not make the support of an instance the whole image."""

    class Floor:
        def __init__(self, *options: Any) -> None:
            pass

        def predict(self, sample: Any, image: Any, prompted: Any) -> Any:
            for prompt, objects in prompted.items():
                yield prompt, [np.maximum(each.alpha / 255, 0.9 / 255).astype(np.float32) for each in objects]

    monkeypatch.setattr(evaluator, "BoxPredictor", Floor)
    him2k = run(write_him2k(tmp_path / "a"), tmp_path / "out1", baselines=["grabcut"], save_mattes=True)
    assert him2k["results"][0]["measures"]["imq_mad"] == pytest.approx(100, rel=1e-5)
    assert Image.open(tmp_path / "out1/grabcut/box/mattes/one/00.png").getextrema() == (0, 255)
    run(write_alphamatting(tmp_path / "b"), tmp_path / "out2", baselines=["grabcut"], save_mattes=True)
    assert Image.open(tmp_path / "out2/grabcut/box/mattes/GT01.png").getextrema() == (1, 255)


def test_dichotomous_split(tmp_path: Path) -> None:
    pytest.importorskip("py_sod_metrics", reason="pysodmetrics is not installed (extra eval)")
    data = write_dis5k(tmp_path / "data", ("DIS-VD", "DIS-TE1", "DIS-TE2", "DIS-TE3", "DIS-TE4"))
    for split, count in (("DIS-VD", 1), ("DIS-TE", 4)):
        folder = data / split / "gt" if split == "DIS-VD" else data / "DIS-TE1" / "gt"
        (result,) = run(data, tmp_path / f"out {split}", split=split, predictions=[folder])["results"]
        assert (result["objects"], result["missing"]) == (count, count - 1)
        assert set(result["measures"]) == {"max_f", "weighted_f", "mae", "s_measure", "mean_e", "hce"}
        assert result["measures"]["max_f"] == pytest.approx(1) if count == 1 else result["measures"]["max_f"] < 1


def test_an_interrupted_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: list[str]) -> None:
    data = write_folders(tmp_path / "data")
    options = {"models": checkpoints[:1], "prompts": ["box", "none"], "save_mattes": True}
    whole = run(data, tmp_path / "whole", **options)
    plain = evaluator.read_image
    seen: list[str] = []

    def stop(source: Any, name: str) -> Any:
        seen.append(name)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return plain(source, name)

    monkeypatch.setattr(evaluator, "read_image", stop)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "summary.json").exists()
    # a crash leaves a temporary file, never half of a part
    (tmp_path / "out" / "final" / "box" / "parts" / ".unfinished-0123abcd-p2.json").write_text('{"half')
    assert run(data, tmp_path / "out", **options) == whole
    assert seen == ["p0", "p1", "p2", "p2", "p3", "p4"]
    assert run(data, tmp_path / "out", **options) == whole
    assert len(seen) == 6
    for matte in (tmp_path / "whole" / "final").rglob("*.png"):
        assert matte.read_bytes() == (tmp_path / "out" / matte.relative_to(tmp_path / "whole")).read_bytes()


def test_shards_share_a_data_set(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data")
    whole = run(data, tmp_path / "whole", baselines=["grabcut"])
    assert run(data, tmp_path / "out", baselines=["grabcut"], shard=(2, 2)) == {}
    assert len(list((tmp_path / "out" / "grabcut" / "box" / "parts").iterdir())) == 2
    assert run(data, tmp_path / "out", baselines=["grabcut"], shard=(1, 2)) == whole


def test_resume_refuses_other_settings(tmp_path: Path, checkpoints: list[str]) -> None:
    data, out = write_folders(tmp_path / "data"), tmp_path / "out"
    predictions = tmp_path / "mine"
    write_folders(predictions, alpha=".")
    run(data, out, predictions=[predictions], limit=2)
    with pytest.raises(ValueError, match="other settings: point was 'center' and is 'inside'"):
        run(data, out, predictions=[predictions], point="inside")
    Image.fromarray(np.uint8(255 * disc((48, 64), (9, 9), 3))).save(predictions / "p1.png")
    with pytest.raises(ValueError, match=r"fingerprint was.*Delete .*mine to measure it from scratch"):
        run(data, out, predictions=[predictions])


def test_invalid_predictions_stop_the_run(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data")
    predictions = tmp_path / "mine"
    write_folders(predictions, alpha=".", count=3)
    Image.new("L", (10, 10)).save(predictions / "p1.png")
    with pytest.raises(ValueError, match=r"p1\.png must have the size of its photo, 64 x 48, got 10 x 10"):
        run(data, tmp_path / "out", predictions=[predictions])
    (data / "image" / "p0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"p0.png.* is not an image"):
        run(data, tmp_path / "out2", baselines=["box-as-mask"])


INVALID = [
    ({}, "models, baselines or predictions must be given, got none"),
    ({"layout": "coco"}, "layout must be one of auto, columns, refmatte-rw100.*got 'coco'"),
    ({"protocol": "sad"}, "protocol must be one of auto, matting"),
    ({"prompts": ["boxes"]}, "prompts must be one of text, point, box, mask, trimap, none, got 'boxes'"),
    ({"prompts": []}, r"prompts must be unique and not empty, got \[\]"),
    ({"prompts": ["box", "box"]}, "prompts must be unique and not empty, got .*box.*box"),
    ({"baselines": ["magic"]}, "baselines must be one of box-as-mask, grabcut, closed-form"),
    ({"baselines": ["grabcut"], "prompts": ["point"]}, "prompts must contain box for baselines, got point"),
    ({"predictions": ["nowhere"]}, "predictions must be folders, got nowhere"),
    (
        {"predictions": ["."], "prompts": ["box", "none"]},
        "prompts must be the one kind that predictions were made for, got .*box.*none",
    ),
    ({"models": ["a", "a"]}, "models and predictions must be unique"),
    ({"template": "a photo of {}."}, r"template must contain \{CLS\}"),
    ({"columns": {"picture": "im"}}, "columns must be one of image, alpha"),
    ({"workers": -1}, "workers must be at least 0, got -1"),
    ({"limit": 0}, "limit must be at least 1"),
    ({"longest_edge": 0}, "longest_edge must be at least 1"),
    ({"shard": (3, 2)}, "shard must be"),
    ({"rows": "xlsx"}, "rows must be one of parquet, csv"),
    ({"dtype": "int8"}, "dtype must be one of float32"),
    ({"baselines": ["grabcut"], "known_words": True}, "known_words must be False for predictions and baselines"),
    (
        {"baselines": ["grabcut"], "prompts": ["box", "text"]},
        "prompts must not contain text: .* has no texts or class names",
    ),
    (
        {"baselines": ["grabcut"], "prompts": ["box", "none"], "protocol": "instances"},
        "prompts must not contain none.*without a prompt",
    ),
    ({"models": ["nowhere"]}, "nowhere"),
    ({"baselines": ["grabcut"], "layout": "dis5k"}, "does not match layout dis5k"),
    (
        {"baselines": ["grabcut"], "layout": "dis5k", "columns": {"image": "im"}},
        "columns must be empty for layout dis5k",
    ),
    ({"baselines": ["grabcut"], "split": "test"}, "split must be None for the folder .*, got .test."),
]


@pytest.mark.parametrize(("options", "message"), INVALID)
def test_invalid_arguments_stop_before_any_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(evaluator, "read_image", lambda *_: pytest.fail("an image was read"))
    data = write_folders(tmp_path / "data")
    with pytest.raises((OSError, ValueError), match=message):
        run(data, tmp_path / "out", **options)


def test_names_of_methods() -> None:
    assert name_sources(["runs/seed0/final", "runs/seed1/final"]) == {
        "runs/seed0/final": "seed0_final",
        "runs/seed1/final": "seed1_final",
    }
    assert name_sources(["user/fclm lite"]) == {"user/fclm lite": "fclm_lite"}


def test_names_of_methods_stay_in_the_folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "final").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "final")
    assert name_sources([".", ".."]) == {".": "final", "..": "runs"}
    assert name_sources(["../final"]) == {"../final": "final"}


@pytest.mark.parametrize("name", ["../../stolen", "/stolen", ".."])
def test_names_of_samples_stay_in_the_folder_of_results(tmp_path: Path, name: str) -> None:
    data, out = write_refmatte(tmp_path / "data"), tmp_path / "out"
    labels = json.loads((data / "refmatte_rw100_label.json").read_text())
    labels["b_0"]["image_name"] = name
    (data / "refmatte_rw100_label.json").write_text(json.dumps(labels))
    (data / "eval_index_expression.json").unlink()
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    if name == "..":  # a file that is called "...json" is in the folder
        run(data, out, baselines=["box-as-mask"])
    else:
        with pytest.raises(ValueError, match=r"samples and targets must be relative paths without '\.\.', got"):
            run(data, out, baselines=["box-as-mask"])
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} <= before | {out}


def test_old_spelling_of_center_is_accepted_with_a_warning(tmp_path: Path) -> None:
    """Results of release 0.1 with that spelling are resumed, too."""
    old = "centre"  # codespell:ignore centre
    data, out = write_folders(tmp_path / "data"), tmp_path / "out"
    summary = run(data, out, baselines=["box-as-mask"])
    settings = json.loads((out / "settings.json").read_text())
    assert settings["point"] == "center"
    (out / "settings.json").write_text(json.dumps({**settings, "point": old}))
    parts = {path: path.stat().st_mtime_ns for path in out.rglob("parts/*.json")}
    with pytest.warns(FutureWarning, match=f'point="{old}" is deprecated.* use point="center"'):
        assert run(data, out, baselines=["box-as-mask"], point=old) == summary
    assert json.loads((out / "settings.json").read_text()) == settings
    assert {path: path.stat().st_mtime_ns for path in out.rglob("parts/*.json")} == parts
