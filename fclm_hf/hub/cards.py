"""Model cards: the author's, or a short one generated from the checkpoint."""

import os
from pathlib import Path

import transformers
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.constants import REPOCARD_NAME

from ..modeling_fclm import FCLMForImageMatting


SUPPORTED_TRANSFORMERS = "transformers>=5.23,<6"
MARK = "<!-- Written by fclm_hf, which replaces this card. Delete this line to keep your changes. -->"
TEXT = """
{mark}
# FCLM, {task}

A checkpoint of FCLM ("Toward Real-World High-Precision Image Matting and Segmentation", AAAI 2026) for transformers. It
cuts out whatever you name, click or box in a photo, or, without a prompt, the most salient object, and returns a
full-resolution alpha matte. It has {size:.1f} million parameters; its image encoder is `{backbone}`.

Its training data, accuracy and limitations have not been documented yet.

## Use

```python
from transformers import AutoModelForImageMatting, AutoProcessor, pipeline

repo = "{repo}"
matting = pipeline("referring-matting", model=repo, trust_remote_code=True)
matting("photo.jpg", text="a cat")["cutout"].save("cat.png")
{masks}
model = AutoModelForImageMatting.from_pretrained(repo, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
```

To run only code that you have reviewed, pin its commit with `revision="..."`. If fclm_hf is installed, `import fclm_hf`
registers the same classes, and `trust_remote_code` is not needed.

## Requirements

```bash
pip install "{supported}" {packages}
```

It was saved with transformers {version}. Stay within this range: the code in this repository uses parts of transformers
that older releases lack and that a new major release may change.
"""
MASKS = 'matting("photo.jpg", input_masks="rough_mask_or_trimap.png")["cutout"].save("object.png")\n'


def make_card(model: FCLMForImageMatting, repo_id: str | None = None) -> str:
    """Make a short card that says what a checkpoint is and how to use it, without results.

    Args:
        model: The model.
        repo_id: The repository that the card names; by default a local folder.

    Returns:
        The text of the card, with its YAML header.
    """
    config = model.config
    backbone = getattr(config.backbone_config, "backbone", None) or config.backbone_config.model_type
    packages = ["torch", "pillow"]
    if config.backbone_config.model_type == "timm_backbone":
        packages += ["torchvision", "timm"]
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-segmentation",
        tags=["fclm", "image-matting", "referring-matting", "custom_code"],
    )
    body = TEXT.format(
        mark=MARK,
        masks=MASKS if config.dense_prompts else "",
        task=config.task,
        size=sum(parameter.numel() for parameter in model.parameters()) / 1e6,
        backbone=backbone,
        repo=repo_id or "path/to/this/folder",
        supported=SUPPORTED_TRANSFORMERS,
        packages=" ".join(packages),
        version=transformers.__version__,
    )
    return f"---\n{header.to_yaml()}\n---\n{body}"


def read_card(card: str | os.PathLike | ModelCard) -> str:
    """Return the text of a card.

    Args:
        card: The card, its text, or the path of its file as `Path`.

    Raises:
        ValueError: If there is no such file, or the YAML header of the card cannot be read.
    """
    if isinstance(card, os.PathLike):
        if not Path(card).is_file():
            raise ValueError(f"card must be a text or the path of a file, got {card}, which does not exist.")
        card = Path(card).read_text(encoding="utf-8")
    try:
        ModelCard(str(card))
    except Exception as error:  # raised by the YAML parser or about a field
        raise ValueError(f"card must have a valid YAML header: {error}") from error
    return str(card)


def find_card(folder: str | os.PathLike) -> str | None:
    """Return the card in a folder, or None if there is none or only one from [`make_card`]."""
    path = Path(folder) / REPOCARD_NAME
    if not path.is_file() or MARK in path.read_text(encoding="utf-8"):
        return None
    return read_card(path)
