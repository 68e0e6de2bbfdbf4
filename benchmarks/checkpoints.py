"""Size, time and memory of checkpoints, and of a network without prompts in ONNX format, on one photo of 1,024 pixels.

    python benchmarks/checkpoints.py CHECKPOINT [CHECKPOINT ...] [--onnx FILE] [--photo PHOTO] [--rounds 5]

Each mattes the photo from pixels to alpha, the checkpoints by a box. They take turns in one process, with one thread;
times are CPU seconds, which other processes lengthen less than wall-clock time, and the ratio to the first checkpoint
is the median of those within a round. The peak memory is what a process of its own needs beyond what it held with the
model loaded. An ONNX network gets the photo at 1,024 x 1,024 (`--onnx-side`), as (pixel - 128) / 256, which is what
IS-Net takes; it needs onnxruntime and onnx.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmark_memory import PHOTO, peak_gigabytes
from PIL import Image


Matte = Callable[[Image.Image], np.ndarray]
SIDE = 1024
THIRD = 1 / 3


def open_checkpoint(source: str) -> Matte:
    """Return a function that mattes the middle third of a photo, prompted by a box."""
    from transformers import pipeline

    import fclm_hf  # noqa: F401  registers the pipeline

    matting = pipeline("referring-matting", model=source)

    def matte(photo: Image.Image) -> np.ndarray:
        box = [photo.width * THIRD, photo.height * THIRD, photo.width * 2 * THIRD, photo.height * 2 * THIRD]
        return matting(photo, input_boxes=[box], cutout=False)["predicted_alpha"].numpy()

    return matte


def open_onnx(source: str, side: int) -> Matte:
    """Return a function that mattes what stands out in a photo."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def matte(photo: Image.Image) -> np.ndarray:
        pixels = np.asarray(photo.resize((side, side), Image.Resampling.BILINEAR), np.float32)
        alpha = session.run(None, {name: ((pixels - 128) / 256).transpose(2, 0, 1)[None]})[0].squeeze()
        return np.asarray(Image.fromarray(alpha.astype(np.float32)).resize(photo.size, Image.Resampling.BILINEAR))

    return matte


def open_method(source: str, side: int) -> Matte:
    """Return the function of a checkpoint or an ONNX file."""
    return open_onnx(source, side) if source.endswith(".onnx") else open_checkpoint(source)


def describe_size(source: str) -> tuple[float, float]:
    """Return the parameters in millions and the size of the weights in MB."""
    if source.endswith(".onnx"):
        import onnx

        weights = onnx.load(source).graph.initializer
        return sum(float(np.prod(each.dims)) for each in weights) / 1e6, Path(source).stat().st_size / 1e6
    from fclm_hf import FCLMForImageMatting

    count = sum(parameter.numel() for parameter in FCLMForImageMatting.from_pretrained(source).parameters())
    return count / 1e6, sum(path.stat().st_size for path in Path(source).glob("*.safetensors")) / 1e6


def measure_memory(source: str, photo: Path, side: int) -> float:
    """Return the peak memory in GB of matting the photo, beyond that of the loaded model, in a process of its own."""
    words = [sys.executable, str(Path(__file__).resolve()), "--worker", source, "--photo", str(photo)]
    words += ["--onnx-side", str(side)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603 this file
    return json.loads(done.stdout.splitlines()[-1])


def time_methods(methods: dict[str, Matte], photo: Image.Image, rounds: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each method in every round, after one warm-up; every other round runs in reverse."""
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for matte in methods.values():
        matte(photo)
    for index in range(rounds):
        for name in list(methods)[:: 1 if index % 2 == 0 else -1]:
            start = time.process_time()
            methods[name](photo)
            seconds[name].append(time.process_time() - start)
    return seconds


def read_photo(path: Path) -> Image.Image:
    """Return a photo with a longer side of 1,024 pixels."""
    photo = Image.open(path).convert("RGB")
    scale = SIDE / max(photo.size)
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)


def run_worker(source: str, photo: Image.Image, side: int) -> None:
    """Print the peak memory of a method as the last line."""
    matte = open_method(source, side)
    before = peak_gigabytes()
    matte(photo)
    print(json.dumps(peak_gigabytes() - before))


def main(argv: list[str] | None = None) -> None:
    """Print a table of all methods, and its values as JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="folders or Hub ids; the first one is what others compare with")
    parser.add_argument("--onnx", action="append", default=[], help="ONNX file of a network without prompts")
    parser.add_argument("--onnx-side", type=int, default=SIDE, help=f"side of its input (default: {SIDE})")
    parser.add_argument("--photo", type=Path, default=PHOTO)
    parser.add_argument("--rounds", type=int, default=5, help="rounds in which the methods take turns (default: 5)")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    photo = read_photo(args.photo)
    if args.worker:
        run_worker(args.worker, photo, args.onnx_side)
        return
    sources = [*args.checkpoints, *args.onnx]
    if not sources:
        parser.error("name at least one checkpoint or --onnx file")
    seconds = time_methods({source: open_method(source, args.onnx_side) for source in sources}, photo, args.rounds)
    rows = []
    for source in sources:
        parameters, megabytes = describe_size(source)
        ratios = [own / first for own, first in zip(seconds[source], seconds[sources[0]], strict=True)]
        rows.append(
            {
                "method": source,
                "parameters": round(parameters, 2),
                "megabytes": round(megabytes, 1),
                "cpu_seconds": round(statistics.median(seconds[source]), 3),
                "ratio": round(statistics.median(ratios), 2),
                "peak_gigabytes": round(measure_memory(source, args.photo, args.onnx_side), 2),
            }
        )
    print(f"{'M parameters':>12}  {'MB':>6}  {'CPU s':>7}  {'ratio':>6}  {'peak GB':>7}  method")
    for row in rows:
        values = f"{row['parameters']:12.2f}  {row['megabytes']:6.1f}  {row['cpu_seconds']:7.3f}  {row['ratio']:6.2f}"
        print(f"{values}  {row['peak_gigabytes']:7.2f}  {row['method']}")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
