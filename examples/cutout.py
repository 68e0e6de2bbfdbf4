"""Cut an object out of a photo by its name and save it as a transparent PNG.

python examples/cutout.py
python examples/cutout.py dog.jpg --text dog --output dog.png
"""

import argparse
from pathlib import Path

from transformers import pipeline

from fclm_hf import LITE_CHECKPOINT


PHOTOS = Path(__file__).parent / "photos"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("image", nargs="?", default=str(PHOTOS / "cat.jpg"), help="path or URL of the photo")
parser.add_argument("--text", default="cat", help="name of the object to cut out")
parser.add_argument("--model", default=LITE_CHECKPOINT, help="checkpoint: Hub id or folder")
parser.add_argument("--output", default="cutout.png", help="PNG file to write")
args = parser.parse_args()

matting = pipeline("referring-matting", model=args.model)
result = matting(args.image, text=args.text)
result["cutout"].save(args.output)  # RGBA; result["alpha"] is the matte alone
print(f"Saved {args.output}")
