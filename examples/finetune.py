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
paths = sorted((args.data / "images").iterdir())
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for epoch in range(args.epochs):
    losses = []
    for batch in torch.randperm(len(paths)).split(2):
        images = [Image.open(paths[index]) for index in batch]
        mattes = [Image.open(args.data / "mattes" / f"{paths[index].stem}.png").convert("L") for index in batch]
        boxes = [[list(matte.getbbox())] for matte in mattes]  # image > object > (x0, y0, x1, y1)
        inputs = processor(images=images, input_boxes=boxes, segmentation_maps=[[matte] for matte in mattes])
        del inputs["original_sizes"]  # for resizing the result, which the loss does not need
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    print(f"epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}")
model.save_pretrained(args.output_dir)
processor.save_pretrained(args.output_dir)
