"""Run the command line with `python -m fclm_hf`."""

from .cli.main import main


if __name__ == "__main__":
    main()
