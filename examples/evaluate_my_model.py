"""Measure a checkpoint on a folder of images and true mattes, prompted with the box of each matte.

`fclm evaluate` does the same for whole benchmarks, resumes after interruptions and knows the published protocols.

    python examples/evaluate_my_model.py
    python examples/evaluate_my_model.py my_pairs --model fclm-finetuned
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import pipeline

from fclm_hf import LITE_CHECKPOINT
from fclm_hf.metrics import MattingMetrics


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
default = Path(__file__).parent / "pairs"
parser.add_argument("data", nargs="?", type=Path, default=default, help="folder with images/ and mattes/")
parser.add_argument("--model", default=LITE_CHECKPOINT, help="checkpoint: Hub id or folder")
args = parser.parse_args()

matting = pipeline("referring-matting", model=args.model)
metrics = MattingMetrics()
for path in sorted((args.data / "images").iterdir()):
    matte = Image.open(args.data / "mattes" / f"{path.stem}.png").convert("L")
    result = matting(str(path), input_boxes=[list(matte.getbbox())], cutout=False)
    metrics.update(result["predicted_alpha"], np.asarray(matte, dtype=np.float32) / 255)
for name, value in metrics.compute().items():
    print(f"{name:<14} {value:.4f}")
