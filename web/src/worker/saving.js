/** Files of the full size, made strip by strip: neither mattes nor colors of a large photo are held as a whole. */

import { estimateForeground } from "./foreground.js";
import { openPhoto } from "./photo.js";
import { PngWriter } from "./png.js";
import { fitSize, MapResizer } from "./resize.js";

const MODEL_SIZE = 2048; // longest edge of what the model sees, as in Python
const MATTE_ROWS = 256;
const DECODING_SHARE = 0.3; // of the progress bar

/** Return the colors, RGB, of a preview without those of the background. */
export function cleanColors({ pixels, height, width }, matte) {
  const colors = new Uint8Array(height * width * 3);
  const source = {
    height,
    width,
    readPixels: (top, bottom) => pixels.subarray(top * width * 4, bottom * width * 4),
    readAlpha: (top, bottom) => matte.subarray(top * width, bottom * width),
  };
  for (const strip of estimateForeground(source)) colors.set(strip.colors, strip.top * width * 3);
  return colors;
}

/**
 * Make a PNG of the size of the photo.
 *
 * The model runs once more if the preview is smaller than what it can see, which gives finer edges than an enlarged
 * preview.
 *
 * @param {object} job
 * @param {Model} job.model The model.
 * @param {object} job.current The photo, see `worker.js`.
 * @param {"cutout" | "matte"} job.kind What to write.
 * @param {Prompts[]} job.objects Prompts of the objects, in pixels of the preview.
 * @param {{ width: number, height: number }} job.preview Size of the preview.
 * @param {{ color?: string, picture?: Blob } | null} job.background What comes behind a cutout.
 * @param {(fraction: number) => void} onProgress Called with how much is done.
 * @returns {Promise<Blob>} The file.
 */
export async function saveFile({ model, current, kind, objects, preview, background }, onProgress) {
  const photo = await openPhoto(current.file);
  try {
    const { height, width } = photo;
    const alphas = await decodeLarge({ model, current, photo, objects, preview }, onProgress);
    const resizers = alphas.maps.map((map) => new MapResizer(map, [alphas.height, alphas.width], [height, width]));
    const isTransparent = current.background !== null;
    const readMatte = (top, bottom) => uniteRows(resizers, top, bottom);
    const readAlpha = isTransparent ? (top, bottom) => limitAlpha(readMatte, photo, top, bottom) : readMatte;
    const report = (rows) => onProgress(DECODING_SHARE + ((1 - DECODING_SHARE) * rows) / height);
    if (kind === "matte") return await writeMatte(readAlpha, height, width, report);
    // of a transparent photo, the colors are those of its visible part, of which alpha / opacity is foreground
    const readShare = isTransparent ? (top, bottom) => divideAlpha(readAlpha, photo, top, bottom) : readAlpha;
    return await writeCutout({ photo, readAlpha, readShare, background }, report);
  } finally {
    photo.close();
  }
}

/** Return the alphas of all objects at the largest size that the model can see. */
async function decodeLarge({ model, current, photo, objects, preview }, onProgress) {
  const [height, width] = fitSize([photo.height, photo.width], MODEL_SIZE);
  const isPreview = width === preview.width && height === preview.height;
  let { embeddings } = current;
  if (!isPreview) {
    photo.background = current.background;
    const pixels = photo.resize(height, width);
    photo.background = null;
    onProgress(0.05);
    embeddings = await model.encode({ pixels, height, width });
  }
  try {
    const maps = [];
    for (const prompts of objects) {
      onProgress(DECODING_SHARE * (0.5 + (0.5 * maps.length) / objects.length));
      const scaled = scalePrompts(prompts, width / preview.width, height / preview.height);
      maps.push(await model.decode(embeddings, scaled, await model.encodeText(prompts.text)));
    }
    return { maps, height, width };
  } finally {
    if (!isPreview) embeddings.dispose();
  }
}

function scalePrompts(prompts, scaleX, scaleY) {
  const { points, box } = prompts;
  return {
    ...prompts,
    points: points.map(({ x, y, label }) => ({ x: x * scaleX, y: y * scaleY, label })),
    box: box && [box[0] * scaleX, box[1] * scaleY, box[2] * scaleX, box[3] * scaleY],
  };
}

/** Return rows of the alpha of all objects together. */
function uniteRows(resizers, top, bottom) {
  const [alpha, ...others] = resizers.map((resizer) => resizer.readRows(top, bottom));
  for (const other of others) {
    for (let i = 0; i < alpha.length; i++) if (other[i] > alpha[i]) alpha[i] = other[i];
  }
  return alpha;
}

/** Return rows of an alpha, never above the opacity of the photo. */
function limitAlpha(readMatte, photo, top, bottom) {
  const alpha = readMatte(top, bottom);
  const pixels = photo.readRows(top, bottom);
  for (let i = 0; i < alpha.length; i++) alpha[i] = Math.min(alpha[i], pixels[4 * i + 3]);
  return alpha;
}

function divideAlpha(readAlpha, photo, top, bottom) {
  const alpha = readAlpha(top, bottom);
  const pixels = photo.readRows(top, bottom);
  for (let i = 0; i < alpha.length; i++) alpha[i] = Math.round((255 * alpha[i]) / Math.max(1, pixels[4 * i + 3]));
  return alpha;
}

async function writeMatte(readAlpha, height, width, report) {
  const png = new PngWriter(width, height, 1);
  for (let top = 0; top < height; top += MATTE_ROWS) {
    const bottom = Math.min(top + MATTE_ROWS, height);
    await png.writeRows(readAlpha(top, bottom));
    report(bottom);
  }
  return png.finish();
}

async function writeCutout({ photo, readAlpha, readShare, background }, report) {
  const { height, width } = photo;
  const behind = background && (await makeBackground(background, height, width));
  const png = new PngWriter(width, height, behind ? 3 : 4);
  const readPixels = (top, bottom) => photo.readRows(top, bottom);
  for (const { top, bottom, colors } of estimateForeground({ height, width, readPixels, readAlpha: readShare })) {
    const alpha = readAlpha(top, bottom);
    await png.writeRows(behind ? composite(colors, alpha, behind(top, bottom)) : addAlpha(colors, alpha));
    report(bottom);
  }
  return png.finish();
}

function addAlpha(colors, alpha) {
  const pixels = new Uint8Array(alpha.length * 4);
  for (let i = 0; i < alpha.length; i++) {
    pixels[4 * i] = colors[3 * i];
    pixels[4 * i + 1] = colors[3 * i + 1];
    pixels[4 * i + 2] = colors[3 * i + 2];
    pixels[4 * i + 3] = alpha[i];
  }
  return pixels;
}

/** Return colors over a background of RGBA pixels. */
function composite(colors, alpha, behind) {
  const pixels = new Uint8Array(colors.length);
  for (let i = 0; i < alpha.length; i++) {
    const weight = alpha[i];
    for (let c = 0; c < 3; c++) {
      const mixed = colors[3 * i + c] * weight + behind[4 * i + c] * (255 - weight);
      pixels[3 * i + c] = (mixed + 127) / 255;
    }
  }
  return pixels;
}

/** Return a function that reads rows of a color, or of a picture that covers the whole size. */
async function makeBackground({ color, picture }, height, width) {
  const image = picture && (await createImageBitmap(picture));
  const scale = image && Math.max(width / image.width, height / image.height);
  return (top, bottom) => {
    const context = new OffscreenCanvas(width, bottom - top).getContext("2d");
    context.fillStyle = color ?? "#ffffff";
    context.fillRect(0, 0, width, bottom - top);
    if (image) {
      context.imageSmoothingQuality = "high";
      const [left, above] = [(width - image.width * scale) / 2, (height - image.height * scale) / 2];
      context.drawImage(image, left, above - top, image.width * scale, image.height * scale);
    }
    return context.getImageData(0, 0, width, bottom - top).data;
  };
}
