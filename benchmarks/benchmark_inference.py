"""Compares the speed of a forward pass with the encoder alone and with peers; run by benchmark.py."""

import torch
from bench import Bench, describe_seconds, divide, fit_side


FURTHER = 5  # prompts or objects on a cached image that are timed together, as a single one is too fast to time


def measure_encoder(bench: Bench) -> None:
    """Compare FCLM at full size with its bare encoder."""
    model = bench.fclm("matting-small", encoder_size=None)
    side = fit_side(bench.side, 14)
    image, boxes = bench.image(side), bench.boxes(side)
    seconds = bench.time_rounds(
        {
            "encoder": lambda: model.model.backbone(image),
            "fclm": lambda: model(pixel_values=image, input_boxes=boxes),
        }
    )
    label = f"FCLM DINOv2-Small / its bare encoder, {side} px"
    note = describe_seconds(**seconds)
    bench.record("encoder", label, divide(seconds["fclm"], seconds["encoder"]), 1.25, "x", note)


def build_vitmatte_small() -> torch.nn.Module:
    """Return the architecture of hustvl/vitmatte-small-composition-1k, which is not transformers' default."""
    from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting

    global_blocks = [2, 5, 8, 11]
    backbone = VitDetConfig(
        hidden_size=384,
        num_attention_heads=6,
        num_channels=4,
        image_size=512,
        window_size=14,
        window_block_indices=[block for block in range(12) if block not in global_blocks],
        residual_block_indices=global_blocks,
        use_relative_position_embeddings=True,
        out_features=["stage12"],
    )
    # the defaults of these two are tuples in some releases, which the model cannot concatenate to a list
    sizes = {"convstream_hidden_sizes": [48, 96, 192], "fusion_hidden_sizes": [256, 128, 64, 32]}
    return VitMatteForImageMatting(VitMatteConfig(backbone_config=backbone, hidden_size=384, **sizes))


def build_sam_base(side: int) -> torch.nn.Module:
    """Return SAM-Base for square images of `side` pixels."""
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={"image_size": side},
        prompt_encoder_config={"image_size": side, "image_embedding_size": side // 16},
    )
    return SamModel(config)


def measure_peers(bench: Bench) -> None:
    """Compare FCLM with ViTMatte, alone and with the SAM that makes its trimap."""
    side = fit_side(bench.side, 32)
    fclm = bench.fclm("matting-small", encoder_size=518)
    vitmatte = build_vitmatte_small().to(bench.dtype).eval()
    sam = build_sam_base(side).to(bench.dtype).eval()
    image, with_trimap, boxes = bench.image(side), bench.image(side, channels=4), bench.boxes(side)
    seconds = bench.time_rounds(
        {
            "fclm": lambda: fclm(pixel_values=image, input_boxes=boxes),
            "vitmatte": lambda: vitmatte(pixel_values=with_trimap),
            "sam": lambda: sam(pixel_values=image, input_boxes=boxes.to(bench.dtype), multimask_output=False),
        }
    )
    both = [a + b for a, b in zip(seconds["sam"], seconds["vitmatte"], strict=True)]
    note = describe_seconds(**seconds)
    for label, slower, bound in (
        ("ViTMatte-Small", seconds["vitmatte"], 7),
        ("SAM-Base + ViTMatte-Small", both, 18),
    ):
        label = f"{label} / FCLM DINOv2-Small at 518, {side} px"
        bench.record("peers", label, divide(slower, seconds["fclm"]), bound, "x", note, at_most=False)


def measure_cached(bench: Bench) -> None:
    """Measure further prompts and objects on an encoded image as a share of the first full run."""
    cases = {
        "DINOv2-Small": ("matting-small", {"encoder_size": None}, 14, 5),
        "DINOv2-Small at 518": ("matting-small", {"encoder_size": 518}, 32, 5),
        "lite": ("lite", {}, 32, 15),
    }
    for name, (preset, overrides, multiple, bound) in cases.items():
        model = bench.fclm(preset, **overrides)
        side = fit_side(bench.side, multiple)
        image, one, several = bench.image(side), bench.boxes(side), bench.boxes(side, 1 + FURTHER)
        embeddings = model.get_image_embeddings(image)

        def full(model=model, image=image, one=one) -> None:
            model(pixel_values=image, input_boxes=one)

        def prompts(model=model, embeddings=embeddings, one=one) -> None:
            for _ in range(FURTHER):
                model(image_embeddings=embeddings, input_boxes=one)

        def objects(model=model, embeddings=embeddings, several=several) -> None:
            model(image_embeddings=embeddings, input_boxes=several)

        def first_object(model=model, embeddings=embeddings, one=one) -> None:
            model(image_embeddings=embeddings, input_boxes=one)

        seconds = bench.time_rounds({"full": full, "prompts": prompts, "objects": objects, "first": first_object})
        per_prompt = [value / FURTHER for value in seconds["prompts"]]
        per_object = [(a - b) / FURTHER for a, b in zip(seconds["objects"], seconds["first"], strict=True)]
        for what, values in (("prompt", per_prompt), ("object", per_object)):
            note = describe_seconds(first=seconds["full"], **{f"further_{what}": values})
            share = 100 * divide(values, seconds["full"])
            bench.record("cached", f"further {what} / first run, {name}, {side} px", share, bound, "%", note)


def measure_lite(bench: Bench) -> None:
    """Compare the lite preset with FCLM at full size."""
    lite, small = bench.fclm("lite"), bench.fclm("matting-small", encoder_size=None)
    lite_side, small_side = fit_side(bench.side, 32), fit_side(bench.side, 14)
    lite_inputs = {"pixel_values": bench.image(lite_side), "input_boxes": bench.boxes(lite_side)}
    small_inputs = {"pixel_values": bench.image(small_side), "input_boxes": bench.boxes(small_side)}
    seconds = bench.time_rounds({"lite": lambda: lite(**lite_inputs), "small": lambda: small(**small_inputs)})
    label = f"lite, {lite_side} px / FCLM DINOv2-Small, {small_side} px"
    note = describe_seconds(**seconds)
    bench.record("lite", label, divide(seconds["lite"], seconds["small"]), 0.1, "x", note)
