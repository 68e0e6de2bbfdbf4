"""Files about the project agree with each other and with the package."""

import re
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from packaging.requirements import Requirement
from paths import ROOT

import fclm_hf


REPOSITORY = "https://github.com/fclm-hf/fclm_hf"
RAW = "https://raw.githubusercontent.com/fclm-hf/fclm_hf/main"
TEXTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "model_cards").rglob("*.md")]
HARD_DEPENDENCIES = {
    "accelerate", "datasets", "huggingface_hub", "numpy", "opencv-python-headless", "pillow", "rich", "safetensors",
    "scipy", "timm", "torch", "torchvision", "transformers", "typer",
}  # fmt: skip


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py passes to setuptools."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", found.update)
    path = ROOT / "setup.py"
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__file__": str(path), "__name__": "setup"})
    return found


def test_one_version(metadata: dict[str, Any]) -> None:
    version = fclm_hf.__version__
    assert metadata["version"] == version
    assert yaml.safe_load(read("CITATION.cff"))["version"] == version
    assert re.findall(r"^## \[(\d.*?)\]", read("CHANGELOG.md"), flags=re.MULTILINE)[0] == version


def test_hard_dependencies(metadata: dict[str, Any]) -> None:
    assert {Requirement(each).name for each in metadata["install_requires"]} == HARD_DEPENDENCIES


def test_floors_of_security_fixes_are_documented(metadata: dict[str, Any]) -> None:
    floors = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", read("SECURITY.md"), flags=re.MULTILINE))
    assert floors.keys() == {"torch", "transformers"}
    requirements = {each.name: each.specifier for each in map(Requirement, metadata["install_requires"])}
    for name, floor in floors.items():
        assert any(each.operator == ">=" and each.version == floor for each in requirements[name])


def test_extras_that_texts_and_errors_name_exist(metadata: dict[str, Any]) -> None:
    files = [ROOT / "README.md", ROOT / ".ci" / "run", *TEXTS]
    files += [
        path for folder in ("fclm_hf", "research", "benchmarks", "examples") for path in ROOT.glob(f"{folder}/**/*.py")
    ]
    named = {name for path in files for name in re.findall(r'(?:fclm-hf|"\.)\[([\w-]+)\]"', path.read_text("utf-8"))}
    assert {"dev", "docs", "eval", "test"} <= named <= metadata["extras_require"].keys()


def test_linters_have_one_version(metadata: dict[str, Any]) -> None:
    pinned = {each for each in metadata["extras_require"]["dev"] if "==" in each}
    hooks = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert {each for hook in hooks for each in hook["additional_dependencies"] if "==" in each} == pinned


def test_the_package_ships_its_checkpoint(metadata: dict[str, Any]) -> None:
    assert "checkpoints/**/*" in metadata["package_data"]["fclm_hf"]
    assert Path(fclm_hf.LITE_CHECKPOINT).relative_to(Path(fclm_hf.__file__).parent).parts[0] == "checkpoints"


def test_the_package_ships_the_experiments_of_the_paper(metadata: dict[str, Any]) -> None:
    package = "fclm_hf.reproduction.experiments"
    assert package in metadata["packages"]
    folder = ROOT / metadata["package_dir"][package]
    assert {path.name for path in folder.glob(metadata["package_data"][package][0])} >= {
        "base.yaml",
        "table5_full.yaml",
    }


def test_links_into_the_repository_lead_somewhere() -> None:
    for path in TEXTS:
        for link in re.findall(rf"(?:{REPOSITORY}/(?:blob|tree)/main|{RAW})/([^\s)#\"]+)", path.read_text("utf-8")):
            assert (ROOT / link).exists(), f"{path.name} links to {link}"


def test_contributing_names_files_that_exist() -> None:
    named = re.findall(r"`([\w./]+/[\w.]+\.(?:md|py))`|`(\w+\.py)`", read("CONTRIBUTING.md"))
    assert len(named) > 20
    for name in filter(None, (part for parts in named for part in parts)):
        assert any((root / name).is_file() for root in (ROOT, ROOT / "fclm_hf")), f"CONTRIBUTING.md names {name}"


def test_readme_suits_the_package_index() -> None:
    """There, relative links and pictures lead nowhere."""
    text = read("README.md")
    assert len(text.splitlines()) < 150
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) > 5
    assert all(target.startswith(("https://", "#")) for target in targets)
    assert f"]({RAW}/examples/photos/overview.jpg)" in text


def test_the_paper_is_cited_alike() -> None:
    paper = yaml.safe_load(read("CITATION.cff"))["preferred-citation"]
    entries = [
        re.search(r"```bibtex\n(.*?)```", read(name), flags=re.DOTALL)[1] for name in ("README.md", "docs/index.md")
    ]
    assert entries[0] == entries[1]
    assert f"{{{paper['title']}}}" in entries[0]
    names = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert f"{{{names}}}" in entries[0]


def test_tables_of_the_readme_are_those_of_the_lab_log() -> None:
    rows = [line for line in read("README.md").splitlines() if line.startswith("|")]
    assert len(rows) >= 8
    assert set(rows) <= set(read("docs/lab-log.md").splitlines())
