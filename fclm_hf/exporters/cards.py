"""Model cards of exported checkpoints."""

from huggingface_hub import ModelCardData


ONNX_TEXT = """
# FCLM in ONNX: {name}

Prompted image matting without PyTorch: `image_encoder.onnx` runs once per image, `text_encoder.onnx` once per text,
and `prompt_decoder.onnx` once per prompt; `mask_encoder.onnx` adds a mask prompt to the maps of an image. Batch,
height, width, objects, points and the length of texts are dynamic.

```python
from transformers import pipeline

from fclm_hf import FCLMProcessor
from fclm_hf.onnx import OnnxFCLMForImageMatting

model = OnnxFCLMForImageMatting.from_pretrained("{name}")
matting = pipeline("referring-matting", model=model, processor=FCLMProcessor.from_pretrained("{name}"))
matting("photo.jpg", input_boxes=[40, 20, 300, 280])["cutout"].save("cutout.png")
```

Without torch, and so without the processor, the model takes arrays:

```python
import numpy as np
from PIL import Image

photo = np.asarray(Image.open("photo.jpg").convert("RGB"), np.float32)
pixel_values = photo.transpose(2, 0, 1)[None] / 127.5 - 1  # mean and standard deviation 0.5, see processor_config.json
embeddings = model.get_image_embeddings(pixel_values)
boxes = np.array([[[40, 20, 300, 280]]], np.float32)
alpha = model(image_embeddings=embeddings, input_boxes=boxes).alphas[0, 0]  # (height, width) in [0, 1]
```
"""
PROGRAM_TEXT = """
# FCLM as torch.export programs: {name}

`image_encoder.pt2` runs once per image, `text_encoder.pt2` once per text, and `prompt_decoder.pt2` once per prompt;
`mask_encoder.pt2` adds a mask prompt to the maps of an image. Batch, height, width, objects, points and the length of
texts are dynamic. Load them with `torch.export.load(path).module(check_guards=False)`, or with
`torch._inductor.aoti_load_package` if compiled.
"""


def make_export_card(name: str, suffix: str) -> str:
    """Return the card of an exported checkpoint.

    Args:
        name: Name of the folder.
        suffix: Suffix of the parts, ".onnx" or ".pt2".
    """
    is_onnx = suffix == ".onnx"
    header = ModelCardData(
        library_name="onnx" if is_onnx else "pytorch",
        pipeline_tag="image-segmentation",
        tags=["fclm", "image-matting", "referring-matting", suffix.removeprefix(".")],
    )
    body = (ONNX_TEXT if is_onnx else PROGRAM_TEXT).format(name=name)
    return f"---\n{header.to_yaml()}\n---\n{body}"
