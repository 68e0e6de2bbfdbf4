"""A table from the folders of the paper's data: what is missing is said first, and what is there is continued."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image
from training_runs import FORKS, TIMEOUT, find_free_port

from fclm_hf.reproduction import reproduce
from fclm_hf.reproduction.run import launch
from fclm_hf.reproduction.tables import TABLES
from fclm_hf.training.command_line import parse_arguments


ROWS = {
    "table1": ["FCLM's student", "FCLM's student †"],
    "table2": ["Ours, here", "Ours, by box"],
    "table3": ["Ours, here"],
    "table4": [f"{row.name}, here" for row in TABLES["table4"].rows],
    "table5": [f"{row.name}, here" for row in TABLES["table5"].rows],
    "table6": [f"{row.name}, here" for row in TABLES["table6"].rows],
}


def read_rows(text: str) -> dict[str, list[str]]:
    """Cells of each line of a table by its first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in cells}


def test_one_row_is_trained_tested_and_continued(
    make_options: Any, monkeypatch: pytest.MonkeyPatch, new_accelerator: None
) -> None:
    options = make_options("table6", rows=["point"], seeds=[0, 3])
    said: list[str] = []
    text = reproduce(options, said.append)
    assert [line.split(" ")[0] for line in said] == ["Training", "Testing"] * 2
    cells = read_rows(text)["point, here"]
    assert len(cells) == 4
    assert all(" ± " in cell for cell in cells)
    summary = json.loads((options.out / "table6.json").read_text())
    values = summary["rows"][0]["here"]["refmatte"]["sad"]["seeds"]
    assert set(values) == {"0", "3"}
    assert values["0"] != values["3"]
    monkeypatch.setattr("fclm_hf.reproduction.run.Trainer", lambda arguments: pytest.fail("it is trained"))
    monkeypatch.setattr("fclm_hf.evaluation.evaluator.Method.load", lambda method: pytest.fail("it is tested"))
    assert reproduce(options, lambda line: None) == text
    with pytest.raises(ValueError, match=r"step-00000001.pt can only be resumed with .*alignment was 'full' and"):
        reproduce(make_options("table6", rows=["point"], flags=[*options.flags, "--settings.alignment", "none"]))


def test_all_that_is_missing_is_said_before_any_work(
    make_options: Any, paper_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fclm_hf.reproduction.run.Trainer", lambda arguments: pytest.fail("work has begun"))
    data = shutil.copytree(paper_data, tmp_path / "data")
    shutil.rmtree(data / "RefMatte" / "RefMatte" / "train" / "img")
    shutil.rmtree(data / "BG-20k")
    (data / "RefMatte_RW_100" / "refmatte_rw100_label.json").unlink()
    with pytest.raises(ValueError, match="must hold the data of table5, but:") as caught:
        reproduce(make_options("table5", data=data))
    lines = str(caught.value).splitlines()[1:]
    assert len(lines) == 3
    assert lines[0].endswith("RefMatte/RefMatte/train/img is missing")
    assert lines[1].endswith("BG-20k/train is missing")
    assert "RefMatte_RW_100 does not match layout refmatte-rw100, which needs image_all/" in lines[2]
    for split in ("DIS-TR", "DIS-TE3"):
        shutil.rmtree(data / "DIS5K" / split / "gt")
    with pytest.raises(ValueError, match=r"DIS-TR/gt is missing\n(.*\n)*.*DIS-TE3/gt is missing"):
        reproduce(make_options("table3", data=data))
    (data / "HIM2K" / "images" / "comp" / "c1.jpg").unlink()
    with pytest.raises(ValueError, match="comp has no image named c1"):
        reproduce(make_options("table2", data=data, rows=["him2k"]))
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_said_before_any_work(make_options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fclm_hf.reproduction.checks.importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r'needs matplotlib and sklearn: pip install "fclm-hf\[figures\]", or add --no'
    ):
        reproduce(make_options("table5"))


def test_runs_are_launched(make_options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = make_options("table6", rows=["box"], launcher=["torchrun", "--nproc_per_node", "2"])
    arguments = options.make_arguments("table6_box", 0)
    config = options.out / "runs" / "table6_box" / "seed0.yaml"
    codes = {0: 0, 143: signal.SIGTERM, -signal.SIGINT: signal.SIGINT}
    commands = []
    for code, stop in codes.items():
        monkeypatch.setattr(
            "fclm_hf.reproduction.run.subprocess.run",
            lambda command, check, code=code: commands.append(command) or subprocess.CompletedProcess(command, code),
        )
        assert launch(arguments, options.launcher) == stop
    expected = ["torchrun", "--nproc_per_node", "2", "-m", "fclm_hf.cli", "train", str(config)]
    assert commands == [expected] * 3
    assert parse_arguments([str(config)]).to_dict() == arguments.to_dict()
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match=r"-c 'exit\(2\)' .* failed with exit code 2"):
        launch(arguments, [sys.executable, "-c", "exit(2)"])


class Process:
    """`fclm reproduce` in a process of its own, which starts at once.

    Args:
        out: Output folder.
        *words: The other words of the command line.
    """

    def __init__(self, out: Path, *words: str) -> None:
        self.log = out.with_suffix(".log")
        self.process = FORKS.Process(target=_reproduce, args=([*words, "-o", str(out), "--workers", "0"], self.log))
        self.process.start()

    def finish(self) -> str:
        """Wait until it ends, which it must do without an error; return its output."""
        self.process.join(TIMEOUT)
        assert self.process.exitcode == 0, self.log.read_text()
        return self.log.read_text()


def _reproduce(words: list[str], log: Path) -> None:
    """Run the command in a child process, with its output in a file."""
    os.environ["ACCELERATE_USE_CPU"] = "true"
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(file, stream)
    from fclm_hf.cli.main import app

    app(["reproduce", *words])


@pytest.mark.slow
@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_table_resumes_after_a_kill(table: str, paper_data: Path, flags: list[str], tmp_path: Path) -> None:
    if table == "table3":
        pytest.importorskip("py_sod_metrics", reason="needs the extra eval")
        flags = [*flags, "--config.task", "segmentation"]
    if table == "table5":
        pytest.importorskip("sklearn", reason="needs the extra figures")
        pytest.importorskip("matplotlib", reason="needs the extra figures")
    options = ["--steps", "6", "--seeds", "0,1"]
    if table == "table5":
        options += ["--rows", "full,transport,without_alignment"]
    flags = [*flags, "--save_steps", "1", "--save_total_limit", "100"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    words = [table, "--data", str(paper_data), *options, *flags]
    run = Process(killed, *words)
    while not list(killed.glob("runs/*/seed1/checkpoints/step-00000002.pt")):
        assert run.process.is_alive(), run.log.read_text()
        time.sleep(0.005)
    run.process.kill()
    run.process.join()
    assert run.process.exitcode == -signal.SIGKILL
    assert "±" not in (killed / f"{table}.md").read_text()  # what is known after the first seed
    begun = {path: path.stat().st_mtime_ns for path in killed.glob("runs/*/seed0/checkpoints/*.pt")}
    assert len(begun) >= 6
    output = Process(killed, *words).finish()
    rows = read_rows(output)
    for name in ROWS[table] if table != "table5" else [ROWS[table][0], *ROWS[table][2:]]:
        assert any("±" in cell for cell in rows[name]), output
    assert all(path.stat().st_mtime_ns == time_before for path, time_before in begun.items())

    Process(whole, *words).finish()
    assert (killed / f"{table}.md").read_text() == (whole / f"{table}.md").read_text()
    if figure := TABLES[table].figure:
        with Image.open(killed / f"{figure}.png") as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert min(pixels.shape[:2]) > 250
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


@pytest.mark.slow
def test_two_processes_train_a_table(make_options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_port", str(find_free_port())]
    for name, value in {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}.items():
        monkeypatch.setenv(name, value)
    options = make_options("table6", rows=["box", "point"], launcher=launcher, steps=2)
    rows = read_rows(reproduce(options, print))
    assert all(rows["box, here"])
    history = options.out / "runs" / "table6_box" / "seed0" / "arguments.yaml"
    assert parse_arguments([str(history)]).run.max_steps == 2
    state = torch.load(history.parent / "checkpoints" / "step-00000002.pt", weights_only=True)
    assert len(state["processes"]) == 2
