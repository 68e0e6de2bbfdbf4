"""Break prompts and the files of checkpoints at random, each within 5 seconds of CPU time and 1 GB: run by hand.

    PYTHONPATH=tests/helpers python tests/fuzz/fuzz_checkpoints.py --runs 20000

What breaks something is printed with the seed that makes it again (--seed N --runs 1), and the exit code is 1.
"""

import argparse
import collections
import faulthandler
import random
import signal
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

from checkpoint_mutations import KINDS, HostileCheckpoint
from limits import MEMORY, SECONDS, find_peak, find_time, limit_memory, stop
from transformers.utils import logging


def run(runs: int, seed: int, kinds: list[str], folder: Path) -> int:
    """Break `runs` prompts and files and return the number of those that did harm."""
    checkpoint = HostileCheckpoint(folder)
    limit_memory(MEMORY)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    slowest, before, start = 0.0, find_peak(), find_time()
    for index in range(seed, seed + runs):
        kind = kinds[index % len(kinds)]
        began = find_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            counts[kind][checkpoint.try_one(kind, random.Random(index))] += 1
        except KeyboardInterrupt:
            break
        except BaseException as error:
            counts[kind]["harm"] += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            told = f"{type(error).__name__}: {str(error)[:300]} ({place.filename}:{place.lineno})"
            print(f"seed {index}, {kind}: {told}", flush=True)
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        slowest = max(slowest, find_time() - began)
        if (index + 1 - seed) % 500 == 0 or index + 1 == seed + runs:
            print(
                f"{index + 1 - seed} in {find_time() - start:.0f} s of CPU time:"
                f" { {kind: dict(each) for kind, each in counts.items()} }, slowest {slowest:.2f} s,"
                f" memory grew by {(find_peak() - before) / 1e6:.0f} MB",
                flush=True,
            )
    return sum(each["harm"] for each in counts.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity(logging.CRITICAL)
    logging.get_logger("fclm_hf").setLevel(logging.CRITICAL)
    logging.disable_progress_bar()
    faulthandler.enable()
    signal.signal(signal.SIGVTALRM, stop)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(bool(run(options.runs, options.seed, options.kinds, Path(temporary))))
