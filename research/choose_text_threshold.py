"""Choose config.text_score_threshold by how well names match real photos, those that are there and those that are not.

    python research/choose_text_threshold.py --data DATA --model CHECKPOINT [--photos 300] [--lost 0.05]

DATA holds real/, whose photos the weights were trained on; the photos for measuring are not used. The script prints the
share of absent names that each loss of present names buys, and the threshold that loses the wanted share. The model
reads the names of COCO alone; names that it does not know well score lower.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from photo_samples import VOC, PhotoTable, decode, pick_absent

from fclm_hf import FCLMForImageMatting, FCLMProcessor


@torch.inference_mode()
def score_names(
    model: FCLMForImageMatting, processor: FCLMProcessor, image: np.ndarray, names: list[str]
) -> list[float]:
    """Return the text score of each name in an image."""
    inputs = processor(images=image, text=[names], input_data_format="channels_last")
    return model(**{name: value for name, value in inputs.items() if name != "original_sizes"}).text_scores[0].tolist()


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--lost", type=float, default=0.05, help="share of the present names that may be lost")
    args = parser.parse_args()
    model = FCLMForImageMatting.from_pretrained(args.model, dtype=torch.float32).eval()
    processor = FCLMProcessor.from_pretrained(args.model)
    table, rng = PhotoTable(args.data / "real"), np.random.default_rng(0)
    present, absent = [], []
    while args.photos:
        row = table.sample(rng)
        there = sorted({name for name, alone in zip(row["names"], row["unique"], strict=True) if alone})
        if not row["complete"] or not there:
            continue
        args.photos -= 1
        known = table.names if row["source"] == "coco2017" else VOC
        other = [pick_absent(known, set(row["names"]), rng) for _ in range(2)]
        scores = score_names(model, processor, decode(row["image"]["bytes"]), [*there, *other])
        present += scores[: len(there)]
        absent += scores[len(there) :]
    print(f"{len(present)} names that are there, {len(absent)} that are not")
    for lost in (0.01, 0.02, 0.05, 0.1, 0.2, args.lost):
        threshold = float(np.quantile(present, lost))
        print(f"threshold {threshold:.3f}: loses {lost:.0%}, leaves out {np.mean(np.array(absent) < threshold):.1%}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
