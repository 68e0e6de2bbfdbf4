"""Compares a training step of the lite recipe with its bare parts, and shows where its time goes.

    python benchmarks/step_speed.py [--size 320] [--pairs 4] [--prompts 2] [--rounds 5] [--threads 1] [--profile 12]
                                    [--compile]

The parts are the encoder, the rest of the student up to the loss of its head, both forward and backward on A and B in
one batch, and AdamW. The step adds the objective of `examples/train_lite.yaml`, clipping, and averaged weights. They
alternate, and the ratio is the median of those within a round. `--compile` also times the step with compiled modules.
"""

import argparse
import copy
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from accelerate import Accelerator
from bench import Bench, divide

from fclm_hf import FCLMConfig, FCLMForImageMatting
from fclm_hf.training import ForegroundConsistentLearner, TrainingSettings, make_optimizer
from fclm_hf.training.optimization import average_weights, compile_modules, freeze_unused, take_step
from fclm_hf.utils.memory import keep_freed_memory


TEXT_LENGTH = 8


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=320, help="side of images and encoder input in pixels")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=2, help="prompts per pair")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", type=int, default=0, help="number of operations to list, slowest first")
    parser.add_argument("--compile", action="store_true")
    return parser.parse_args(argv)


def make_batch(args: argparse.Namespace) -> dict[str, Any]:
    """Return pairs of noise with one object each, which fills a third of the image, and prompts of every kind."""
    side, shape = args.size, (args.pairs, args.prompts)
    labels = torch.zeros(*shape, side, side)
    labels[..., side // 4 : side * 4 // 5, side // 5 : side * 3 // 4] = 1
    return {
        "pixel_values_a": torch.rand(args.pairs, 3, side, side) * 2 - 1,
        "pixel_values_b": torch.rand(args.pairs, 3, side, side) * 2 - 1,
        "labels": labels,
        "input_points": torch.full((*shape, 1, 2), side / 2),
        "input_labels": torch.ones(*shape, 1, dtype=torch.long),
        "input_boxes": torch.tensor([0.2, 0.25, 0.75, 0.8]).mul(side).expand(*shape, 4),
        "input_ids": torch.ones(*shape, TEXT_LENGTH, dtype=torch.long),
        "attention_mask": torch.ones(*shape, TEXT_LENGTH, dtype=torch.long),
        "sample_keys": [[] for _ in range(args.pairs)],
    }


def make_step(
    student: FCLMForImageMatting, batch: dict[str, Any], accelerator: Accelerator
) -> tuple[Callable[[], Any], ForegroundConsistentLearner, Any]:
    """Return a function that takes a step, its learner and its optimizer."""
    learner = ForegroundConsistentLearner(student.train(), settings=TrainingSettings(distillation="none"))
    freeze_unused(learner)
    optimizer = accelerator.prepare(make_optimizer(learner))
    averaged = average_weights(student, 0.998)

    def run() -> None:
        take_step(accelerator, learner, optimizer, [batch], max_grad_norm=1.0)
        averaged.update_parameters(student)

    return run, learner, optimizer


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print and return the results."""
    args = parse_arguments(argv)
    keep_freed_memory()  # as fclm train does
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    student = FCLMForImageMatting(FCLMConfig.from_preset("lite", encoder_size=args.size)).to(
        memory_format=torch.channels_last
    )
    batch, accelerator = make_batch(args), Accelerator(cpu=True)
    other = copy.deepcopy(student)
    run_step, learner, optimizer = make_step(student, batch, accelerator)
    trained = [each for each in learner.parameters() if each.requires_grad]
    made = [torch.randn_like(each) for each in trained]
    images = torch.cat([batch["pixel_values_a"], batch["pixel_values_b"]]).contiguous(memory_format=torch.channels_last)
    names = ("labels", "input_points", "input_labels", "input_boxes", "input_ids", "attention_mask")
    inputs = {name: torch.cat([batch[name]] * 2) for name in names}
    with torch.no_grad():
        maps = student.model.backbone(images).feature_maps
    gradients = [torch.randn_like(level) for level in maps]
    maps = [level.requires_grad_() for level in maps]

    def run_encoder() -> None:
        torch.autograd.backward(student.model.backbone(images).feature_maps, gradients)

    def run_decoder() -> None:
        embeddings = student.get_image_embeddings(images, feature_maps=maps)
        student(image_embeddings=embeddings, **inputs).loss.backward()

    def run_optimizer() -> None:
        for parameter, gradient in zip(trained, made, strict=True):
            parameter.grad = gradient
        optimizer.step()

    runs = {"encoder": run_encoder, "decoder": run_decoder, "optimizer": run_optimizer, "step": run_step}
    if args.compile:
        compile_modules(other, "inductor")
        runs["compiled"], *_ = make_step(other, batch, accelerator)
    seconds = Bench(args.size, args.rounds, torch.float32).time_rounds(runs)
    parts = [sum(each) for each in zip(*(seconds[name] for name in ("encoder", "decoder", "optimizer")), strict=True)]
    results = {"step / parts": divide(seconds["step"], parts)}
    print(", ".join(f"{name} {1000 * median(each):.0f} ms" for name, each in seconds.items()))
    print(f"step / its bare parts: {results['step / parts']:.3f}")
    if args.compile:
        results["compile"] = divide(seconds["step"], seconds["compiled"])
        print(f"compiled: {results['compile']:.2f} times as fast")
    if args.profile:
        with torch.profiler.profile() as profiler:
            run_step()
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=args.profile))
    return results


if __name__ == "__main__":
    main()
