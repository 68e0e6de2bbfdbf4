"""The flat files can be remote code: they keep the rules of transformers' loader, and need little to be there."""

import ast
import importlib
from pathlib import Path

import pytest
from fresh_interpreter import check_loading
from local_hub import LocalHub
from transformers import AutoConfig
from transformers.dynamic_module_utils import get_imports, get_relative_imports
from transformers.pipelines import PIPELINE_REGISTRY

import fclm_hf
from fclm_hf.hub import push_checkpoint, remote_code


FILES = remote_code.find_runtime_files()
NAMES = {file.stem for file in FILES}
STANDARD = {
    "base64",
    "binascii",
    "collections",
    "contextlib",
    "contextvars",
    "dataclasses",
    "difflib",
    "enum",
    "functools",
    "inspect",
    "io",
    "ipaddress",
    "itertools",
    "math",
    "os",
    "pathlib",
    "shutil",
    "socket",
    "time",
    "typing",
    "urllib",
    "warnings",
}
NOT_NEEDED = ("accelerate", "cv2", "datasets", "fclm_hf", "pymatting", "requests", "scipy", "timm", "torchvision")
EVERYWHERE = STANDARD | {"PIL", "huggingface_hub", "numpy", "torch", "transformers"}


def test_all_files_are_found() -> None:
    modules = [reference.split(".")[0] for reference in list_references()]
    assert len(FILES) >= 10
    assert set(modules) <= NAMES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_imports(file: Path) -> None:
    assert set(get_imports(file)) <= EVERYWHERE
    assert set(get_relative_imports(file)) <= NAMES
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert node.level == 1, f"line {node.lineno}"
            assert node.module in NAMES, f"line {node.lineno}"
            assert node.module in get_relative_imports(file), f"line {node.lineno} is not found by the loader"


def test_no_file_needs_torchvision() -> None:
    """All are fetched, and saved again, where it is missing; only `image_processing_fclm` cannot be imported there."""
    assert not any("torchvision" in get_imports(file) for file in FILES)


@pytest.mark.parametrize("module", ["modeling_fclm", "processing_fclm"])
def test_both_backends_are_fetched(module: str) -> None:
    reached, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += set(get_relative_imports(FILES[0].with_name(f"{name}.py"))) - reached
    assert {"image_processing_fclm", "image_processing_pil_fclm"} <= reached
    assert module != "modeling_fclm" or reached == NAMES


def list_references() -> list[str]:
    references = [*remote_code.MODEL_CLASSES.values(), *remote_code.PROCESSOR_CLASSES.values()]
    references += remote_code.IMAGE_PROCESSOR_CLASSES["AutoImageProcessor"].values()
    return references + [pipeline["impl"] for pipeline in remote_code.PIPELINES.values()]


@pytest.mark.parametrize("reference", list_references())
def test_references(reference: str) -> None:
    module, name = reference.split(".")
    if module == "image_processing_fclm":
        pytest.importorskip("torchvision")
    assert getattr(importlib.import_module(f"fclm_hf.{module}"), name) is getattr(fclm_hf, name)


def test_pipelines_are_those_that_are_registered() -> None:
    for task, entry in remote_code.PIPELINES.items():
        _, registered, _ = PIPELINE_REGISTRY.check_task(task)
        assert registered["impl"].__name__ == entry["impl"].split(".")[1]
        assert [each.__name__ for each in registered["pt"]] == entry["pt"]
        assert registered["type"] == entry["type"]


def test_the_registered_pipeline_wins_where_the_package_is_installed() -> None:
    config = AutoConfig.for_model("fclm", custom_pipelines=remote_code.PIPELINES, auto_map=remote_code.MODEL_CLASSES)
    assert not hasattr(config, "custom_pipelines")
    assert config.auto_map == remote_code.MODEL_CLASSES


@pytest.mark.slow
@pytest.mark.usefixtures("online")
def test_transformers_torch_and_pillow_are_enough(hub: LocalHub, saved: Path, tmp_path: Path) -> None:
    push_checkpoint(saved, "cats")
    check_loading(hub, tmp_path, saved, "FCLMImageProcessorPil", hidden=NOT_NEEDED)
