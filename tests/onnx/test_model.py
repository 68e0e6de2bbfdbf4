"""The exported graphs against the PyTorch model: the same alphas for any size, batch, object, point and prompt."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matting_inputs import draw_inputs
from paths import PHOTOS
from PIL import Image
from tiny_model import tiny_masked_model, tiny_processor
from transformers import pipeline
from typer.testing import CliRunner

from fclm_hf import LITE_CHECKPOINT, FCLMConfig, FCLMForImageMatting, FCLMProcessor, ReferringMattingPipeline
from fclm_hf.cli import main as cli
from fclm_hf.exporters import export_onnx
from fclm_hf.onnx import OnnxFCLMForImageMatting, find_graphs, has_only_graphs
from fclm_hf.refinement_fclm import settle


onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


TOLERANCE = 1e-4

pytestmark = pytest.mark.slow  # torch traces each part four times: a minute for the tiniest model


@pytest.fixture(scope="module")
def model() -> FCLMForImageMatting:
    """The model that was exported."""
    return tiny_masked_model()


@pytest.fixture(scope="module")
def graphs(onnx_folder: Path) -> OnnxFCLMForImageMatting:
    """Its graphs."""
    return OnnxFCLMForImageMatting.from_pretrained(onnx_folder, providers=["CPUExecutionProvider"])


def compare(model: FCLMForImageMatting, graphs: OnnxFCLMForImageMatting, rounds: int, longest: int) -> None:
    """Check that graphs give the alphas of the model for random inputs."""
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        inputs = draw_inputs(rng, model.config, longest)
        with torch.inference_mode():
            expected = model(**inputs).alphas
        given = {name: value.numpy() for name, value in inputs.items()}
        alphas = graphs(**given).alphas
        assert isinstance(alphas, np.ndarray)
        assert alphas.shape == expected.shape
        np.testing.assert_allclose(alphas, expected.numpy(), rtol=0, atol=TOLERANCE, err_msg=str(sorted(inputs)))


def test_alphas_are_those_of_the_model(model: FCLMForImageMatting, graphs: OnnxFCLMForImageMatting) -> None:
    compare(model, graphs, rounds=3, longest=200)


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of the embedded checkpoint."""
    return export_onnx(LITE_CHECKPOINT, tmp_path_factory.mktemp("lite") / "graphs")


def test_alphas_are_those_of_lite_at_fifty_sizes(lite: Path) -> None:
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval()
    compare(model, OnnxFCLMForImageMatting(lite, ["CPUExecutionProvider"]), rounds=50, longest=2000)


def test_closer_looks_are_those_of_lite(lite: Path, tmp_path: Path) -> None:
    """The pipeline and `fclm matte` look closer with graphs, too, which changes the mattes."""
    graphs = OnnxFCLMForImageMatting(lite, ["CPUExecutionProvider"])
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    assert graphs.config.refinement_size == model.config.refinement_size is not None
    processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
    matting, expected = (ReferringMattingPipeline(each, processor=processor) for each in (graphs, model))
    for prompts in ({"input_boxes": [150, 20, 470, 330]}, {"text": "cup"}, {"input_points": [300, 200]}, {}):
        one, other = (each(PHOTOS / "coffee.jpg", cutout=False, **prompts) for each in (matting, expected))
        torch.testing.assert_close(one["predicted_alpha"], other["predicted_alpha"], rtol=0, atol=TOLERANCE)
        first = expected(PHOTOS / "coffee.jpg", cutout=False, refine=False, **prompts)
        assert not other["predicted_alpha"].any() or not torch.allclose(
            other["predicted_alpha"], settle(first["predicted_alpha"])
        )
    words = ["matte", str(PHOTOS / "coffee.jpg"), "-o", str(tmp_path / "alpha.png"), "--alpha"]
    result = CliRunner().invoke(cli.app, [*words, "--box", "150,20,470,330", "--model", str(lite)])
    assert result.exit_code == 0, result.output
    alpha = expected(PHOTOS / "coffee.jpg", input_boxes=[150, 20, 470, 330])["alpha"]
    difference = np.asarray(alpha, int) - np.asarray(Image.open(tmp_path / "alpha.png"), int)
    assert np.abs(difference).max() <= 1


def test_tiles_are_those_of_lite(lite: Path) -> None:
    """So are looks at wide edges, several tiles at once, with the detail maps of the first look."""
    graphs = OnnxFCLMForImageMatting(lite, ["CPUExecutionProvider"])
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
    alphas = []
    for each, tile_size in ((graphs, 320), (model, 320), (model, None)):
        each.config.tile_size = tile_size
        matting = ReferringMattingPipeline(each, processor=processor)
        photo = PHOTOS / "astronaut.jpg"
        alphas.append(matting(photo, cutout=False, input_boxes=[20, 4, 436, 512])["predicted_alpha"])
    torch.testing.assert_close(alphas[0], alphas[1], rtol=0, atol=TOLERANCE)
    assert (alphas[1] - alphas[2]).abs().mean() > 1e-3


@pytest.fixture(scope="module", params=["int8", "uint8"])
def quantized_lite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export in 8-bit integers of a type, which is the name of the folder."""
    return export_onnx(LITE_CHECKPOINT, tmp_path_factory.mktemp("quantized") / request.param, request.param)


def test_quantized_lite_is_close(lite: Path, quantized_lite: Path) -> None:
    """Mattes differ by less than 0.01 on average, with and without masks, and the graphs take at most 8 MB."""
    assert sum(path.stat().st_size for path in quantized_lite.glob("*.onnx")) <= 8e6
    expected, graphs = (OnnxFCLMForImageMatting(each, ["CPUExecutionProvider"]) for each in (lite, quantized_lite))
    processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
    boxes = {"coffee": [150, 20, 470, 330], "cat": [20, 10, 430, 298], "astronaut": [20, 4, 436, 512]}
    for name, box in boxes.items():
        photo = Image.open(PHOTOS / f"{name}.jpg")
        inputs = processor(photo, input_boxes=[[box, None]])
        masks = np.zeros((1, 2, photo.height, photo.width), np.float32)
        masks[0, 0, box[1] : box[3], box[0] : box[2]] = masks[0, 1, : photo.height // 2] = 1
        for given in (inputs, {**inputs, "input_masks": masks}):
            few, many = (each(**given).alphas for each in (graphs, expected))
            assert 0 < (few - many).abs().mean() < 0.01


def test_large_layers_of_int8_compute_in_integers(quantized_lite: Path) -> None:
    counts = {"image_encoder": 13, "prompt_decoder": 4} if quantized_lite.name == "int8" else {}
    for path in quantized_lite.glob("*.onnx"):
        graph = onnx.load(path).graph
        producers = {output: node.op_type for node in graph.node for output in node.output}
        convolutions = [node for node in graph.node if node.op_type == "Conv"]
        kinds = [{producers.get(each) for each in node.input[:2]} for node in convolutions]
        assert kinds.count({"DequantizeLinear"}) == counts.get(path.stem, 0)


@pytest.mark.parametrize("preset", ["matting-small", "dis-base"])
def test_presets(tmp_path: Path, preset: str) -> None:
    """DINOv2-Small and DINOv2-Base with random weights, at their own size, with a tiny text tower."""
    torch.manual_seed(0)
    text_config = tiny_masked_model().config.text_config.to_dict()
    model = FCLMForImageMatting(FCLMConfig.from_preset(preset, text_config=text_config)).eval()
    model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor().save_pretrained(tmp_path / "checkpoint")
    folder = export_onnx(tmp_path / "checkpoint", tmp_path / "graphs")
    compare(model, OnnxFCLMForImageMatting(folder, ["CPUExecutionProvider"]), rounds=2, longest=700)


def test_masks(model: FCLMForImageMatting, graphs: OnnxFCLMForImageMatting) -> None:
    """Mask prompts act, and known pixels of a trimap stay as they are."""
    rng = np.random.default_rng(1)
    pixels = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 65, 99)).astype(np.float32))
    trimap = torch.full((1, 2, 65, 99), 0.5)
    trimap[:, 0, :20], trimap[:, 0, 40:] = 1, 0
    trimap[:, 1] = torch.from_numpy(rng.random((65, 99)).astype(np.float32))
    for layer in model.model.prompt_encoder.get_mask_outputs():
        assert layer.weight.abs().max() > 0
    with torch.inference_mode():
        expected = model(pixels, input_masks=trimap).alphas
    alphas = graphs(pixels, input_masks=trimap).alphas
    assert isinstance(alphas, torch.Tensor)
    torch.testing.assert_close(alphas, expected, rtol=0, atol=TOLERANCE)
    assert (alphas[0, 0, :20] == 1).all()
    assert (alphas[0, 0, 40:] == 0).all()
    with pytest.raises(ValueError, match="must not be larger"):
        graphs(pixels, input_masks=torch.zeros(1, 1, 66, 99))


def test_pipeline_and_command_line(
    model: FCLMForImageMatting, graphs: OnnxFCLMForImageMatting, onnx_folder: Path, tmp_path: Path
) -> None:
    photo = Image.fromarray(np.random.default_rng(2).integers(0, 256, (61, 83, 3), dtype=np.uint8))
    processor = FCLMProcessor.from_pretrained(onnx_folder)
    matting = pipeline("referring-matting", model=graphs, processor=processor)
    expected = ReferringMattingPipeline(model, processor=tiny_processor())
    for prompts in ({"text": ["low", "er"]}, {"input_points": [[40, 30], [5, 5]], "input_labels": [1, 0]}, {}):
        results = [np.atleast_1d(each(photo, cutout=False, **prompts)) for each in (matting, expected)]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one["predicted_alpha"], other["predicted_alpha"], rtol=0, atol=TOLERANCE)
    photo.save(tmp_path / "photo.png")
    words = ["matte", str(tmp_path / "photo.png"), "-o", str(tmp_path / "alpha.png"), "--alpha", "--box", "5,5,60,50"]
    result = CliRunner().invoke(cli.app, [*words, "--model", str(onnx_folder)])
    assert result.exit_code == 0, result.output
    alpha = expected(photo, input_boxes=[5, 5, 60, 50])["alpha"]
    difference = np.asarray(alpha, int) - np.asarray(Image.open(tmp_path / "alpha.png"), int)
    assert np.abs(difference).max() <= 1
    result = CliRunner().invoke(cli.app, [*words, "--model", str(onnx_folder), "--dtype", "float16"])
    assert result.exit_code == 1
    assert "float32 for ONNX graphs" in result.output


def test_errors(graphs: OnnxFCLMForImageMatting, tmp_path: Path) -> None:
    pixels = np.zeros((1, 3, 64, 64), np.float32)
    with pytest.raises(ValueError, match="got neither"):
        graphs()
    with pytest.raises(ValueError, match="pixel_values must have shape"):
        graphs(pixels[0])
    with pytest.raises(ValueError, match="pixel_mask must have the shape"):
        graphs(pixels, pixel_mask=np.ones((1, 64, 63)))
    with pytest.raises(ValueError, match="input_boxes must have shape"):
        graphs(pixels, input_boxes=np.zeros((1, 4)))
    with pytest.raises(ValueError, match="must agree on the number of objects"):
        graphs(pixels, input_boxes=np.zeros((1, 2, 4)), input_points=np.zeros((1, 3, 1, 2)))
    with pytest.raises(ValueError, match="got input_labels alone"):
        graphs(pixels, input_labels=np.ones((1, 1, 1)))
    with pytest.raises(ValueError, match="got text_embeds alone"):
        graphs(pixels, text_embeds=np.zeros((1, 1, 24)))
    with pytest.raises(ValueError, match="encoder_size must be 56, which is fixed in these graphs, got 84"):
        graphs.get_image_embeddings(pixels, encoder_size=84)
    with pytest.raises(OSError, match=r"must contain image_encoder\.onnx"):
        OnnxFCLMForImageMatting.from_pretrained(tmp_path)


def test_graphs_are_found(onnx_folder: Path, tmp_path: Path) -> None:
    assert find_graphs(onnx_folder) == onnx_folder
    assert has_only_graphs(onnx_folder)
    repository = tmp_path / "repository"
    (repository / "onnx").mkdir(parents=True)
    for path in onnx_folder.iterdir():
        (repository / ("onnx" if path.suffix == ".onnx" else "") / path.name).symlink_to(path)
    assert find_graphs(repository) == repository / "onnx"
    assert not has_only_graphs(repository)
    assert OnnxFCLMForImageMatting.from_pretrained(repository).config.hidden_size == 32
    assert find_graphs(LITE_CHECKPOINT) is None


def test_runs_without_torch(onnx_folder: Path) -> None:
    code = f"""
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # every import of them fails
import numpy as np
from fclm_hf.onnx import OnnxFCLMForImageMatting
model = OnnxFCLMForImageMatting.from_pretrained({str(onnx_folder)!r})
embeddings = model.get_image_embeddings(np.zeros((1, 3, 64, 65), np.float32))
ids = np.array([[[55, 1, 56]]])
output = model(image_embeddings=embeddings, input_boxes=np.array([[[3, 4, 50, 60]]]), input_ids=ids)
assert output.alphas.shape == (1, 1, 64, 65) and output["alphas"].dtype == np.float32
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
