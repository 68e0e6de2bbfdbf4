"""Size and speed of FCLM on this machine's CPU, next to its bare encoder and to the models it competes with.

    python benchmarks/benchmark.py [--sections encoder peers cached memory lite metrics training]
                                 [--repeats 5] [--threads N]

All models have random weights, which cost the same time as trained ones. Runs that are compared alternate, and a ratio
is the median of the ratios within one round, so that a busy machine slows both sides. Sections:

encoder  FCLM with DINOv2-Small, encoder and detail path both at full size, against the bare encoder
peers    FCLM with `encoder_size=518` against transformers' ViTMatte-Small (which also needs a trimap) and against
         SAM-Base from a box + ViTMatte-Small
cached   each further prompt and each further object on `image_embeddings`, as a share of the first full run
memory   peak resident memory of one large photo from pixels to matte, in a process of its own
lite     the lite preset against FCLM with DINOv2-Small at full size
metrics  Conn, Grad and IMQ against straightforward implementations (benchmark_metrics.py)
training the whole FCLM training step against its bare parts, and the transport loss's share (benchmark_training.py)

The last line of the output is JSON. Verdicts are given at the sizes the bounds are stated for.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch


SECTIONS = ("encoder", "peers", "cached", "memory", "lite", "metrics", "training")
SIDE = 1024
PHOTO = (3840, 2160)
FURTHER = 5  # prompts or objects on a cached image that are timed together: one is too short to time well
Run = Callable[[], Any]


def fit_side(side: int, multiple: int) -> int:
    return side // multiple * multiple


class Bench:
    """Builds the models of one session once and times them; `rows` collects what is printed."""

    def __init__(self, side: int, repeats: int, dtype: torch.dtype) -> None:
        self.side, self.repeats, self.dtype = side, repeats, dtype
        self.rows: list[dict[str, Any]] = []
        self.fclm = cache(self.build_fclm)

    def build_fclm(self, preset: str, **overrides: Any) -> torch.nn.Module:
        from fclm_hf import FCLMConfig, FCLMForImageMatting

        torch.manual_seed(0)
        return FCLMForImageMatting(FCLMConfig.from_preset(preset, **overrides)).to(self.dtype).eval()

    def image(self, side: int, channels: int = 3) -> torch.Tensor:
        return torch.rand(1, channels, side, side).to(self.dtype) * 2 - 1

    def boxes(self, side: int, objects: int = 1) -> torch.Tensor:
        corners = torch.tensor([0.2, 0.25, 0.75, 0.8]) * side
        shifts = torch.arange(objects)[:, None] * side * 0.02
        return (corners + shifts)[None]

    def time_rounds(self, runs: dict[str, Run]) -> dict[str, list[float]]:
        """Seconds of each run in every round, after one warm-up; every other round goes backwards."""
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for name, run in runs.items():
            print(f"  warming up {name}", file=sys.stderr)
            run()
        for index in range(self.repeats):
            names = list(runs) if index % 2 == 0 else list(runs)[::-1]
            for name in names:
                start = time.perf_counter()
                runs[name]()
                seconds[name].append(time.perf_counter() - start)
        return seconds

    def record(
        self,
        section: str,
        figure: str,
        value: float | None,
        bound: float,
        unit: str,
        note: str,
        at_most: bool = True,
    ) -> None:
        """Add a row; a `value` of None is a measurement that failed."""
        holds = value is not None and (value <= bound if at_most else value >= bound)
        self.rows.append(
            {
                "section": section,
                "figure": figure,
                "value": value,
                "unit": unit,
                "bound": bound,
                "at_most": at_most,
                "pass": holds,
                "note": note,
            }
        )


def divide(above: list[float], below: list[float]) -> float:
    return median(a / b for a, b in zip(above, below, strict=True))


def describe_seconds(**seconds: list[float]) -> str:
    return ", ".join(f"{name} {median(values) * 1000:.0f} ms" for name, values in seconds.items())


def measure_encoder(bench: Bench) -> None:
    model = bench.fclm("matting-small", encoder_size=None)
    side = fit_side(bench.side, 14)
    image, boxes = bench.image(side), bench.boxes(side)
    seconds = bench.time_rounds(
        {
            "encoder": lambda: model.model.backbone(image),
            "fclm": lambda: model(pixel_values=image, input_boxes=boxes),
        }
    )
    figure = f"FCLM DINOv2-Small / its bare encoder, {side} px"
    note = describe_seconds(**seconds)
    bench.record("encoder", figure, divide(seconds["fclm"], seconds["encoder"]), 1.25, "x", note)


def build_vitmatte_small() -> torch.nn.Module:
    """The architecture of hustvl/vitmatte-small-composition-1k; transformers' default VitMatteConfig is another one."""
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
    from transformers import SamConfig, SamModel

    config = SamConfig(
        vision_config={"image_size": side},
        prompt_encoder_config={"image_size": side, "image_embedding_size": side // 16},
    )
    return SamModel(config)


def measure_peers(bench: Bench) -> None:
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
    for figure, slower, bound in (
        ("ViTMatte-Small", seconds["vitmatte"], 7),
        ("SAM-Base + ViTMatte-Small", both, 18),
    ):
        figure = f"{figure} / FCLM DINOv2-Small at 518, {side} px"
        bench.record("peers", figure, divide(slower, seconds["fclm"]), bound, "x", note, at_most=False)


def measure_cached(bench: Bench) -> None:
    cases = {
        "DINOv2-Small": ("matting-small", {"encoder_size": None}, 14),
        "DINOv2-Small at 518": ("matting-small", {"encoder_size": 518}, 32),
        "lite": ("lite", {}, 32),
    }
    for name, (preset, overrides, multiple) in cases.items():
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
            bench.record("cached", f"further {what} / first run, {name}, {side} px", share, 5, "%", note)


def measure_lite(bench: Bench) -> None:
    lite, small = bench.fclm("lite"), bench.fclm("matting-small", encoder_size=None)
    lite_side, small_side = fit_side(bench.side, 32), fit_side(bench.side, 14)
    lite_inputs = {"pixel_values": bench.image(lite_side), "input_boxes": bench.boxes(lite_side)}
    small_inputs = {"pixel_values": bench.image(small_side), "input_boxes": bench.boxes(small_side)}
    seconds = bench.time_rounds({"lite": lambda: lite(**lite_inputs), "small": lambda: small(**small_inputs)})
    figure = f"lite, {lite_side} px / FCLM DINOv2-Small, {small_side} px"
    note = describe_seconds(**seconds)
    bench.record("lite", figure, divide(seconds["lite"], seconds["small"]), 0.1, "x", note)


def peak_gigabytes() -> float:
    """Highest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # not ru_maxrss: on Linux a child starts with the peak of the process that started it
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e9 / 1024)


def run_memory_worker(job: dict[str, Any]) -> None:
    """One photo from pixels to matte; prints the peak before and after as JSON."""
    from PIL import Image

    from fclm_hf import FCLMConfig, FCLMForImageMatting, FCLMImageProcessor

    torch.set_num_threads(job["threads"])
    size = {"size": {"longest_edge": job["longest_edge"]}} if job["longest_edge"] else {}
    processor = FCLMImageProcessor(**size)
    model = FCLMForImageMatting(FCLMConfig.from_preset(job["preset"]))
    model = model.to(getattr(torch, job["dtype"])).eval()
    width, height = job["photo"]
    photo = Image.effect_noise((width, height), 64).convert("RGB")
    before = peak_gigabytes()
    with torch.inference_mode():
        inputs = processor(images=photo, return_tensors="pt")
        rows, columns = inputs["pixel_values"].shape[-2:]
        boxes = torch.tensor([[[0.2 * columns, 0.2 * rows, 0.8 * columns, 0.8 * rows]]])
        outputs = model(
            pixel_values=inputs["pixel_values"].to(model.dtype), pixel_mask=inputs["pixel_mask"], input_boxes=boxes
        )
        alpha = processor.post_process_image_matting(outputs, target_sizes=[(height, width)])[0]["alpha"]
    result = {"before": before, "peak": peak_gigabytes(), "alpha": list(alpha.shape), "pixels": [rows, columns]}
    print(json.dumps(result))


def measure_memory(bench: Bench, photo: tuple[int, int]) -> None:
    for preset in ("matting-small", "lite"):
        for longest_edge in (None, max(photo)):
            job = {
                "preset": preset,
                "photo": photo,
                "longest_edge": longest_edge,
                "threads": torch.get_num_threads(),
                "dtype": str(bench.dtype).removeprefix("torch."),
            }
            print(f"  {preset}, longest_edge {longest_edge or 'default'}", file=sys.stderr)
            command = [sys.executable, os.path.abspath(__file__), "--memory-worker", json.dumps(job)]
            done = subprocess.run(command, capture_output=True, text=True)
            figure = f"peak memory, {preset}, {photo[0]} x {photo[1]} photo"
            if done.returncode:  # most likely killed for its memory; the other sections still count
                last = (done.stderr.strip().splitlines() or ["no message"])[-1]
                bench.record("memory", figure, None, 4, "GB", f"stopped with code {done.returncode}: {last}")
                continue
            result = json.loads(done.stdout.splitlines()[-1])
            rows, columns = result["pixels"]
            figure += f", model at {columns} x {rows}"
            note = f"{result['before']:.2f} GB of it before the photo (Python, libraries, weights)"
            bench.record("memory", figure, result["peak"], 4, "GB", note)


def print_rows(rows: list[dict[str, Any]], side: int, photo: tuple[int, int]) -> None:
    width = max(len(row["figure"]) for row in rows)
    print(f"{'figure':<{width}}  {'measured':>10}  {'promised':>12}  verdict  detail")
    for row in rows:
        promised = f"{'<=' if row['at_most'] else '>='} {row['bound']:g} {row['unit']}"
        comparable = photo == PHOTO if row["section"] == "memory" else side == SIDE
        verdict = ("pass" if row["pass"] else "FAIL") if comparable else "-"
        measured = "failed" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
        print(f"{row['figure']:<{width}}  {measured:>10}  {promised:>12}  {verdict:<7}  {row['note']}")


def parse_photo(value: str) -> tuple[int, int]:
    width, _, height = value.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{value!r} is not WIDTHxHEIGHT")
    return int(width), int(height)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    add("--repeats", type=int, default=5, help="rounds of alternating runs (default: 5)")
    add("--threads", type=int, help="threads of torch (default: torch's own choice)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--side", type=int, default=SIDE, help=f"side of the square images (default: {SIDE}); others give no verdict")
    add("--photo", type=parse_photo, default=PHOTO, metavar="WxH", help="photo of the memory section")
    add("--memory-worker", help=argparse.SUPPRESS)
    return parser


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.memory_worker:
        run_memory_worker(json.loads(args.memory_worker))
        return {}
    if args.repeats < 1 or args.side < 64 or (args.threads is not None and args.threads < 1):
        parser.error("--repeats and --threads must be at least 1, --side at least 64")
    if args.threads:
        torch.set_num_threads(args.threads)
    bench = Bench(args.side, args.repeats, getattr(torch, args.dtype))
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": args.dtype,
        "torch": torch.__version__,
        "repeats": args.repeats,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()), end="\n\n")
    measures = {"encoder": measure_encoder, "peers": measure_peers, "cached": measure_cached, "lite": measure_lite}
    with torch.inference_mode():
        for section in args.sections:
            print(f"section {section}", file=sys.stderr)
            if section == "memory":
                measure_memory(bench, args.photo)
            elif section == "metrics":
                from benchmark_metrics import measure_metrics

                measure_metrics(bench)
            elif section == "training":
                from benchmark_training import measure_training

                measure_training(bench)
            else:
                measures[section](bench)
    print_rows(bench.rows, args.side, args.photo)
    summary = {**machine, "side": args.side, "photo": list(args.photo), "rows": bench.rows}
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    main()
