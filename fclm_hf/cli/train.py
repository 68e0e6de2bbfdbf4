"""`fclm train`, also run by `examples/train_fclm.py`."""

import signal
import sys
from collections.abc import Sequence


def main(argv: Sequence[str], program: str = "fclm train") -> int:
    """Run `fclm train`; errors become a single line on standard error.

    Args:
        argv: The command line, without the name of the program.
        program: Name of the program in `--help`.

    Returns:
        The exit code: 130 or 143 after SIGINT or SIGTERM, 1 after an error.
    """
    from ..data import StreamError
    from ..training.command_line import parse_arguments

    try:
        arguments = parse_arguments(argv, program)
        from transformers.utils import logging

        logging.disable_progress_bar()  # those of loading and saving weights; ours counts steps
        from ..training.checkpointing import SaveError
        from ..training.hub_upload import UploadError
        from ..training.optimization import NonFiniteLossError
        from ..training.trainer import Trainer
        from ..utils.memory import keep_freed_memory

        trainer = Trainer(arguments)
        if trainer.accelerator.device.type == "cpu":
            keep_freed_memory()
    except (ImportError, OSError, StreamError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        return make_exit_code(trainer.train())
    except (NonFiniteLossError, OSError, SaveError, StreamError, UploadError) as error:
        print(error, file=sys.stderr)
        return 1


def make_exit_code(stop: int) -> int:
    """Return the exit code that a shell expects of a process stopped by the signal `stop`, or 0 for none."""
    return 128 + stop if stop in (signal.SIGINT, signal.SIGTERM) else 0


__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
