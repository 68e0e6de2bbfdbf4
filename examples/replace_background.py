"""Put a person into another photo, without a halo of the old background.

python examples/replace_background.py
"""

import argparse
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps
from transformers import pipeline

from fclm_hf import LITE_CHECKPOINT


PHOTOS = Path(__file__).parent / "photos"

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("image", nargs="?", default=str(PHOTOS / "astronaut.jpg"), help="photo with the object")
parser.add_argument("background", nargs="?", default=str(PHOTOS / "coffee.jpg"), help="new background")
parser.add_argument("--box", type=int, nargs=4, default=[20, 4, 380, 512], metavar=("X0", "Y0", "X1", "Y1"))
parser.add_argument("--output", default="composite.jpg", help="image file to write")
args = parser.parse_args()

matting = pipeline("referring-matting", model=LITE_CHECKPOINT)
cutout = matting(args.image, input_boxes=[args.box])["cutout"]  # edge pixels hold the colors of the object alone
background = ImageOps.fit(Image.open(args.background).convert("RGBA"), cutout.size)
background = background.filter(ImageFilter.GaussianBlur(4))  # looks out of focus
background.alpha_composite(cutout)
background.convert("RGB").save(args.output)
print(f"Saved {args.output}")
