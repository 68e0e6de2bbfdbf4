"""`fclm train` and `examples/train_fclm.py`."""

import signal
import sys
from collections.abc import Sequence

from ..data import StreamError
from ..training.arguments import parse_arguments


def main(argv: Sequence[str], program: str = "fclm train") -> int:
    """Trains; what prevents it becomes one line. Returns the exit code: 130 or 143 after SIGINT or SIGTERM."""
    try:
        arguments = parse_arguments(argv, program)
        from ..training.hub_upload import UploadError
        from ..training.nonfinite import NonFiniteLossError
        from ..training.trainer import SaveError, Trainer

        trainer = Trainer(arguments)
    except (ImportError, OSError, StreamError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        return exit_code(trainer.train())
    except (NonFiniteLossError, OSError, SaveError, StreamError, UploadError) as error:
        print(error, file=sys.stderr)
        return 1


def exit_code(stop: int) -> int:
    """What a shell expects of a process that a signal stopped."""
    return 128 + stop if stop in (signal.SIGINT, signal.SIGTERM) else 0


__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
