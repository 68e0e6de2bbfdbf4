"""Docstrings: their examples run as doctests, and every public object documents its arguments and has an example."""

import doctest
import enum
import importlib
import inspect
import pkgutil
import tempfile
import warnings

import pytest
from transformers import PreTrainedConfig

import fclm_hf


PACKAGES = [
    "fclm_hf",
    "fclm_hf.bulk",
    "fclm_hf.data",
    "fclm_hf.evaluation",
    "fclm_hf.exporters",
    "fclm_hf.hub",
    "fclm_hf.metrics",
    "fclm_hf.onnx",
    "fclm_hf.reproduction",
    "fclm_hf.training",
]
NEED_GRADIO = {"fclm_hf.app.handlers", "fclm_hf.app.ui"}
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(fclm_hf.__path__, "fclm_hf.") if "__main__" not in module.name
)


def list_public_objects() -> dict[str, object]:
    """Classes and functions that the packages export, each once, by qualified name."""
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                value = getattr(module, name)
            if inspect.isclass(value) or inspect.isfunction(value):
                found.setdefault(value, f"{package}.{name}")
    return {name: value for value, name in found.items()}


PUBLIC = list_public_objects()


def list_parameters(value: object) -> list[str]:
    """Names that a docstring must explain: arguments, or the fields of a dataclass, without those of all configs."""
    parameters = inspect.signature(value).parameters.values()
    if inspect.isclass(value) and issubclass(value, PreTrainedConfig):
        parameters = [each for each in parameters if each.name not in PreTrainedConfig.__dataclass_fields__]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.kind not in variadic and not each.name.startswith("_")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEED_GRADIO:
        pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_objects_have_an_example(name: str) -> None:
    assert ">>> " in (inspect.getdoc(PUBLIC[name]) or ""), f"{name} has no example"


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_public_objects_explain_their_arguments(name: str) -> None:
    value = PUBLIC[name]
    if inspect.isclass(value) and issubclass(value, (BaseException, enum.Enum)):
        return
    text = inspect.getdoc(value) or ""
    missing = [each for each in list_parameters(value) if f"{each}:" not in text and f"{each} (" not in text]
    assert not missing, f"{name} does not explain {missing}"
