"""`fclm evaluate` as it is typed."""

import json
from pathlib import Path

import pytest
from benchmark_folders import write_alphamatting, write_dev, write_folders
from typer.testing import CliRunner

from fclm_hf.cli.evaluate import parse_columns, parse_encoder_size, parse_shard
from fclm_hf.cli.main import app
from fclm_hf.evaluation.summary import format_value


def call(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_baselines_in_a_table(tmp_path: Path) -> None:
    data = write_alphamatting(tmp_path / "data")
    names = "--baseline", "grabcut", "--baseline", "box-as-mask"
    code, output = call(data, "-o", tmp_path / "out", *names, "--workers", 0)
    assert code == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    for result in summary["results"]:
        line = next(line for line in output.splitlines() if f" {result['method']} " in line)
        assert format_value(result["measures"]["sad"]) in line
    assert output.splitlines()[-1].endswith("summary.json")


def test_default_model_is_the_embedded_one(tmp_path: Path) -> None:
    data = write_dev(tmp_path / "data") / "coco"
    prompts = "--prompt", "box", "--prompt", "text", "--template", "{CLS}", "--encoder-size", 64
    code, output = call(data, "-o", tmp_path / "out", *prompts, "--workers", 0)
    assert code == 0
    assert "fclm-lite" in output
    assert "some objects have no prompt of kind text (no text: 1)" in output
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"]["config_overrides"] == {"encoder_size": 64}


def test_columns_and_shards(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data", "im", "gt")
    words = ["--column", "image=im", "--column", "alpha=gt", "--baseline", "box-as-mask", "--workers", 0]
    code, output = call(data, "-o", tmp_path / "out", *words, "--shard", "1/2")
    assert code == 0
    assert "This shard is done" in output
    code, output = call(data, "-o", tmp_path / "out", *words, "--shard", "2/2", "--rows", "csv")
    assert code == 0
    assert (tmp_path / "out" / "box-as-mask" / "box" / "rows.csv").is_file()


def test_errors_are_one_line(tmp_path: Path) -> None:
    data = write_folders(tmp_path / "data")
    for words, message in (
        (["--model", "nowhere"], "nowhere"),
        (["--column", "image"], "--column must be ROLE=NAME"),
        (["--layout", "dis"], "--layout must be one of"),
        (["--point-rule", "left"], "--point-rule must be one of"),
        (["--prompt", "point", "--clicks", "0"], "--clicks must be at least 1"),
        (["--clicks", "2"], "--clicks must be 1 without prompt point and a checkpoint, got 2"),
        (["--longest-edge", "0"], "--longest-edge must be at least 1"),
        (["--device", "cuda:99"], "--device cuda:99 is unavailable"),
        (["--shard", "2"], "--shard must be I/N"),
        (["--encoder-size", "big"], "--encoder-size must be"),
    ):
        code, output = call(data, "-o", tmp_path / "out", *words)
        assert code == 1
        assert message in output
        assert "Traceback" not in output
    code, output = call(tmp_path / "nothing", "-o", tmp_path / "out", "--baseline", "grabcut")
    assert code == 1
    assert "nothing cannot be opened" in output


def test_parsers() -> None:
    assert parse_columns(["image=a=b"]) == {"image": "a=b"}
    assert parse_encoder_size("none") is None
    assert parse_shard("2/3") == (2, 3)
    for parse, bad in ((parse_columns, ["image=a", "image=b"]), (parse_encoder_size, "0"), (parse_shard, "a/b")):
        with pytest.raises(ValueError, match=r"^--(column|encoder-size|shard) must be .*, got "):
            parse(bad)


def test_values_have_four_digits() -> None:
    assert [format_value(value) for value in (None, 0.0, 3, 1234.56, 12.3456, 0.0012345)] == [
        "",
        "0",
        "3",
        "1235",
        "12.35",
        "0.001234",
    ]
