"""Compares the time of a training step of FCLM with that of its parts; run by benchmark.py.

The teacher has the architecture of Depth-Anything-V2-Small, the smallest one.
"""

from statistics import median
from typing import Any

import torch
from bench import Bench, divide


SIDE = 518  # of images and encoder, for a Bench of side 1024
PATCH = 14
BATCH = 4  # pairs
TEXT_LENGTH = 8


def build_learner(bench: Bench, side: int) -> torch.nn.Module:
    """Return the paper's matting student at `encoder_size` side, a teacher, and all losses."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    from fclm_hf.training import ForegroundConsistentLearner

    backbone = Dinov2Config(
        hidden_size=384,
        num_attention_heads=6,
        image_size=SIDE,
        patch_size=PATCH,
        out_indices=[3, 6, 9, 12],
        apply_layernorm=True,
        reshape_hidden_states=False,
    )
    teacher = DepthAnythingForDepthEstimation(DepthAnythingConfig(backbone_config=backbone, reassemble_hidden_size=384))
    # not from the cache of the Bench, because models that were built under inference_mode have no gradients
    student = bench.build_fclm("matting-small", encoder_size=side)
    return ForegroundConsistentLearner(student, teacher).to(bench.dtype).train()


def make_batch(bench: Bench, side: int) -> dict[str, torch.Tensor]:
    """Return pairs with one object each and a prompt of every kind; the object fills a third of the image."""
    labels = torch.zeros(BATCH, 1, side, side)
    labels[..., side // 4 : side * 4 // 5, side // 5 : side * 3 // 4] = 1
    images = [torch.cat([bench.image(side) for _ in range(BATCH)]) for _ in "ab"]
    return {
        "pixel_values_a": images[0],
        "pixel_values_b": images[1],
        "labels": labels,
        "input_points": torch.full((BATCH, 1, 1, 2), side / 2),
        "input_labels": torch.ones(BATCH, 1, 1, dtype=torch.long),
        "input_boxes": bench.boxes(side).expand(BATCH, 1, 4),
        "input_ids": torch.ones(BATCH, 1, TEXT_LENGTH, dtype=torch.long),
        "attention_mask": torch.ones(BATCH, 1, TEXT_LENGTH, dtype=torch.long),
    }


def time_training(bench: Bench, side: int) -> dict[str, list[float]]:
    """Return the seconds of a whole step, its bare parts, and the transport loss with every token in the foreground.

    The parts are the encoder alone, the teacher alone, and the rest of the student from given feature maps up to the
    loss of its head: all on A and B in one batch, as in the step.
    """
    from fclm_hf.training import foreground_transport_loss

    learner, batch = build_learner(bench, side), make_batch(bench, side)
    student, teacher = learner.student, learner.teacher.model
    images = torch.cat([batch["pixel_values_a"], batch["pixel_values_b"]])
    inputs = {name: torch.cat([value] * 2) for name, value in batch.items() if "pixel_values" not in name}
    with torch.no_grad():
        maps = student.model.backbone(images).feature_maps
    gradients = [torch.randn_like(level) for level in maps]
    maps = [level.requires_grad_() for level in maps]
    tokens = [level.flatten(2).mT.detach().requires_grad_() for level in maps[-1].chunk(2)]
    foreground = torch.ones(tokens[0].shape[:2], dtype=torch.bool)

    def run_encoder() -> None:
        torch.autograd.backward(student.model.backbone(images).feature_maps, gradients)

    @torch.no_grad()
    def run_teacher() -> None:
        teacher(images)

    def run_decoder() -> None:
        embeddings = student.get_image_embeddings(images, feature_maps=maps)
        student(image_embeddings=embeddings, **inputs).loss.backward()

    def run_step() -> None:
        learner(batch)["loss"].backward()

    def run_transport() -> None:
        foreground_transport_loss(*tokens, foreground).backward()

    def clear_before(run: Any) -> Any:
        def clear_and_run() -> None:
            learner.zero_grad()
            for tensor in (*maps, *tokens):
                tensor.grad = None
            run()

        return clear_and_run

    runs = {
        "encoder": run_encoder,
        "teacher": run_teacher,
        "decoder": run_decoder,
        "step": run_step,
        "transport": run_transport,
    }
    return bench.time_rounds({name: clear_before(run) for name, run in runs.items()})


def measure_training(bench: Bench) -> None:
    """Compare the step with the sum of its parts, and the transport loss with the step."""
    side = SIDE * bench.side // 1024 // PATCH * PATCH
    with torch.inference_mode(False), torch.enable_grad():
        seconds = time_training(bench, side)
    parts = [sum(values) for values in zip(*(seconds[name] for name in ("encoder", "teacher", "decoder")), strict=True)]
    overhead = divide(seconds["step"], parts)
    share = 100 * divide(seconds["transport"], seconds["step"])
    note = f"batch {BATCH}, " + ", ".join(f"{name} {1000 * median(each):.0f} ms" for name, each in seconds.items())
    bench.record("training", f"FCLM step / its bare parts, DINOv2-Small, {side} px", overhead, 1.15, "x", note)
    label = f"transport loss / FCLM step, K = {(side // PATCH) ** 2} tokens, {side} px"
    bench.record("training", label, share, 3, "%", note)
