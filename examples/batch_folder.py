"""Cut the most prominent object out of every photo of a folder, several photos at a time.

python examples/batch_folder.py
python examples/batch_folder.py my_photos --output_dir my_cutouts --batch_size 8
"""

import argparse
from pathlib import Path

from transformers import pipeline

from fclm_hf import LITE_CHECKPOINT


PHOTOS = Path(__file__).parent / "photos"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", nargs="?", type=Path, default=PHOTOS, help="folder of photos")
parser.add_argument("--output_dir", type=Path, default=Path("cutouts"), help="folder to write")
parser.add_argument("--batch_size", type=int, default=4, help="photos encoded at once")
args = parser.parse_args()

paths = sorted(path for path in args.folder.iterdir() if path.suffix.lower() in SUFFIXES)
args.output_dir.mkdir(parents=True, exist_ok=True)
matting = pipeline("referring-matting", model=LITE_CHECKPOINT)
# a generator keeps only one batch of results in memory; {"image": ..., "text": ...} adds a prompt to a photo
results = matting((str(path) for path in paths), batch_size=args.batch_size)
for path, result in zip(paths, results, strict=True):
    result["cutout"].save(args.output_dir / f"{path.stem}.png")
    print(f"Saved {args.output_dir / path.stem}.png")
