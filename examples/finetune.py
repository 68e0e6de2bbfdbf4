"""Fine-tune a checkpoint on a folder of images and mattes with a plain PyTorch loop.

python examples/finetune.py [my_pairs] [--output_dir my_model] [--epochs 20]
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageMatting, AutoProcessor

from fclm_hf import LITE_CHECKPOINT


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("data", nargs="?", type=Path, default=Path(__file__).parent / "pairs", help="images/ and mattes/")
parser.add_argument("--output_dir", default="fclm-finetuned", help="folder for the new checkpoint")
parser.add_argument("--epochs", type=int, default=5)
args = parser.parse_args()
model = AutoModelForImageMatting.from_pretrained(LITE_CHECKPOINT).train()
processor = AutoProcessor.from_pretrained(LITE_CHECKPOINT)


def collate(paths: list[Path]) -> dict[str, torch.Tensor]:
    """Load images and mattes as one batch, with the bounding box of each matte as the prompt."""
    images = [Image.open(path) for path in paths]
    mattes = [Image.open(args.data / "mattes" / f"{path.stem}.png").convert("L") for path in paths]
    boxes = [[list(matte.getbbox())] for matte in mattes]  # image > object > (x0, y0, x1, y1)
    batch = processor(images=images, input_boxes=boxes, segmentation_maps=[[matte] for matte in mattes])
    return {key: batch[key] for key in ("pixel_values", "pixel_mask", "input_boxes", "labels")}


paths = sorted((args.data / "images").iterdir())
loader = torch.utils.data.DataLoader(paths, batch_size=2, shuffle=True, collate_fn=collate)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for epoch in range(args.epochs):
    total = 0.0
    for batch in loader:
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch + 1}: loss {total / len(loader):.4f}")
model.save_pretrained(args.output_dir)
processor.save_pretrained(args.output_dir)
