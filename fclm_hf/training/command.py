"""`fclm train` and `examples/train_fclm.py`."""

import sys
from collections.abc import Sequence

from ..data import StreamError
from .arguments import parse_arguments


def main(argv: Sequence[str], program: str = "fclm train") -> int:
    """Trains; what prevents it becomes one line. Returns the exit code: 130 or 143 after SIGINT or SIGTERM."""
    try:
        arguments = parse_arguments(argv, program)
        from .loop import NonFiniteLossError, Trainer, exit_code

        trainer = Trainer(arguments)
    except (ImportError, OSError, StreamError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    try:
        return exit_code(trainer.train())
    except (NonFiniteLossError, StreamError) as error:
        print(error, file=sys.stderr)
        return 1


__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
