"""Draws the picture of the README from examples/photos with the embedded checkpoint; takes seconds on a CPU.

python research/make_readme_picture.py [OUTPUT]
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw
from transformers import pipeline

import fclm_hf


HEIGHT = 260
PHOTOS = Path(__file__).parents[1] / "examples" / "photos"
PROMPTS: dict[str, dict] = {
    "cat": {"text": "cat"},
    "astronaut": {"input_boxes": [[10, 4, 384, 512]]},
    "coffee": {"input_points": [[300, 200], [420, 330]]},
}


def mark_prompt(photo: Image.Image, prompt: dict) -> Image.Image:
    """Return a copy of the photo with its prompt drawn on it."""
    photo = photo.copy()
    draw = ImageDraw.Draw(photo)
    width = photo.height // 100 + 1
    for box in prompt.get("input_boxes", ()):
        draw.rectangle(box, outline="red", width=width)
    for x, y in prompt.get("input_points", ()):
        draw.ellipse((x - 3 * width, y - 3 * width, x + 3 * width, y + 3 * width), fill="lime", outline="black")
    if "text" in prompt:
        draw.text((10, 10), f'"{prompt["text"]}"', fill="white", stroke_width=2, stroke_fill="black", font_size=32)
    return photo


def main() -> None:
    """Write the picture: photos, mattes and cutouts on a new background."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=PHOTOS / "overview.jpg")
    output = parser.parse_args().output
    matte = pipeline("referring-matting", model=fclm_hf.LITE_CHECKPOINT)
    columns = []
    for name, prompt in PROMPTS.items():
        photo = Image.open(PHOTOS / f"{name}.jpg")
        result = matte(photo, **prompt)
        backdrop = Image.new("RGBA", photo.size, (70, 140, 200, 255))
        backdrop.alpha_composite(result["cutout"])
        rows = [mark_prompt(photo, prompt), result["alpha"], backdrop]
        width = round(photo.width * HEIGHT / photo.height)
        columns.append([row.convert("RGB").resize((width, HEIGHT), Image.Resampling.LANCZOS) for row in rows])
    sheet = Image.new("RGB", (sum(column[0].width for column in columns), 3 * HEIGHT))
    left = 0
    for column in columns:
        for index, tile in enumerate(column):
            sheet.paste(tile, (left, index * HEIGHT))
        left += column[0].width
    sheet.save(output, quality=90)
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
