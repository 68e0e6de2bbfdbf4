"""Exported folders: their files, weights with fewer bits, programs of torch.export, and what cannot be exported."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hub_files import read_files
from local_hub import LocalHub
from matting_inputs import draw_inputs
from tiny_model import tiny_masked_model, tiny_model, tiny_processor
from typer.testing import CliRunner

from fclm_hf import FCLMForImageMatting
from fclm_hf.cli import main as cli
from fclm_hf.exporters import export_onnx, export_programs
from fclm_hf.exporters.parts import make_parts, trace_part
from fclm_hf.hub import push_checkpoint
from fclm_hf.onnx import OnnxFCLMForImageMatting


onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


NAMES = {"image_encoder", "text_encoder", "prompt_decoder", "mask_encoder"}


@pytest.mark.slow
def test_folder_holds_all_files(onnx_folder: Path) -> None:
    files = {path.name for path in onnx_folder.iterdir()}
    assert {f"{name}.onnx" for name in NAMES} <= files
    assert {"config.json", "processor_config.json", "tokenizer.json", "README.md"} <= files
    assert not any(name.endswith((".py", ".safetensors", ".data")) for name in files)
    assert "OnnxFCLMForImageMatting" in (onnx_folder / "README.md").read_text()
    for name in NAMES:
        onnx.checker.check_model(str(onnx_folder / f"{name}.onnx"))
    decoder = onnx.load(onnx_folder / "prompt_decoder.onnx")
    shapes = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in (*decoder.graph.input, *decoder.graph.output)
    }
    assert shapes["input_points"] == ["batch_size", "num_objects", "num_points", 2]
    assert shapes["alphas"] == ["batch_size", "num_objects", "height", "width"]


@pytest.mark.parametrize(("dtype", "size"), [("int8", 0.27), ("uint8", 0.27), ("fp16", 0.51)])
def test_fewer_bits(dtype: str, size: float) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 160, 3, 3)) * np.arange(1, 65)[:, None, None, None]
    restored, share = quantize_convolution(weight.astype(np.float32), dtype)
    channels, rounding = weight.reshape(64, -1), np.abs(restored - weight).reshape(64, -1).max(1)
    bounds = {  # half a step of each channel, though their weights differ 64-fold
        "int8": np.abs(channels).max(1) / 127 / 2,
        "uint8": np.ptp(channels, axis=1) / 255 / 2,
        "fp16": np.abs(channels).max(1) * 2**-11,
    }
    assert (rounding > 0).all()
    assert (rounding <= 1.001 * bounds[dtype]).all()
    assert share < size


def test_small_convolutions_keep_half_floats() -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64, 3, 3)).astype(np.float32)
    restored, share = quantize_convolution(weight, "int8")
    np.testing.assert_array_equal(restored, weight.astype(np.float16))
    assert share < 0.51


def quantize_convolution(weight: np.ndarray, dtype: str) -> tuple[np.ndarray, float]:
    """Return the weight that a quantized convolution computes with, and the share of its bytes in those of before."""
    from fclm_hf.exporters.quantization import quantize_weights

    outputs, inputs = weight.shape[:2]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["x", "w"], ["y"])],
        "conv",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, inputs, 8, 8])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, outputs, 6, 6])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    before = len(model.SerializeToString())
    smaller = quantize_weights(model, dtype)
    onnx.checker.check_model(smaller)
    share = len(smaller.SerializeToString()) / before
    smaller.graph.output.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, weight.shape))
    session = onnxruntime.InferenceSession(smaller.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["w"], {"x": np.zeros((1, inputs, 8, 8), np.float32)})[0], share


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "bound"), [("int8", 0.01), ("uint8", 0.01), ("fp16", 1e-3)])
def test_alphas_of_fewer_bits(onnx_folder: Path, tmp_path: Path, dtype: str, bound: float) -> None:
    from fclm_hf.exporters.quantization import quantize_weights

    for name in NAMES:
        onnx.save(quantize_weights(onnx.load(onnx_folder / f"{name}.onnx"), dtype), tmp_path / f"{name}.onnx")
    (tmp_path / "config.json").write_bytes((onnx_folder / "config.json").read_bytes())
    inputs = draw_inputs(np.random.default_rng(3), tiny_model().config, 150, masks=False)
    given = {name: value.numpy() for name, value in inputs.items()}
    few, many = (OnnxFCLMForImageMatting(folder)(**given).alphas for folder in (tmp_path, onnx_folder))
    assert 0 < np.abs(few - many).mean() < bound


@pytest.mark.slow
@pytest.mark.usefixtures("online")
def test_push_uploads_to_the_folder_onnx(hub: LocalHub, onnx_folder: Path) -> None:
    push_checkpoint(tiny_model(), "cats", tiny_processor())
    before = read_files(hub)
    result = CliRunner().invoke(cli.app, ["push", str(onnx_folder), "cats"])
    assert result.exit_code == 0, result.output
    graphs = {f"onnx/{name}.onnx": (onnx_folder / f"{name}.onnx").read_bytes() for name in NAMES}
    assert read_files(hub) == before | graphs
    assert OnnxFCLMForImageMatting.from_pretrained("tester/cats").config.hidden_size == 32

    push_checkpoint(onnx_folder, "dogs")  # a repository without a checkpoint gets the other files, too
    files = read_files(hub, "tester/dogs")
    assert graphs.items() <= files.items()
    assert files["README.md"] == (onnx_folder / "README.md").read_bytes()


def test_invalid_exports(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="quantize must be one of int8, uint8, fp16 or None, got 'int4'"):
        export_onnx("any", tmp_path / "out", "int4")
    with pytest.raises(ValueError, match="encoder_size must be a number of pixels for an export, got None"):
        make_parts(tiny_model(encoder_size=None))
    for words, error in (
        (["--format", "pt2", "--quantize", "int8"], "--quantize requires --format onnx"),
        (["--compile"], "--compile requires --format pt2"),
    ):
        result = CliRunner().invoke(cli.app, ["export-onnx", "any", str(tmp_path / "out"), *words])
        assert result.exit_code == 2
        assert error in " ".join(result.output.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NAMES))
def test_programs_equal_the_modules(tmp_path: Path, name: str, monkeypatch) -> None:
    """A loaded program gives the tensors of its part for other sizes than those it was traced with."""
    # the module takes the same steps as the program; that those of others give the same is tested elsewhere
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    part = next(each for each in make_parts(tiny_model(seed=2)) if each.name == name)
    torch.export.save(trace_part(part), tmp_path / "part.pt2")
    program = torch.export.load(tmp_path / "part.pt2").module()
    with torch.inference_mode():
        expected, outputs = (each(*part.inputs.values()) for each in (part.module, program))
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor needs a C++ compiler")
def test_compiled_folder(tmp_path: Path) -> None:
    """The packages of `--format pt2 --compile` give the alphas of the model, for other sizes than the traced ones."""
    model: FCLMForImageMatting = tiny_masked_model()
    model.save_pretrained(tmp_path / "tiny")
    tiny_processor().save_pretrained(tmp_path / "tiny")
    folder = tmp_path / "compiled"
    words = ["export-onnx", str(tmp_path / "tiny"), str(folder), "--format", "pt2", "--compile"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    packages = {name: torch._inductor.aoti_load_package(str(folder / f"{name}.pt2")) for name in NAMES}
    ids = torch.tensor([[3, 4, 5, 56], [7, 8, 56, 56]])
    with torch.inference_mode():
        expected = model.model.get_text_features(ids).text_embeds
        torch.testing.assert_close(packages["text_encoder"](ids), expected, rtol=0, atol=1e-4)
        for batch, objects, height, width in ((1, 2, 91, 75), (2, 3, 64, 130)):
            pixels, sizes = torch.rand(batch, 3, height, width), torch.tensor([[height, width]]).expand(batch, 2)
            boxes = torch.tensor([10.0, 8.0, 60.0, 50.0]).repeat(batch, objects, 1)
            points = torch.rand(batch, objects, 2, 2) * 60
            labels = torch.tensor([1, 0]).repeat(batch, objects, 1)
            texts, mask = torch.zeros(batch, objects, 24), torch.zeros(batch, objects).long()
            embeddings = packages["image_encoder"](pixels, sizes.contiguous())
            alphas, _ = packages["prompt_decoder"](*embeddings, sizes.contiguous(), points, labels, boxes, texts, mask)
            expected = model(pixels, input_boxes=boxes, input_points=points, input_labels=labels).alphas
            torch.testing.assert_close(alphas, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_program_folder(tmp_path: Path) -> None:
    model: FCLMForImageMatting = tiny_model()
    model.save_pretrained(tmp_path / "tiny")
    tiny_processor().save_pretrained(tmp_path / "tiny")
    folder = export_programs(tmp_path / "tiny", tmp_path / "programs")
    loaded = {name: torch.export.load(folder / f"{name}.pt2") for name in NAMES}
    # one object is no other case, but a shortcut of `view` for equal shapes leaves a guard
    programs = {name: program.module(check_guards=False) for name, program in loaded.items()}
    pixels, sizes = torch.rand(1, 3, 91, 75), torch.tensor([[91, 75]])
    box = torch.tensor([[[10.0, 8.0, 60.0, 70.0]]])
    none = (torch.zeros(1, 1, 1, 2), torch.full((1, 1, 1), -10), box, torch.zeros(1, 1, 24), torch.zeros(1, 1).long())
    with torch.inference_mode():
        alphas, _ = programs["prompt_decoder"](*programs["image_encoder"](pixels, sizes), sizes, *none)
        torch.testing.assert_close(alphas, model(pixels, input_boxes=box).alphas, rtol=0, atol=1e-6)
