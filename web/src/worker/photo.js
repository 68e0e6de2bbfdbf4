/** Photos as pixels, read in strips so that a large one is never in memory twice. */

import { resizeStrips } from "./resize.js";

const MAX_PIXELS = 100e6;
const STRIP_ROWS = 128; // that of the foreground estimator, which reads a few rows more

/**
 * Decode a photo, upright.
 *
 * @param {Blob} file Image file.
 * @returns {Promise<Photo>} The photo; call its `close`.
 */
export async function openPhoto(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file); // upright by default, and not every browser knows the option
  } catch {
    throw new Error("This file cannot be read as a photo. JPEG, PNG, WebP and AVIF work in every current browser.");
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    const megapixels = Math.round((bitmap.width * bitmap.height) / 1e6);
    bitmap.close();
    throw new Error(`The photo has ${megapixels} megapixels. The limit is ${MAX_PIXELS / 1e6}.`);
  }
  return new Photo(bitmap);
}

/** A decoded photo whose rows can be read. */
export class Photo {
  /** @param {ImageBitmap} bitmap Decoded photo, which the new object owns. */
  constructor(bitmap) {
    this.bitmap = bitmap;
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.canvas = new OffscreenCanvas(this.width, 1);
    this.background = null;
  }

  /**
   * Return rows of RGBA pixels; a transparent photo comes over its `background` if that is set.
   *
   * @param {number} top First row.
   * @param {number} bottom Row after the last one.
   */
  readRows(top, bottom) {
    const rows = bottom - top;
    if (this.canvas.height !== rows) this.canvas.height = rows;
    this.context ??= this.canvas.getContext("2d", { willReadFrequently: true });
    const { context, width } = this;
    context.clearRect(0, 0, width, rows);
    if (this.background) {
      context.fillStyle = this.background;
      context.fillRect(0, 0, width, rows);
    }
    context.drawImage(this.bitmap, 0, top, width, rows, 0, 0, width, rows);
    return context.getImageData(0, 0, width, rows).data;
  }

  /** Return RGBA pixels of another size, made with the filter that the model was trained on. */
  resize(height, width) {
    return resizeStrips(
      (top, bottom) => this.readRows(top, bottom),
      [this.height, this.width],
      [height, width],
      4,
      "triangle",
      STRIP_ROWS,
    );
  }

  /** Free the memory of the photo. */
  close() {
    this.bitmap.close();
  }
}

/**
 * Return the color that the visible part of a transparent image stands out from most, or null for an opaque image.
 *
 * @param {Uint8ClampedArray} pixels RGBA pixels.
 */
export function chooseBackground(pixels) {
  if (isOpaque(pixels)) return null;
  let visible = 0;
  const contrast = BACKGROUNDS.map(() => 0);
  for (let i = 0; i < pixels.length; i += 4) {
    const weight = pixels[i + 3] / 255;
    visible += weight;
    for (const [k, [r, g, b]] of BACKGROUNDS.entries()) {
      const distance = Math.hypot(pixels[i] - r, pixels[i + 1] - g, pixels[i + 2] - b);
      contrast[k] += weight * Math.min(1, distance / ENOUGH_CONTRAST);
    }
  }
  let best = 0;
  for (const k of BACKGROUNDS.keys()) {
    if (contrast[k] > contrast[best] + CLEARLY_MORE * visible) best = k;
  }
  return `rgb(${BACKGROUNDS[best].join(" ")})`;
}

function isOpaque(pixels) {
  for (let i = 3; i < pixels.length; i += 4) if (pixels[i] < 255) return false;
  return true;
}

const BACKGROUNDS = [[255, 255, 255], [0, 0, 0], [128, 128, 128], [0, 177, 64], [0, 71, 187], [255, 0, 255]]; // prettier-ignore
const ENOUGH_CONTRAST = 96;
const CLEARLY_MORE = 0.025;
