"""Measures how many training pairs per second the stream makes; needs a training set and a minute.

    python benchmarks/stream_speed.py --data SET [--workers 1] [--size 320] [--batch-size 8] [--prompts-per-image 3]

SET is a folder as `research/build_training_set.py` writes it. Training does not wait for data if its steps take longer
than a batch takes here. On a busy machine, `--workers 0` shows the processor time per batch.
"""

import argparse
import time
from itertools import islice
from pathlib import Path

import cv2
from transformers import AutoTokenizer

import fclm_hf
from fclm_hf.data import (
    BatchSettings,
    CompositionSettings,
    PairSettings,
    SourceConfig,
    StreamLoader,
    TrainingStream,
    open_source,
)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--workers", type=int, default=1, help="worker processes, 0 for none")
    parser.add_argument("--size", type=int, default=320, help="side of an image in pixels")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--prompts-per-image", type=int, default=3)
    parser.add_argument("--batches", type=int, default=40, help="number of timed batches, after 4 to warm up")
    return parser.parse_args()


def main() -> None:
    """Time the batches and print their rate."""
    args = parse_arguments()
    cv2.setNumThreads(1)
    foregrounds, backgrounds = (open_source(SourceConfig(str(args.data), kind)) for kind in ("rgba", "background"))
    stream = TrainingStream(
        [foregrounds],
        [backgrounds],
        AutoTokenizer.from_pretrained(fclm_hf.LITE_CHECKPOINT),
        PairSettings(CompositionSettings(size=args.size)),
        BatchSettings(args.batch_size, args.prompts_per_image),
    )
    loader = StreamLoader(stream, args.workers)
    batches = iter(loader)
    list(islice(batches, 4))
    start, cpu_start = time.perf_counter(), time.process_time()
    list(islice(batches, args.batches))
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    print(f"{args.batches * args.batch_size / seconds:.1f} pairs per second, {seconds / args.batches:.2f} s per batch")
    if not args.workers:
        print(f"{cpu_seconds / args.batches:.2f} s of processor time per batch")
    print(loader.invalid_samples)


if __name__ == "__main__":
    main()
