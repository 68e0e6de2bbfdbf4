"""README and documentation: their Python runs as written, their configurations parse, and their commands exist."""

import re
import shlex
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import typer
from paths import ROOT
from tiny_checkpoints import DECODER, save_checkpoints

import fclm_hf.training
from fclm_hf.cli.main import app
from fclm_hf.training import arguments
from fclm_hf.training.command_line import parse_arguments


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMON_OPTIONS = {"--help", "--version"}
NEEDS_APP = "docs/guides/app.md"  # its Python runs in tests/app/test_api.py

pytestmark = pytest.mark.skipif(
    not Path(fclm_hf.LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there"
)


def find_blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def list_pages(language: str) -> list[str]:
    return [page.relative_to(ROOT).as_posix() for page in PAGES if find_blocks(page, language)]


def check_readme(names: dict) -> None:
    assert Path("cat.png").stat().st_size > 10_000
    assert names["result"]["alpha"].mode == "L"
    assert names["matte"].shape == (1, *names["photo"].size[::-1])
    assert torch.isfinite(names["loss"])


def check_quickstart(names: dict) -> None:
    assert Path("cat.png").stat().st_size > 10_000
    assert names["alpha"].shape == (1, *names["photo"].size[::-1])
    assert names["outputs"].alphas.shape[:2] == (1, 1)


def check_clicks(names: dict) -> None:
    assert names["inputs"]["input_labels"].tolist() == [[[1, -10], [1, 0]]]


def check_finetuning(names: dict) -> None:
    assert torch.isfinite(names["loss"])
    assert names["prompt"].keys() <= {"box", "points", "labels", "text"}
    assert np.isfinite(names["eval_loss"])
    assert {"model.safetensors", "processor_config.json"} <= {path.name for path in Path("my-fclm").iterdir()}


def check_reproduction(names: dict) -> None:
    assert {"loss", "loss_kd", "loss_adv", "loss_ot", "loss_head"} <= names["losses"].keys()
    assert torch.isfinite(names["losses"]["loss"])


def check_onnx(names: dict) -> None:
    assert Path("cutout.png").is_file()
    assert names["alpha"].shape == names["photo"].shape[:2]


ONNX_PAGE = "docs/guides/onnx.md"  # slow, as it needs an export
CHECKS: dict[str, Callable[[dict], None]] = {
    "README.md": check_readme,
    "docs/quickstart.md": check_quickstart,
    "docs/prompts/clicks.md": check_clicks,
    "docs/guides/finetuning.md": check_finetuning,
    ONNX_PAGE: check_onnx,
    "docs/reproduction.md": check_reproduction,
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the paper's presets start from, small."""
    return save_checkpoints(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def shared_pipeline() -> Callable:
    """`transformers.pipeline`, whose pipelines all pages share."""
    return cache(transformers.pipeline)


@pytest.fixture
def page_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: dict[str, str], shared_pipeline: Callable
) -> Path:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(transformers, "pipeline", shared_pipeline)
    preset = partial(fclm_hf.training.load_preset, **checkpoints, **DECODER)
    monkeypatch.setattr(fclm_hf.training, "load_preset", preset)
    return tmp_path


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow) if page == ONNX_PAGE else page
        for page in list_pages("python")
        if page != NEEDS_APP
    ],
)
def test_python_runs(page: str, page_folder: Path, request: pytest.FixtureRequest) -> None:
    if page == ONNX_PAGE:
        Path("my-fclm-onnx").symlink_to(request.getfixturevalue("onnx_folder"))
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # deprecated names of this package
        for block in find_blocks(ROOT / page, "python"):
            exec(compile(block, page, "exec"), names)
    CHECKS.get(page, lambda names: None)(names)


@pytest.mark.parametrize("page", [page.relative_to(ROOT).as_posix() for page in PAGES])
def test_all_python_runs(page: str) -> None:
    """Blocks under another name would be skipped above."""
    fences = re.findall(r"^ *```(\S+)", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(fences) <= {"bash", "bibtex", "python", "text", "yaml"}


def test_checks_belong_to_pages() -> None:
    assert set(CHECKS) <= set(list_pages("python"))


@pytest.mark.parametrize("page", list_pages("yaml"))
def test_configurations_parse(page: str, page_folder: Path) -> None:
    for block in find_blocks(ROOT / page, "yaml"):
        Path("config.yaml").write_text(block)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            parse_arguments(["config.yaml"])


def list_options(command: str) -> set[str]:
    """Options of a command of `fclm`."""
    if command == "train":
        groups = (arguments.ModelArguments, arguments.DataArguments, arguments.RunArguments)
        return {f"--{each.name}" for group in groups for each in fields(group)} | COMMON_OPTIONS
    parameters = typer.main.get_command(app).commands[command].params
    own = {option for parameter in parameters for option in parameter.opts} | COMMON_OPTIONS
    return own | list_options("train") if command == "reproduce" else own


@pytest.mark.parametrize("page", list_pages("bash"))
def test_commands_exist(page: str) -> None:
    for block in find_blocks(ROOT / page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["fclm"] and not words[1].startswith("-"):
                given = {word.partition("=")[0].partition(".")[0] for word in words[2:] if re.match(r"--?[a-z]", word)}
                assert given <= list_options(words[1]), line
