"""Break image files at random, many times, each within 5 seconds of CPU time and 1 GB: run by hand.

    PYTHONPATH=tests/helpers python tests/fuzz/fuzz_images.py --runs 100000
    PYTHONPATH=tests/helpers python tests/fuzz/fuzz_images.py --atheris -max_total_time=600  # pip install atheris

A file that breaks something is written to --keep, and the exit code is 1.
"""

import argparse
import collections
import faulthandler
import gc
import hashlib
import random
import signal
import sys
import warnings
from pathlib import Path
from types import FunctionType

from image_mutations import OPERATIONS, load_hostile_file, make_seeds, mutate
from limits import MEMORY, SECONDS, find_peak, find_time, limit_memory, stop


READERS = ("PIL", "fclm_hf.image_loading_fclm", "fclm_hf.image_utils_fclm")


def run_random(runs: int, seed: int, keep: Path) -> int:
    """Break `runs` files and return the number of those that did harm."""
    seeds = sorted(make_seeds().items())
    generator = random.Random(seed)
    load_hostile_file(seeds[0][1])  # what is loaded once does not count
    limit_memory(MEMORY)
    counts: collections.Counter[str] = collections.Counter()
    slowest, before, start = 0.0, find_peak(), find_time()
    for index in range(runs):
        name, data = generator.choice(seeds)
        changes = [
            (generator.choice(OPERATIONS), generator.random(), generator.getrandbits(32))
            for _ in range(generator.randint(1, 6))
        ]
        broken = mutate(data, changes, repair=generator.random() < 0.7)
        (keep / "current.img").write_bytes(broken)  # what is left if the process dies
        began = find_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
        try:
            counts["image" if load_hostile_file(broken) else "error"] += 1
        except BaseException as error:
            counts["harm"] += 1
            path = keep / f"{hashlib.sha256(broken).hexdigest()[:12]}-{name}"
            path.write_bytes(broken)
            print(f"{path}: {type(error).__name__}: {error}", flush=True)
            if isinstance(error, KeyboardInterrupt):
                break
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        slowest = max(slowest, find_time() - began)
        if (index + 1) % 10000 == 0 or index + 1 == runs:
            grown = (find_peak() - before) / 1e6
            print(
                f"{index + 1} files in {find_time() - start:.0f} s of CPU time: {dict(counts)},"
                f" slowest {slowest:.2f} s, memory grew by {grown:.0f} MB",
                flush=True,
            )
    (keep / "current.img").unlink(missing_ok=True)
    return counts["harm"]


def run_atheris(arguments: list[str], keep: Path) -> None:
    """Break files guided by the coverage of the Python code that reads them, without end unless `arguments` set one."""
    import atheris

    corpus = keep / "corpus"
    corpus.mkdir(exist_ok=True)
    for name, data in make_seeds().items():
        (corpus / name).write_bytes(data)
        load_hostile_file(data)  # imports what reads it
    read = [
        each
        for each in gc.get_objects()
        if isinstance(each, FunctionType) and (each.__module__ or "").startswith(READERS)
    ]
    for function in read:
        atheris.instrument_func(function)
    print(f"{len(read)} functions are instrumented, {len(list(corpus.iterdir()))} files are in {corpus}", flush=True)
    options = [f"-timeout={SECONDS}", "-rss_limit_mb=2048", "-max_len=20000", f"-artifact_prefix={keep}/"]
    atheris.Setup([sys.argv[0], *options, *arguments, str(corpus)], lambda data: load_hostile_file(data) and None)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz"))
    parser.add_argument("--atheris", action="store_true")
    options, rest = parser.parse_known_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    faulthandler.enable()
    signal.signal(signal.SIGVTALRM, stop)
    if options.atheris:
        run_atheris(rest, options.keep)
    elif rest:
        parser.error(f"unknown arguments {rest}")
    else:
        sys.exit(bool(run_random(options.runs, options.seed, options.keep)))
