"""Compares the speed and memory of FCLM with those of its parts and of its peers; needs an idle CPU and minutes.

    python benchmarks/benchmark.py [--sections encoder peers cached memory lite onnx metrics training]
                                   [--repeats 5] [--threads N] [--graph u2netp.onnx --graph isnet.onnx]

All models but those of the section onnx have random weights, which take the same time as trained ones. Compared runs
alternate, and each ratio is the median of the ratios within a round, so that a busy machine slows down both sides.
README.md describes the comparisons and bounds of each section. The last line of the output is JSON. Verdicts are given
only at the sizes that the bounds apply to.
"""

import argparse
import json
import os
import platform
import sys
from typing import Any

import torch
from bench import Bench
from benchmark_inference import measure_cached, measure_encoder, measure_lite, measure_peers
from benchmark_memory import measure_memory
from benchmark_metrics import measure_metrics
from benchmark_onnx import measure_onnx
from benchmark_training import measure_training


MEASURES = {
    "encoder": measure_encoder,
    "peers": measure_peers,
    "cached": measure_cached,
    "memory": measure_memory,
    "lite": measure_lite,
    "onnx": measure_onnx,
    "metrics": measure_metrics,
    "training": measure_training,
}
SIDE = 1024
PHOTO = (3840, 2160)


def print_rows(rows: list[dict[str, Any]], side: int, photo: tuple[int, int]) -> None:
    """Print a line per result, with a verdict at the sizes that the bounds apply to."""
    width = max(len(row["label"]) for row in rows)
    print(f"{'measurement':<{width}}  {'measured':>10}  {'bound':>12}  verdict  detail")
    for row in rows:
        promised = "" if row["bound"] is None else f"{'<=' if row['at_most'] else '>='} {row['bound']:g} {row['unit']}"
        comparable = photo == PHOTO if row["section"] == "memory" else side == SIDE
        verdict = ("pass" if row["pass"] else "FAIL") if comparable and promised else "-"
        measured = "failed" if row["value"] is None else f"{row['value']:.3g} {row['unit']}"
        print(f"{row['label']:<{width}}  {measured:>10}  {promised:>12}  {verdict:<7}  {row['note']}")


def parse_photo(value: str) -> tuple[int, int]:
    """Return the width and height of "WIDTHxHEIGHT"."""
    width, _, height = value.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise argparse.ArgumentTypeError(f"{value!r} is not WIDTHxHEIGHT")
    return int(width), int(height)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sections", nargs="+", choices=MEASURES, default=list(MEASURES))
    add("--repeats", type=int, default=5, help="rounds of alternating runs (default: 5)")
    add("--threads", type=int, help="threads of torch (default: torch's own choice)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32")
    add("--side", type=int, default=SIDE, help=f"side of the square images (default: {SIDE}); others give no verdict")
    add(
        "--graph", action="append", default=[], metavar="FILE", help="ONNX network without prompts, beside section onnx"
    )
    add("--exports", metavar="FOLDER", help="folder of section onnx for its exports, which are used again")
    add("--photo", type=parse_photo, default=PHOTO, metavar="WxH", help="photo of the memory section")
    return parser


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the command line; return the summary that the last line of the output holds."""
    parser = build_parser()
    args = parser.parse_args(argv)
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
    with torch.inference_mode():
        for section in args.sections:
            print(f"section {section}", file=sys.stderr)
            options = {"memory": (args.photo,), "onnx": (args.graph, args.exports)}.get(section, ())
            MEASURES[section](bench, *options)
    print_rows(bench.rows, args.side, args.photo)
    summary = {**machine, "side": args.side, "photo": list(args.photo), "rows": bench.rows}
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    main()
