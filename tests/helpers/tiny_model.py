"""Small random models, processors and tokenizers, built in memory."""

import string

import pytest
import torch
from transformers import CLIPTokenizer, DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from fclm_hf import FCLMConfig, FCLMForImageMatting, FCLMImageProcessorPil, FCLMProcessor


TINY_TEXT = {
    "model_type": "clip_text_model",
    "hidden_size": 32,
    "intermediate_size": 37,
    "projection_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 20,
}
TINY_DINOV2 = {
    "model_type": "dinov2",
    "image_size": 28,
    "patch_size": 14,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "mlp_ratio": 2,
    "out_features": ["stage1", "stage2"],
    "use_mask_token": False,
}
TINY_DECODER = {
    "encoder_size": 56,
    "hidden_size": 32,
    "fine_hidden_size": 16,
    "detail_hidden_sizes": [4, 6, 8, 10],
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 37,
    "semantic_head_size": 12,
}


def tiny_tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer with a small vocabulary."""
    letters = string.ascii_lowercase
    tokens = [*letters, *(letter + "</w>" for letter in letters), "lo", "low</w>", "er</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    merges = [("l", "o"), ("lo", "w</w>"), ("e", "r</w>")]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TINY_TEXT["max_position_embeddings"])


def tiny_config(**overrides) -> FCLMConfig:
    """Return the config of a tiny model."""
    tokenizer = tiny_tokenizer()
    text_config = {
        **TINY_TEXT,
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    fields = {"backbone_config": dict(TINY_DINOV2), "text_config": text_config, **TINY_DECODER}
    return FCLMConfig(**{**fields, **overrides})


def tiny_model(seed: int = 0, **overrides) -> FCLMForImageMatting:
    """Return a tiny model with random weights, in evaluation mode."""
    torch.manual_seed(seed)
    return FCLMForImageMatting(tiny_config(**overrides)).eval()


def tiny_backbone_model(kind: str) -> FCLMForImageMatting:
    """Return a tiny model with a backbone of the kind "dinov2", or "timm", without which the test is skipped."""
    if kind == "dinov2":
        return tiny_model()
    pytest.importorskip("timm")
    backbone = {"model_type": "timm_backbone", "backbone": "tf_efficientnet_lite0", "out_indices": [2, 3, 4]}
    return tiny_model(backbone_config=backbone, coarse_level=1, encoder_size=64, semantic_head_size=None)


def tiny_masked_model(seed: int = 0, **overrides) -> FCLMForImageMatting:
    """Return a tiny model whose mask prompts act, as if it had been trained."""
    model = tiny_model(seed, **overrides)
    for layer in model.model.prompt_encoder.get_mask_outputs():
        torch.nn.init.normal_(layer.weight, std=0.3)
    return model


def tiny_processor(**overrides) -> FCLMProcessor:
    """Return the processor of a tiny model."""
    return FCLMProcessor(FCLMImageProcessorPil(**overrides), tiny_tokenizer())


def tiny_teacher(seed: int = 1) -> DepthAnythingForDepthEstimation:
    """Return a Depth-Anything model with four layers, wider than the tiny student."""
    torch.manual_seed(seed)
    backbone = {**TINY_DINOV2, "hidden_size": 48, "num_hidden_layers": 4}
    backbone = {**backbone, "out_features": ["stage1", "stage2", "stage3", "stage4"], "reshape_hidden_states": False}
    del backbone["model_type"]
    model = DepthAnythingForDepthEstimation(
        DepthAnythingConfig(
            backbone_config=Dinov2Config(**backbone),
            reassemble_hidden_size=48,
            neck_hidden_sizes=[8, 8, 8, 8],
            fusion_hidden_size=8,
            head_hidden_size=4,
        )
    )
    for module in (*model.neck.modules(), *model.head.modules()):
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # like trained weights, these tell places apart
    torch.nn.init.ones_(model.head.conv3.bias)
    return model
