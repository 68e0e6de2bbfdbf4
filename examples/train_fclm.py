"""Train FCLM on streamed data sets with `accelerate launch`, the same as `fclm train`.

accelerate launch examples/train_fclm.py examples/train_lite.yaml --output_dir RUN
accelerate launch examples/train_fclm.py examples/train_lite.yaml --output_dir RUN --resume_from_checkpoint latest
"""

import sys

from fclm_hf.cli.train import main


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], program="train_fclm.py"))
