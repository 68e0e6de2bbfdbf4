"""Model cards: the author's, or a short one from what the checkpoint itself tells."""

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
cuts out of a photo what is named, clicked or boxed, or, without a prompt, what stands out, and gives a full-resolution
alpha matte. It has {size:.1f} million parameters; its image encoder is `{backbone}`.

Its author has not described its training data, accuracy and limits yet.

## Use

```python
from transformers import AutoModelForImageMatting, AutoProcessor, pipeline

repo = "{repo}"
matting = pipeline("referring-matting", model=repo, trust_remote_code=True)
matting("photo.jpg", text="a cat")["cutout"].save("cat.png")

model = AutoModelForImageMatting.from_pretrained(repo, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(repo, trust_remote_code=True)
```

To keep to code that you have read, name its commit: `revision="..."`. After `import fclm_hf`, where that package is
installed, its classes are used instead, and `trust_remote_code` is not needed.

## Requirements

```bash
pip install "{supported}" {packages}
```

It was saved with transformers {version}. Keep to this range: the code in this repository uses parts of transformers
that older releases lack and that a new major release may change.
"""


def make_card(model: FCLMForImageMatting, repo_id: str | None = None) -> str:
    """Text of a card that says what the checkpoint is and how to use it, without results.

    Args:
        model: what the card is about.
        repo_id: the repository that it will be in. Default: a local folder.
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
    """Text of a card.

    Args:
        card: its text, or the path of its file as `Path`.

    Raises:
        ValueError: there is no such file, or the card's YAML header cannot be read.
    """
    if isinstance(card, os.PathLike):
        if not Path(card).is_file():
            raise ValueError(f"card: there is no file {card}.")
        card = Path(card).read_text(encoding="utf-8")
    try:
        ModelCard(str(card))
    except Exception as error:  # of the YAML parser, or about a field
        raise ValueError(f"card: its header cannot be read: {error}") from error
    return str(card)


def find_card(folder: str | os.PathLike) -> str | None:
    """The card in a folder, unless it is one from [`make_card`]."""
    path = Path(folder) / REPOCARD_NAME
    if not path.is_file() or MARK in path.read_text(encoding="utf-8"):
        return None
    return read_card(path)
