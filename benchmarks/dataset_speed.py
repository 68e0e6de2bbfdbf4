"""Measures photos per second of `fclm matte-dataset`: as a share of the bare model in a loop, and with two processes.

    python benchmarks/dataset_speed.py [--photos 32] [--size 1024x768] [--rounds 5] [--cores 0 1]

The bare model gets inputs that are in memory already and looks at them as often; a run also reads and decodes JPEG,
resizes mattes, and writes PNG and Parquet. Both use one thread, and alternate, so that a busy machine slows down both.
Scaling starts one process per core and needs as many idle cores as `--cores` names; without them it is left out.
"""

import argparse
import multiprocessing
import os
import socket
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from fclm_hf.bulk import BulkOptions, PhotoMatter, matte_dataset
from fclm_hf.data import SourceConfig


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=32, help="number of photos")
    parser.add_argument("--size", default="1024x768", help="width x height of a photo")
    parser.add_argument("--model", help="checkpoint; fclm-lite by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="threads that load and encode")
    parser.add_argument("--cores", type=int, nargs="*", default=[], help="cores to measure scaling on, such as 0 1")
    return parser.parse_args(argv)


def write_photos(folder: Path, count: int, size: str) -> SourceConfig:
    """Write photos with the noise and the soft shapes of a camera's, and return them as a source."""
    width, height = map(int, size.split("x"))
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
        noise = rng.normal(0, 4, (height, width, 3))
        pixels = (np.asarray(shapes) + noise).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=92)
    return SourceConfig(str(folder), "photo")


def time_bare(matter: PhotoMatter, inputs: list[dict[str, Any]]) -> float:
    """Return the seconds of the model alone, with its closer looks, one photo after the other."""
    start = time.perf_counter()
    for each in inputs:
        matter.pipe.forward(each)
    return time.perf_counter() - start


def time_run(matter: PhotoMatter, options: BulkOptions) -> float:
    """Return the seconds of a run after the model is loaded."""
    start = time.perf_counter()
    matte_dataset(options, matter=matter)
    return time.perf_counter() - start


def measure_share(source: SourceConfig, args: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Return photos per second of both, and the median of their ratios within a round."""
    settings = {"model": args.model, "threads": 1, "device": "cpu", "workers": args.workers}
    matter = PhotoMatter(BulkOptions(source, folder / "warm-up", **settings), base=source.path)
    photos = sorted(Path(source.path).iterdir())
    inputs = [matter.pipe.preprocess(photo) for photo in photos]
    time_bare(matter, inputs[:2])
    bare, whole = [], []
    for number in range(args.rounds):
        for name in ("bare", "whole") if number % 2 else ("whole", "bare"):
            if name == "bare":
                bare.append(time_bare(matter, inputs))
            else:
                whole.append(time_run(matter, BulkOptions(source, folder / f"round-{number}", **settings)))
    return {
        "bare": len(photos) / median(bare),
        "matte-dataset": len(photos) / median(whole),
        "share": median(a / b for a, b in zip(bare, whole, strict=True)),
    }


def run_on_core(options: BulkOptions, rank: int, cores: list[int], port: int, moments: Any) -> None:
    """Take part in a run on one core; send the moment of each photo."""
    os.sched_setaffinity(0, {cores[rank]})
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": len(cores), "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true")
    seen: list[float] = []
    matte_dataset(options, lambda count: seen.extend([time.monotonic()] * count))
    moments.put(seen)


def measure_rate(source: SourceConfig, args: argparse.Namespace, folder: Path, cores: list[int]) -> float:
    """Return photos per second of one process per core, while all of them have work."""
    options = BulkOptions(source, folder, model=args.model, threads=1, device="cpu", workers=1, rows_per_shard=4)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    moments = context.Queue()
    processes = [
        context.Process(target=run_on_core, args=(options, rank, cores, port, moments)) for rank in range(len(cores))
    ]
    for process in processes:
        process.start()
    seen = [moments.get() for _ in processes]
    for process in processes:
        process.join()
    start, end = max(each[0] for each in seen), min(each[-1] for each in seen)
    return sum(start < moment <= end for each in seen for moment in each) / (end - start)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Print and return the results."""
    args = parse_arguments(argv)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        source = write_photos(folder / "photos", args.photos, args.size)
        results = measure_share(source, args, folder)
        print(f"{results['bare']:.2f} photos per second: the bare model in a loop")
        print(f"{results['matte-dataset']:.2f} photos per second: matte-dataset, {results['share']:.0%} of the loop")
        if args.cores:
            one = measure_rate(source, args, folder / "one", args.cores[:1])
            several = measure_rate(source, args, folder / "several", args.cores)
            results["scaling"] = several / one
            print(f"{results['scaling']:.2f} times as fast with {len(args.cores)} processes on a core each")
    return results


if __name__ == "__main__":
    main()
