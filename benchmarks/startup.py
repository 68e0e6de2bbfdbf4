"""Start-up time of `fclm --help`, `fclm --version` and `import fclm_hf`, as a ratio to `python -c "import typer"`.

    python benchmarks/startup.py [--runs 5]

Takes a few seconds. Each command runs once to warm up, then the commands take turns, and the median of each counts.
"""

import argparse
import statistics
import subprocess
import sys
import time


REFERENCE = ("-c", "import typer")
COMMANDS = {
    "fclm --help": ("-m", "fclm_hf.cli", "--help"),
    "fclm --version": ("-m", "fclm_hf.cli", "--version"),
    "import fclm_hf": ("-c", "import fclm_hf"),
}


def time_command(words: tuple[str, ...]) -> float:
    """Return the wall-clock time in seconds that Python takes with these arguments."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)  # noqa: S603 - the commands above
    return time.perf_counter() - start


def main() -> None:
    """Print the median time of each command and its ratio to that of the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="runs of each command (default: 5)")
    runs = parser.parse_args().runs
    commands = {'python -c "import typer"': REFERENCE, **COMMANDS}
    times: dict[str, list[float]] = {name: [] for name in commands}
    for words in commands.values():
        time_command(words)
    for _ in range(runs):
        for name, words in commands.items():
            times[name].append(time_command(words))
    medians = {name: statistics.median(values) for name, values in times.items()}
    reference = next(iter(medians.values()))
    for name, seconds in medians.items():
        print(f"{name:<26}{seconds:7.3f} s  ratio {seconds / reference:.2f}")


if __name__ == "__main__":
    main()
