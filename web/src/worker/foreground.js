/**
 * Estimation of foreground colors, so that no halo of the old background shows on a new one.
 *
 * A port of `fclm_hf/foreground_estimation_fclm.py`; `estimate_foreground` in `fclm_hf/foreground_fclm.py` explains the
 * method. Planes are Float32Arrays in [0, 1], one after the other: 3 colors of the foreground, 3 of the background, and
 * the trust in the line between them.
 */

import { resizeStrips } from "./resize.js";

const ALPHA_TOLERANCE = 0.05;
const REGULARIZATION = 0.1;
const RELIABILITY = 1e-2;
const NOISE = 2e-4;
const DEAD_ZONE = 0.05;
const WHOLE_SIZE = 256;
const STORED_SIZE = 2048;
const TILE = 96;
const STEP = 16;
const HALO = 3;
const ITERATIONS = 3;
const COARSE_ITERATIONS = 4;
const COARSEST = 32;
const OPAQUE = 1 - 1 / 512;
const INVISIBLE = 0.01;
const EDGE = 0.03;
const OFF_LINE = 20;
const LAYERS = 7;

/**
 * Estimate the colors of the foreground and hand them out in strips from top to bottom.
 *
 * @param {object} source Where pixels come from, so that nothing of full size needs to be in memory.
 * @param {number} source.height Height in pixels.
 * @param {number} source.width Width in pixels.
 * @param {(top: number, bottom: number) => Uint8ClampedArray} source.readPixels Returns rows of RGBA pixels, of which
 *   the opacity does not count.
 * @param {(top: number, bottom: number) => Uint8Array} source.readAlpha Returns rows of the alpha.
 * @yields {{ top: number, bottom: number, colors: Uint8Array, alpha: Uint8Array }} Rows `top` to `bottom`: RGB colors
 *   and alpha.
 */
export function* estimateForeground(source) {
  const { height, width, readPixels, readAlpha } = source;
  const sizes = findSizes(height, width);
  const coarse = sizes.slice(0, -1);
  if (!coarse.length) {
    const pixels = splitPlanes(readPixels(0, height), height * width);
    const alpha = readAlpha(0, height);
    const whole = estimateWhole(pixels, toFloats(alpha), height, width);
    const colors = new Uint8Array(height * width * 3);
    writeColors(colors, { pixels, layers: whole.layers, opacity: whole.opacity, height, width }, 0, 0, height, width, width);
    yield { top: 0, bottom: height, colors, alpha };
    return;
  }
  const [storedHeight, storedWidth] = coarse.at(-1);
  const stored = {
    pixels: splitPlanes(resizeStrips(readPixels, [height, width], coarse.at(-1), 4, "box", 256, TILE), storedHeight * storedWidth),
    opacity: toFloats(resizeStrips(readAlpha, [height, width], coarse.at(-1), 1, "box", 256, TILE)),
  };
  const shrink = ([toHeight, toWidth]) => ({
    pixels: averageAreas(stored.pixels, 3, storedHeight, storedWidth, toHeight, toWidth),
    opacity: averageAreas(stored.opacity, 1, storedHeight, storedWidth, toHeight, toWidth),
  });
  let [coarseHeight, coarseWidth] = coarse[0];
  const first = shrink(coarse[0]);
  let { layers } = estimateWhole(first.pixels, first.opacity, coarseHeight, coarseWidth);
  for (const [toHeight, toWidth] of coarse.slice(1)) {
    const level = shrink([toHeight, toWidth]);
    const count = toHeight * toWidth;
    const opacity = level.opacity.map((value) => (value < OPAQUE ? value : 1));
    const finer = new Float32Array(LAYERS * count);
    const readLevel = (top, bottom) => cropRows(level.pixels, 3, count, toWidth, top, bottom);
    const readOpacity = (top, bottom) => opacity.subarray(top * toWidth, bottom * toWidth);
    for (const tile of refine(layers, [coarseHeight, coarseWidth], [toHeight, toWidth], readLevel, readOpacity, true)) {
      copyTile(tile, finer, count, toWidth);
    }
    layers = finer;
    [coarseHeight, coarseWidth] = [toHeight, toWidth];
  }
  const readFull = (top, bottom) => splitPlanes(readPixels(top, bottom), (bottom - top) * width);
  const readOpacity = (top, bottom) => toFloats(readAlpha(top, bottom));
  let colors = null;
  for (const tile of refine(layers, [coarseHeight, coarseWidth], [height, width], readFull, readOpacity, false)) {
    const { top, bottom, left, right } = tile;
    if (left === 0) colors = new Uint8Array((bottom - top) * width * 3);
    writeColors(colors.subarray(left * 3), tile, tile.innerTop, tile.innerLeft, bottom - top, right - left, width);
    if (right === width) yield { top, bottom, colors, alpha: readAlpha(top, bottom) };
  }
}

/** Return the sizes of the scales to go through, from coarse to fine. */
function findSizes(height, width) {
  const longest = Math.max(height, width);
  if (longest <= WHOLE_SIZE) return [[height, width]];
  const sides = [WHOLE_SIZE];
  while (4 * sides.at(-1) <= Math.min(longest - 1, STORED_SIZE)) sides.push(4 * sides.at(-1));
  const scale = (side, full) => scaleSide(full, side / longest);
  return [...sides.map((side) => [scale(side, height), scale(side, width)]), [height, width]];
}

/** Return a scaled length, rounded to one that can be halved several times. */
function scaleSide(length, scale) {
  const scaled = length * scale;
  return scaled < STEP ? Math.max(1, roundHalfEven(scaled)) : STEP * roundHalfEven(scaled / STEP);
}

function roundHalfEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 ? floor + 1 : floor;
}

function splitPlanes(rgba, count) {
  const planes = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    planes[i] = rgba[4 * i] / 255;
    planes[count + i] = rgba[4 * i + 1] / 255;
    planes[2 * count + i] = rgba[4 * i + 2] / 255;
  }
  return planes;
}

function toFloats(levels) {
  const floats = new Float32Array(levels.length);
  for (let i = 0; i < levels.length; i++) floats[i] = levels[i] / 255;
  return floats;
}

function cropRows(planes, channels, count, width, top, bottom) {
  const rows = new Float32Array(channels * (bottom - top) * width);
  for (let c = 0; c < channels; c++) {
    rows.set(planes.subarray(c * count + top * width, c * count + bottom * width), c * (bottom - top) * width);
  }
  return rows;
}

function copyTile(tile, target, count, width) {
  const { top, bottom, left, right, innerTop, innerLeft, layers } = tile;
  const size = tile.height * tile.width;
  for (let c = 0; c < LAYERS; c++) {
    for (let y = top; y < bottom; y++) {
      const from = c * size + (innerTop + y - top) * tile.width + innerLeft;
      target.set(layers.subarray(from, from + right - left), c * count + y * width + left);
    }
  }
}

/** Write the colors of a tile: those of the image where it is opaque. */
function writeColors(target, tile, innerTop, innerLeft, rows, columns, rowLength) {
  const { pixels, layers, opacity } = tile;
  const size = tile.height * tile.width;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      const from = (innerTop + y) * tile.width + innerLeft + x;
      const planes = opacity[from] >= OPAQUE || layers === null ? pixels : layers;
      const place = (y * rowLength + x) * 3;
      for (let c = 0; c < 3; c++) target[place + c] = planes[c * size + from] * 255 + 0.5;
    }
  }
}

/** Estimate both layers from a single pixel up to the size of the image. */
function estimateWhole(pixels, alpha, height, width) {
  const count = height * width;
  const sure = findSureLayers(pixels, alpha, height, width);
  const opacity = alpha.slice();
  correctOpacity(pixels, opacity, sure.layers, sure.trust, count);
  let layers = new Float32Array(6);
  for (let c = 0; c < 3; c++) {
    let sum = 0;
    for (let i = 0; i < count; i++) sum += pixels[c * count + i];
    layers[c] = layers[c + 3] = sum / count;
  }
  const levels = [{ pixels, opacity, rows: height, columns: width }];
  while (Math.max(levels.at(-1).rows, levels.at(-1).columns) > 1) {
    const finer = levels.at(-1);
    const rows = Math.max(1, finer.rows >> 1);
    const columns = Math.max(1, finer.columns >> 1);
    levels.push({
      pixels: averageAreas(finer.pixels, 3, finer.rows, finer.columns, rows, columns),
      opacity: averageAreas(finer.opacity, 1, finer.rows, finer.columns, rows, columns),
      rows,
      columns,
    });
  }
  let [lastHeight, lastWidth] = [1, 1];
  for (const level of levels.reverse()) {
    const { rows, columns } = level;
    layers = interpolate(layers, 6, lastHeight, lastWidth, rows, columns);
    const iterations = COARSE_ITERATIONS * (Math.max(rows, columns) <= COARSEST ? 2 : 1);
    explain(level.pixels, level.opacity, layers, rows, columns, iterations);
    [lastHeight, lastWidth] = [rows, columns];
  }
  const all = new Float32Array(LAYERS * count);
  all.set(layers);
  all.set(sure.trust, 6 * count);
  return { layers: all, opacity };
}

/** Smooth both layers where they are visible, in place, and correct them to explain the image. */
function explain(pixels, opacity, layers, height, width, iterations = ITERATIONS) {
  const count = height * width;
  const scale = new Float32Array(count);
  const weights = [new Float32Array(count), new Float32Array(count)];
  const norms = [new Float32Array(count), new Float32Array(count)];
  for (let i = 0; i < count; i++) {
    const visible = opacity[i];
    const hidden = 1 - visible;
    scale[i] = 1 / (visible * visible + hidden * hidden + REGULARIZATION);
    weights[0][i] = visible + RELIABILITY;
    weights[1][i] = hidden + RELIABILITY;
  }
  const scratch = new Float32Array(count);
  for (const layer of [0, 1]) {
    blur(weights[layer], norms[layer], scratch, height, width);
    for (let i = 0; i < count; i++) norms[layer][i] = 1 / norms[layer][i];
  }
  const weighted = new Float32Array(count);
  for (let round = 0; round < iterations; round++) {
    for (let c = 0; c < 6; c++) {
      const plane = layers.subarray(c * count, (c + 1) * count);
      const weight = weights[c < 3 ? 0 : 1];
      const norm = norms[c < 3 ? 0 : 1];
      for (let i = 0; i < count; i++) weighted[i] = plane[i] * weight[i];
      blur(weighted, plane, scratch, height, width);
      for (let i = 0; i < count; i++) plane[i] *= norm[i];
    }
    for (let c = 0; c < 3; c++) {
      const front = layers.subarray(c * count, (c + 1) * count);
      const back = layers.subarray((c + 3) * count, (c + 4) * count);
      const plane = pixels.subarray(c * count, (c + 1) * count);
      for (let i = 0; i < count; i++) {
        const visible = opacity[i];
        const hidden = 1 - visible;
        const error = (plane[i] - front[i] * visible - back[i] * hidden) * scale[i];
        front[i] = clip(front[i] + visible * error);
        back[i] = clip(back[i] + hidden * error);
      }
    }
  }
}

function clip(value) {
  return value < 0 ? 0 : value > 1 ? 1 : value;
}

/** Write the mean over 3 x 3 pixels, with the border mirrored. */
function blur(source, target, scratch, height, width) {
  for (let y = 0; y < height; y++) {
    const row = y * width;
    if (width === 1) {
      scratch[row] = 3 * source[row];
      continue;
    }
    scratch[row] = source[row] + 2 * source[row + 1];
    for (let x = row + 1; x < row + width - 1; x++) scratch[x] = source[x - 1] + source[x] + source[x + 1];
    scratch[row + width - 1] = source[row + width - 1] + 2 * source[row + width - 2];
  }
  for (let y = 0; y < height; y++) {
    const above = (y > 0 ? y - 1 : Math.min(1, height - 1)) * width;
    const below = (y < height - 1 ? y + 1 : Math.max(0, height - 2)) * width;
    const row = y * width;
    for (let x = 0; x < width; x++) target[row + x] = (scratch[above + x] + scratch[row + x] + scratch[below + x]) / 9;
  }
}

/** Return the colors of both layers away from the edge of alpha, and the trust in the line between them. */
function findSureLayers(pixels, opacity, height, width) {
  const count = height * width;
  const radius = Math.max(2, roundHalfEven(EDGE * Math.max(height, width)));
  const layers = new Float32Array(6 * count);
  const variance = new Float32Array(count).fill(2 * NOISE);
  const nearEdge = new Uint8Array(count).fill(1);
  for (const layer of [0, 1]) {
    let inside = new Uint8Array(count);
    for (let i = 0; i < count; i++) inside[i] = (layer ? 1 - opacity[i] : opacity[i]) > 0.98 ? 1 : 0;
    const depth = new Float32Array(count);
    for (let step = 0; step < radius; step++) {
      for (let i = 0; i < count; i++) depth[i] += inside[i];
      inside = erode(inside, height, width);
    }
    const weight = depth.map((value) => (value / radius) ** 4);
    const mean = (fill) => averageFar(weight.map((value, i) => value * fill(i)), height, width, radius);
    const total = averageFar(weight, height, width, radius);
    const sums = [0, 1, 2].map((c) => mean((i) => pixels[c * count + i]));
    const squares = mean((i) => {
      const [r, g, b] = [pixels[i], pixels[count + i], pixels[2 * count + i]];
      return r * r + g * g + b * b;
    });
    for (let i = 0; i < count; i++) {
      const scale = 1 / (total[i] + 1e-6);
      let length = 0;
      for (let c = 0; c < 3; c++) {
        const value = sums[c][i] * scale;
        layers[(3 * layer + c) * count + i] = value;
        length += value * value;
      }
      variance[i] += total[i] > 1e-3 ? Math.max(0, squares[i] * scale - length) : Infinity;
      nearEdge[i] &= depth[i] < radius ? 1 : 0;
    }
  }
  const trust = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    if (!nearEdge[i]) continue;
    let contrast = 1e-6;
    for (let c = 0; c < 3; c++) contrast += (layers[c * count + i] - layers[(c + 3) * count + i]) ** 2;
    const error = variance[i] / 2 / contrast;
    trust[i] = 1 / (1 + (error / ALPHA_TOLERANCE ** 2) ** 2);
  }
  return { layers, trust };
}

/** Move the opacity toward the place of each pixel on the line between the layers, as far as that is trusted. */
function correctOpacity(pixels, opacity, layers, trust, count) {
  for (let i = 0; i < count; i++) {
    if (trust[i] === 0) continue;
    let length = 1e-6;
    let place = 0;
    for (let c = 0; c < 3; c++) {
      const back = layers[(c + 3) * count + i];
      const line = layers[c * count + i] - back;
      length += line * line;
      place += (pixels[c * count + i] - back) * line;
    }
    place = clip(place / length);
    let distance = 0;
    for (let c = 0; c < 3; c++) {
      const back = layers[(c + 3) * count + i];
      const line = layers[c * count + i] - back;
      distance += (pixels[c * count + i] - back - place * line) ** 2;
    }
    const change = place - opacity[i];
    const onLine = (trust[i] * length) / (length + OFF_LINE * distance);
    opacity[i] += onLine * clip(Math.abs(change) / DEAD_ZONE - 1) ** 2 * change;
  }
}

/**
 * Refine the layers of the next coarser scale tile by tile.
 *
 * @yields {object} A tile with a halo: its place in the image, the place of its inner part, layers (null where the
 *   pixels are the answer), pixels and corrected opacity.
 */
function* refine(layers, [coarseHeight, coarseWidth], [height, width], readPixels, readOpacity, needsLayers) {
  const coarseCount = coarseHeight * coarseWidth;
  for (let top = 0; top < height; top += TILE) {
    const bottom = Math.min(top + TILE, height);
    const start = Math.max(top - HALO, 0);
    const stop = Math.min(bottom + HALO, height);
    const rows = stop - start;
    const strip = readPixels(start, stop);
    const stripOpacity = readOpacity(start, stop);
    const stripLayers = interpolateRows(layers, coarseHeight, coarseWidth, coarseCount, height, start, stop);
    for (let left = 0; left < width; left += TILE) {
      const right = Math.min(left + TILE, width);
      const first = Math.max(left - HALO, 0);
      const last = Math.min(right + HALO, width);
      const columns = last - first;
      const count = rows * columns;
      const pixels = crop(strip, 3, rows, width, first, last);
      const opacity = crop(stripOpacity, 1, rows, width, first, last);
      let tile = interpolateColumns(stripLayers, rows, coarseWidth, width, first, last);
      const trust = tile.subarray(6 * count);
      if (hasValues(trust, 0, Infinity)) correctOpacity(pixels, opacity, tile, trust, count);
      else if (!needsLayers && !hasValues(opacity, -1, 1)) tile = null; // nothing to estimate
      const near = tile && findPartial(opacity, rows, columns);
      if (near) explainPart(pixels, opacity, tile, rows, columns, near);
      yield {
        ...{ top, bottom, left, right, innerTop: top - start, innerLeft: left - first },
        ...{ height: rows, width: columns, layers: tile, pixels, opacity },
      };
    }
  }
}

/** Return the rows and columns of partly transparent pixels and of what reaches them; null if there are none. */
function findPartial(opacity, rows, columns) {
  const near = { top: rows, bottom: 0, left: columns, right: 0 };
  for (let y = 0, i = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, i++) {
      if (!(opacity[i] > INVISIBLE && opacity[i] < 1)) continue;
      near.top = Math.min(near.top, y);
      near.bottom = y;
      near.left = Math.min(near.left, x);
      near.right = Math.max(near.right, x);
    }
  }
  if (near.top === rows) return null;
  return {
    top: Math.max(near.top - HALO, 0),
    bottom: Math.min(near.bottom + HALO + 1, rows),
    left: Math.max(near.left - HALO, 0),
    right: Math.min(near.right + HALO + 1, columns),
  };
}

/** Explain a part of a tile, in place. */
function explainPart(pixels, opacity, tile, rows, columns, { top, bottom, left, right }) {
  const [height, width] = [bottom - top, right - left];
  const cut = (planes, channels) => {
    const part = new Float32Array(channels * height * width);
    for (let c = 0; c < channels; c++) {
      for (let y = 0; y < height; y++) {
        const from = (c * rows + top + y) * columns + left;
        part.set(planes.subarray(from, from + width), (c * height + y) * width);
      }
    }
    return part;
  };
  const layers = cut(tile, 6);
  explain(cut(pixels, 3), cut(opacity, 1), layers, height, width);
  for (let r = 0; r < 6 * height; r++) {
    const to = (Math.trunc(r / height) * rows + top + (r % height)) * columns + left;
    tile.set(layers.subarray(r * width, (r + 1) * width), to);
  }
}

/** Return whether any value lies between two others. */
function hasValues(values, low, high) {
  for (let i = 0; i < values.length; i++) if (values[i] > low && values[i] < high) return true;
  return false;
}

function crop(planes, channels, rows, width, first, last) {
  const columns = last - first;
  const part = new Float32Array(channels * rows * columns);
  for (let r = 0; r < channels * rows; r++) part.set(planes.subarray(r * width + first, r * width + last), r * columns);
  return part;
}

/** Return where an output of a linear enlargement lies between two inputs. */
function findPlace(output, inputs, outputs) {
  const place = Math.min(Math.max((output + 0.5) * (inputs / outputs) - 0.5, 0), inputs - 1);
  const first = Math.trunc(place);
  return [first, Math.min(first + 1, inputs - 1), place - first];
}

function interpolateRows(layers, rows, columns, count, height, start, stop) {
  const size = (stop - start) * columns;
  const strip = new Float32Array(LAYERS * size);
  for (let y = start; y < stop; y++) {
    const [first, second, weight] = findPlace(y, rows, height);
    for (let c = 0; c < LAYERS; c++) {
      const upper = c * count + first * columns;
      const lower = c * count + second * columns;
      const place = c * size + (y - start) * columns;
      for (let x = 0; x < columns; x++) {
        strip[place + x] = layers[upper + x] + (layers[lower + x] - layers[upper + x]) * weight;
      }
    }
  }
  return strip;
}

function interpolateColumns(strip, rows, columns, width, start, stop) {
  const length = stop - start;
  const tile = new Float32Array(LAYERS * rows * length);
  for (let x = start; x < stop; x++) {
    const [first, second, weight] = findPlace(x, columns, width);
    for (let r = 0; r < LAYERS * rows; r++) {
      const left = strip[r * columns + first];
      tile[r * length + x - start] = left + (strip[r * columns + second] - left) * weight;
    }
  }
  return tile;
}

/** Enlarge planes with linear interpolation. */
function interpolate(planes, channels, height, width, newHeight, newWidth) {
  const resized = new Float32Array(channels * newHeight * newWidth);
  const places = Array.from({ length: newWidth }, (_, x) => findPlace(x, width, newWidth));
  for (let c = 0; c < channels; c++) {
    for (let y = 0; y < newHeight; y++) {
      const [first, second, weight] = findPlace(y, height, newHeight);
      const upper = (c * height + first) * width;
      const lower = (c * height + second) * width;
      for (let x = 0; x < newWidth; x++) {
        const [left, right, share] = places[x];
        const start = planes[upper + left] + (planes[lower + left] - planes[upper + left]) * weight;
        const end = planes[upper + right] + (planes[lower + right] - planes[upper + right]) * weight;
        resized[(c * newHeight + y) * newWidth + x] = start + (end - start) * share;
      }
    }
  }
  return resized;
}

/** Shrink planes, each output the mean over its share of the inputs. */
function averageAreas(planes, channels, height, width, newHeight, newWidth) {
  const narrow = averageAxis(planes, channels * height, width, newWidth, 1);
  return averageAxis(narrow, channels, height, newHeight, newWidth);
}

/** Shrink the middle axis of `(outer, length, inner)`. */
function averageAxis(values, outer, length, newLength, inner) {
  if (length === newLength) return values;
  const means = new Float32Array(outer * newLength * inner);
  const scale = length / newLength;
  for (let i = 0; i < newLength; i++) {
    const start = i * scale;
    const stop = start + scale;
    for (let k = Math.floor(start); k < Math.min(Math.ceil(stop - 1e-9), length); k++) {
      const share = (Math.min(k + 1, stop) - Math.max(k, start)) / scale;
      for (let o = 0; o < outer; o++) {
        const from = (o * length + k) * inner;
        const to = (o * newLength + i) * inner;
        for (let x = 0; x < inner; x++) means[to + x] += values[from + x] * share;
      }
    }
  }
  return means;
}

/** Return the mean over a square that reaches twice the radius away; 0 counts outside the image. */
function averageFar(plane, height, width, radius) {
  const rows = sumWindows(plane, height, width, 1, width, 2 * radius);
  const sums = sumWindows(rows, width, height, width, 1, 2 * radius);
  const area = (4 * radius + 1) ** 2;
  return sums.map((value) => value / area);
}

/** Sum each value with those up to `reach` before and after it, along lines of `length` values `step` apart. */
function sumWindows(values, lines, length, step, lineStep, reach) {
  const sums = new Float32Array(values.length);
  for (let line = 0; line < lines; line++) {
    let at = line * lineStep;
    let sum = 0;
    for (let i = 0; i < Math.min(reach, length); i++) sum += values[at + i * step];
    for (let i = 0; i < length; i++, at += step) {
      if (i + reach < length) sum += values[at + reach * step];
      if (i - reach > 0) sum -= values[at - (reach + 1) * step];
      sums[at] = sum;
    }
  }
  return sums;
}

/** Return a mask without the pixels at its edge. */
function erode(mask, height, width) {
  const rows = new Uint8Array(mask.length);
  for (let y = 0; y < height; y++) {
    const row = y * width;
    for (let x = 0; x < width; x++) {
      rows[row + x] = mask[row + x] & mask[row + Math.max(x - 1, 0)] & mask[row + Math.min(x + 1, width - 1)];
    }
  }
  const eroded = new Uint8Array(mask.length);
  for (let y = 0; y < height; y++) {
    const above = Math.max(y - 1, 0) * width;
    const below = Math.min(y + 1, height - 1) * width;
    for (let x = 0; x < width; x++) eroded[y * width + x] = rows[above + x] & rows[y * width + x] & rows[below + x];
  }
  return eroded;
}
