"""Small checkpoints of the classes that the paper's models start from, as on the Hub."""

from pathlib import Path

import torch
from tiny_model import TINY_TEXT, tiny_teacher, tiny_tokenizer
from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model


DECODER = {"hidden_size": 32, "decoder_attention_heads": 2, "decoder_layers": 1, "encoder_size": 56}


def save_checkpoints(folder: Path) -> dict[str, str]:
    """Save a DINOv2, a CLIP with its tokenizer and a Depth Anything; return arguments of `load_preset`."""
    torch.manual_seed(2)
    dinov2 = Dinov2Config(image_size=28, hidden_size=32, num_hidden_layers=8, num_attention_heads=2, mlp_ratio=2)
    Dinov2Model(dinov2).save_pretrained(folder / "backbone")
    tokenizer = tiny_tokenizer()
    text = {key: value for key, value in TINY_TEXT.items() if key not in ("model_type", "projection_dim")}
    text = {**text, "vocab_size": len(tokenizer), "eos_token_id": 2, "bos_token_id": 0}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    clip = CLIPConfig(text_config=text, vision_config={**vision, "image_size": 32}, projection_dim=24)
    clip.text_config.projection_dim = 24
    CLIPModel(clip).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "text_encoder")
    tiny_teacher().save_pretrained(folder / "teacher")
    return {name: str(folder / name) for name in ("backbone", "text_encoder", "teacher")}
