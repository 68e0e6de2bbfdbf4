"""Exported checkpoints: what they contain, that they are reproducible, and that invalid input leaves nothing behind."""

import json
import os
import shutil
from pathlib import Path

import hub_files
import numpy as np
import pytest
import torch
from local_hub import LocalHub
from paths import ROOT
from photo_files import make_photo
from safetensors.torch import load_file, save_file
from tiny_model import tiny_model, tiny_processor
from transformers import AutoImageProcessor, AutoModelForImageMatting, AutoProcessor, BertConfig, pipeline
from typer.testing import CliRunner

import fclm_hf
from fclm_hf import FCLMForImageMatting, FCLMImageProcessorPil
from fclm_hf.cli import main as cli
from fclm_hf.hub import cards, checkpoints, export_checkpoint, export_saved_checkpoint, load_checkpoint, remote_code


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_checkpoint(tiny_model(), tiny_processor(), tmp_path_factory.mktemp("exported") / "tiny")


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files(exported: Path) -> None:
    files = read_files(exported)
    code = {file.name: file.read_bytes() for file in Path(fclm_hf.__file__).parent.glob("*_fclm.py")}
    assert code.items() <= files.items()
    assert len(code) >= 10
    others = {"README.md", "config.json", "model.safetensors", "processor_config.json"}
    assert files.keys() - code.keys() == others | {"tokenizer.json", "tokenizer_config.json"}
    config, processor = (json.loads(files[name]) for name in ("config.json", "processor_config.json"))
    assert config["auto_map"] == remote_code.MODEL_CLASSES
    assert config["custom_pipelines"] == remote_code.PIPELINES
    assert config["architectures"] == ["FCLMForImageMatting"]
    assert processor["auto_map"] == {"AutoProcessor": "processing_fclm.FCLMProcessor"}
    assert set(processor["image_processor"]["auto_map"]["AutoImageProcessor"]) == {"pil", "torchvision"}
    for path in (*exported.iterdir(), exported):
        assert str(exported.parent).encode() not in (path.read_bytes() if path.is_file() else b"")
    assert exported.stat().st_mode & 0o777 == 0o777 & ~read_umask()


def read_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_exports_are_bit_exact(exported: Path, tmp_path: Path) -> None:
    first = read_files(exported)
    assert read_files(export_saved_checkpoint(exported, tmp_path / "again")) == first
    model, processor = load_checkpoint(exported)
    assert read_files(export_checkpoint(model, processor, tmp_path / "third")) == first
    auto = AutoModelForImageMatting.from_pretrained(exported), AutoProcessor.from_pretrained(exported)
    assert read_files(export_checkpoint(*auto, tmp_path / "fourth")) == first


def test_saved_weights_stay_as_they_are(saved: Path, exported: Path, tmp_path: Path) -> None:
    """Weights of half the precision in a checkpoint that loads as float32, in shards."""
    half = tmp_path / "half"
    shutil.copytree(saved, half)
    weights = {name: tensor.half() for name, tensor in load_file(saved / "model.safetensors").items()}
    shards = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for index, name in enumerate(sorted(weights)):
        list(shards.values())[index % 2][name] = weights[name]
    for name, tensors in shards.items():
        save_file(tensors, half / name, metadata={"format": "pt"})
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (half / "model.safetensors").unlink()
    (half / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    result = read_files(export_saved_checkpoint(half, tmp_path / "result"))
    source = read_files(half)
    assert {name for name in result if name.startswith("model")} == {"model.safetensors.index.json", *shards} | {
        "modeling_fclm.py"
    }
    assert all(result[name] == source[name] for name in (*shards, "model.safetensors.index.json"))
    model, _ = load_checkpoint(tmp_path / "result")
    assert model.dtype == torch.float32
    same = read_files(export_saved_checkpoint(saved, tmp_path / "single"))
    assert same == read_files(exported)


@pytest.mark.parametrize("trust", [None, False, True])
def test_installed_classes_win(exported: Path, trust: bool | None) -> None:
    model = AutoModelForImageMatting.from_pretrained(exported, trust_remote_code=trust)
    assert type(model) is FCLMForImageMatting
    assert type(AutoProcessor.from_pretrained(exported, trust_remote_code=trust)) is fclm_hf.FCLMProcessor
    processor = AutoImageProcessor.from_pretrained(exported, trust_remote_code=trust, backend="pil")
    assert type(processor) is FCLMImageProcessorPil
    pipe = pipeline("referring-matting", model=str(exported), trust_remote_code=trust)
    assert type(pipe) is fclm_hf.ReferringMattingPipeline
    expected = pipeline("referring-matting", model=tiny_model(), processor=pipe.processor)
    alphas = [each(make_photo(), text="low", cutout=False)["predicted_alpha"] for each in (pipe, expected)]
    assert torch.equal(*alphas)


@pytest.mark.parametrize("whole", [False, True], ids=["parts", "pipeline"])
def test_what_is_saved_again_keeps_all_files(exported: Path, tmp_path: Path, whole: bool) -> None:
    """Here with the installed classes; `fresh_interpreter` tests the same without them."""
    if whole:
        pipeline("referring-matting", model=str(exported), trust_remote_code=True).save_pretrained(tmp_path / "again")
    else:
        for auto in (AutoModelForImageMatting, AutoProcessor):
            auto.from_pretrained(exported, trust_remote_code=True).save_pretrained(tmp_path / "again")
    first, again = read_files(exported), read_files(tmp_path / "again")
    assert first.keys() - again.keys() == {"README.md"}
    assert {name: first[name] for name in again if name.endswith("_fclm.py")}.items() <= again.items()
    for name, keys in (("config.json", ("auto_map", "custom_pipelines")), ("processor_config.json", ("auto_map",))):
        before, after = json.loads(first[name]), json.loads(again[name])
        assert all(after[key] == before[key] for key in keys)
        if name == "processor_config.json":
            assert after["image_processor"]["auto_map"] == before["image_processor"]["auto_map"]


@pytest.mark.usefixtures("online")
def test_what_is_pushed_again_keeps_all_files(hub: LocalHub, exported: Path) -> None:
    for auto in (AutoModelForImageMatting, AutoProcessor):
        auto.from_pretrained(exported, trust_remote_code=True).push_to_hub("tester/again")
    pushed, first = hub_files.read_files(hub, "tester/again"), read_files(exported)
    assert first.keys() - pushed.keys() <= {"README.md"}
    assert all(pushed[name] == first[name] for name in first if name.endswith("_fclm.py"))


def test_a_model_without_code_is_saved_without(saved: Path, tmp_path: Path) -> None:
    pipeline("referring-matting", model=str(saved)).save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.py"))
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


def test_cards(saved: Path, exported: Path, tmp_path: Path) -> None:
    short = (exported / "README.md").read_text()
    for words in ("library_name: transformers", "million parameters", "`dinov2`", "FCLM, matting", "torch pillow\n"):
        assert words in short
    assert cards.SUPPORTED_TRANSFORMERS in short
    project = ROOT  # setup.py is not installed with the package
    assert f'"{cards.SUPPORTED_TRANSFORMERS}"' in (project / "setup.py").read_text()
    floor = cards.SUPPORTED_TRANSFORMERS.split(",")[0]
    assert f'require_version("{floor}"' in (Path(fclm_hf.__file__).parent / "configuration_fclm.py").read_text()
    assert 'repo = "me/mine"' in cards.make_card(tiny_model(), "me/mine")
    assert 'matting("photo.jpg", input_masks="rough_mask_or_trimap.png")' in short
    assert "input_masks" not in cards.make_card(tiny_model(dense_prompts=False, semantic_head_size=None))
    own = tmp_path / "card.md"
    own.write_text("---\nlicense: mit\n---\n# Mine\n")
    for card in (own, own.read_text()):
        folder = export_checkpoint(tiny_model(), tiny_processor(), tmp_path / f"with-{type(card).__name__}", card)
        assert (folder / "README.md").read_text() == own.read_text()
    again = export_saved_checkpoint(folder, tmp_path / "again")  # keeps what the author wrote
    assert (again / "README.md").read_text() == own.read_text()


def test_nothing_is_left_behind(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    for owner, name in ((shutil, "copyfile"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(OSError, match="No space left"):
                export_checkpoint(tiny_model(), tiny_processor(), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    export_checkpoint(tiny_model(), tiny_processor(), tmp_path / "out")  # an empty folder is taken
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def make_invalid_checkpoints(saved: Path, folder: Path) -> dict[str, tuple[Path | str, str]]:
    """Return invalid checkpoints with words of the error."""
    bad = {name: folder / name for name in ("empty", "weightless", "garbled", "list", "bert", "thin", "pickled")}
    for path in bad.values():
        shutil.copytree(saved, path)
    shutil.rmtree(bad["empty"])
    bad["empty"].mkdir()
    (bad["weightless"] / "model.safetensors").unlink()
    (bad["garbled"] / "config.json").write_text("{")
    (bad["list"] / "config.json").write_text("[]")
    BertConfig().save_pretrained(bad["bert"])
    weights = load_file(saved / "model.safetensors")
    weights.pop(min(weights))
    save_file(weights, bad["thin"] / "model.safetensors", metadata={"format": "pt"})
    (bad["pickled"] / "model.safetensors").unlink()
    torch.save(weights, bad["pickled"] / "pytorch_model.bin")
    words = {
        "empty": "must contain config.json, got none",
        "weightless": "must contain model.safetensors or model.safetensors.index.json",
        "garbled": "must contain a valid config.json",
        "list": 'must contain a model of type "fclm", got None',
        "bert": "must contain a model of type \"fclm\", got 'bert'",
        "thin": "lacks 1 weights",
        "pickled": "must contain model.safetensors",
    }
    return {name: (path, words[name]) for name, path in bad.items()} | {
        "nowhere": (folder / "no" / "where", "must be a folder or the id of a Hub repository")
    }


def test_invalid_input(saved: Path, tmp_path: Path) -> None:
    model, processor, out = tiny_model(), tiny_processor(), tmp_path / "out"
    for checkpoint, words in make_invalid_checkpoints(saved, tmp_path / "bad").values():
        result = CliRunner().invoke(cli.app, ["export", str(checkpoint), str(out)])
        assert result.exit_code == 1, (checkpoint, result.output)
        assert words in result.output, checkpoint
        assert len(result.output.splitlines()) == 1
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").touch()
    (tmp_path / "bad.md").write_text("---\na: [\n---\n")
    for call, words in [
        (lambda: export_checkpoint(model.model, processor, out), "model must be FCLMForImageMatting, got FCLMModel"),
        (lambda: export_checkpoint(model, processor.tokenizer, out), "processor must be FCLMProcessor, got CLIP"),
        (lambda: export_checkpoint(model, processor, full), "must be new or empty, got"),
        (lambda: export_checkpoint(model, processor, full / "file"), "must be new or empty, got"),
        (
            lambda: export_checkpoint(model, processor, out, tmp_path / "no.md"),
            r"card must be .* got .*no\.md, which does not exist",
        ),
        (lambda: export_checkpoint(model, processor, out, tmp_path / "bad.md"), "card must have a valid YAML header"),
        (lambda: export_saved_checkpoint(saved, full), "must be new or empty, got"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()
    assert not out.exists()
    assert list(full.iterdir()) == [full / "file"]


def test_shards_are_in_the_folder(saved: Path, tmp_path: Path) -> None:
    """Otherwise an index from the Hub could have any file of this machine exported, and then pushed."""
    shutil.copytree(saved, tmp_path / "bad")
    (tmp_path / "bad" / "model.safetensors").unlink()
    for name in ("../secret.safetensors", str(tmp_path / "secret.safetensors"), "secret.txt"):
        index = {"metadata": {}, "weight_map": {"weight": name}}
        (tmp_path / "bad" / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ValueError, match="must name safetensors files in its own folder, got"):
            checkpoints.find_weights(tmp_path / "bad")


def test_command(saved: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "card.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    words = ["export", str(saved), str(tmp_path / "out"), "--card", str(tmp_path / "card.md")]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert result.output.strip().endswith(str(tmp_path / "out"))
    files = read_files(exported) | {"README.md": (tmp_path / "card.md").read_bytes()}
    assert read_files(tmp_path / "out") == files
    photo = np.asarray(make_photo())
    alphas = [
        pipeline("referring-matting", model=str(folder))(photo, cutout=False)["predicted_alpha"]
        for folder in (saved, tmp_path / "out")
    ]
    assert torch.equal(*alphas)
