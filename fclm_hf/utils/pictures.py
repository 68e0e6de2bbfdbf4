"""Pictures made of cutouts."""

from PIL import Image, ImageOps


def place_on_background(cutout: Image.Image, background: Image.Image) -> Image.Image:
    """Return an RGB picture of a cutout over a background that is cropped and resized to its size.

    Args:
        cutout: RGBA picture; its color profile is kept.
        background: Picture of any size; one pixel is a plain color.

    Example:
        >>> from PIL import Image
        >>> from fclm_hf.utils.pictures import place_on_background
        >>> cutout = Image.new("RGBA", (4, 3), (255, 0, 0, 0))
        >>> place_on_background(cutout, Image.new("RGB", (1, 1), "navy")).getpixel((0, 0))
        (0, 0, 128)
    """
    fitted = ImageOps.fit(background, cutout.size).convert("RGBA")
    picture = Image.alpha_composite(fitted, cutout).convert("RGB")
    picture.info = dict(cutout.info)
    return picture
