"""`fclm reproduce` on the command line: its lists, the options of `fclm train` that it passes on, and its errors."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fclm_hf.cli.main import app
from fclm_hf.reproduction import ReproductionOptions
from fclm_hf.reproduction.run import StoppedError


def invoke(*words: str) -> Any:
    return CliRunner().invoke(app, ["reproduce", *words])


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[ReproductionOptions]:
    """Options of the reproductions that were asked for; none is run."""
    found: list[ReproductionOptions] = []

    def run(options: ReproductionOptions, *args: Any) -> str:
        found.append(options)
        return "| the | table |"

    monkeypatch.setattr("fclm_hf.reproduction.reproduce", run)
    return found


def test_options_are_passed_on(given: list[ReproductionOptions]) -> None:
    words = [
        "--rows",
        "full, transport",
        "--rows",
        "adversarial",
        "--seeds",
        "4,2",
        "--steps",
        "7",
        "--learning_rate",
        "1",
    ]
    result = invoke("table5", "--data", "data", "-o", "out", *words, "--settings.kd_weight=2")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["| the | table |", str(Path("out", "table5.md"))]
    (options,) = given
    assert options.experiments == ["table5_adversarial", "table5_transport", "table5_full"]
    arguments = options.make_arguments("table5_full", options.seeds[1])
    assert (arguments.run.seed, arguments.run.max_steps, arguments.run.learning_rate) == (2, 7, 1)
    assert arguments.model.settings.kd_weight == 2
    assert invoke("table6", "--data", "data", "-o", "out", "--rows", "all", "--no-figures").exit_code == 0
    assert len(given[1].experiments) == 3
    assert not given[1].figures


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table9"], "TABLE must be one of table1"),
        (["table5", "--rows", "best"], "--rows must be any of without_alignment"),
        (["table5", "--seeds", "first"], "--seeds must be numbers, such as 0,1,2, got 'first'."),
        (["table5", "--learnin_rate", "1"], "fclm reproduce does not take 'learnin_rate': did you mean learning_rate?"),
        (["table5", "--base", "nowhere.yaml"], "nowhere.yaml"),
        (["table5"], "nothing must hold the data of table5, but:"),
    ],
)
def test_errors_are_one_message(tmp_path: Path, words: list[str], message: str) -> None:
    result = invoke(*words, "--data", "nothing", "-o", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_signal_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any) -> None:
        raise StoppedError(15)

    monkeypatch.setattr("fclm_hf.reproduction.reproduce", stop)
    result = invoke("table5", "--data", "data", "-o", "out")
    assert result.exit_code == 143
    assert "the same command continues it" in result.stderr
