"""Prompt the model with a box, then with clicks, encoding the photo only once.

python examples/click_and_box.py --output_dir mattes
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoModelForImageMatting, AutoProcessor

from fclm_hf import LITE_CHECKPOINT


# nested as image > object (> point) > coordinates, in pixels of the photo
PROMPTS = {
    "box": {"input_boxes": [[[150, 20, 470, 330]]]},
    "click": {"input_points": [[[[300, 200]]]]},
    "clicks": {"input_points": [[[[300, 100], [180, 300], [480, 270]]]], "input_labels": [[[1, 0, 0]]]},  # 0: not this
}

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--output_dir", type=Path, default=Path(), help="folder for box.png, click.png and clicks.png")
args = parser.parse_args()
args.output_dir.mkdir(parents=True, exist_ok=True)

model = AutoModelForImageMatting.from_pretrained(LITE_CHECKPOINT).eval()
processor = AutoProcessor.from_pretrained(LITE_CHECKPOINT)
photo = Image.open(Path(__file__).parent / "photos" / "coffee.jpg")
with torch.inference_mode():
    image = processor(images=photo)
    embeddings = model.get_image_embeddings(image["pixel_values"], image["pixel_mask"])
    for name, prompt in PROMPTS.items():
        inputs = processor(images=photo, **prompt)
        outputs = model(image_embeddings=embeddings, **{key: inputs[key] for key in inputs if key.startswith("input_")})
        result = processor.post_process_image_matting(outputs, target_sizes=[(photo.height, photo.width)])[0]
        alpha = result["alpha"][0]  # (height, width) of the only object, in [0, 1]
        Image.fromarray((alpha * 255).round().byte().numpy()).save(args.output_dir / f"{name}.png")
        print(f"{name}: the object covers {alpha.mean():.1%} of the photo")
