/** Resampling with PIL's filters, so that the model sees the same pixels as in Python. */

const FILTERS = {
  box: { support: 0.5, weigh: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  triangle: { support: 1, weigh: (x) => Math.max(0, 1 - Math.abs(x)) },
};

/**
 * Compute which inputs each output of a resized axis is made of.
 *
 * @param {number} inputs Length of the axis.
 * @param {number} outputs New length.
 * @param {"box" | "triangle"} name Filter; both are widened when shrinking, which prevents aliasing.
 * @param {number} first Where the outputs begin on the axis, and
 * @param {number} last where they end.
 * @returns {{ starts: Int32Array, counts: Int32Array, weights: Float32Array, stride: number }} The weights of output
 *   `i` are at `i * stride` and belong to the inputs from `starts[i]` on.
 */
export function computeTaps(inputs, outputs, name = "triangle", first = 0, last = inputs) {
  const { support, weigh } = FILTERS[name];
  const scale = (last - first) / outputs;
  const widening = Math.max(scale, 1);
  const reach = support * widening;
  const stride = Math.ceil(reach) * 2 + 1;
  const starts = new Int32Array(outputs);
  const counts = new Int32Array(outputs);
  const weights = new Float32Array(outputs * stride);
  for (let i = 0; i < outputs; i++) {
    const center = first + (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - reach + 0.5));
    const stop = Math.min(inputs, Math.trunc(center + reach + 0.5));
    let total = 0;
    for (let k = start; k < stop; k++) {
      total += weights[i * stride + k - start] = weigh((k - center + 0.5) / widening);
    }
    for (let k = 0; k < stop - start; k++) weights[i * stride + k] /= total;
    starts[i] = start;
    counts[i] = stop - start;
  }
  return { starts, counts, weights, stride };
}

/**
 * Resize an image whose rows are read in strips, so that a large photo is never held in memory twice.
 *
 * As in PIL, columns are resized first, and the result of each pass is rounded to 8 bits.
 *
 * @param {(top: number, bottom: number) => Uint8ClampedArray} readRows Returns rows of interleaved pixels.
 * @param {[number, number]} from Height and width of the image.
 * @param {[number, number]} to New height and width.
 * @param {number} channels Number of channels of a pixel.
 * @param {"box" | "triangle"} filter Filter.
 * @param {number} stripRows Number of rows to read at once.
 * @param {number} resultRows Number of rows of the result that Python resizes at once: it decides ties of a filter.
 * @returns {Uint8ClampedArray} Interleaved pixels of the new size.
 */
export function resizeStrips(readRows, from, to, channels, filter = "triangle", stripRows = 256, resultRows = to[0]) {
  const [height, width] = from;
  const [newHeight, newWidth] = to;
  const columns = width === newWidth ? null : computeTaps(width, newWidth, filter);
  const narrow = new Uint8ClampedArray(height * newWidth * channels);
  for (let top = 0; top < height; top += stripRows) {
    const bottom = Math.min(height, top + stripRows);
    const strip = readRows(top, bottom);
    const target = narrow.subarray(top * newWidth * channels, bottom * newWidth * channels);
    if (columns) resizeColumns(strip, target, bottom - top, width, newWidth, channels, columns);
    else target.set(strip);
  }
  if (height === newHeight) return narrow;
  const length = newWidth * channels;
  const result = new Uint8ClampedArray(newHeight * length);
  for (let top = 0; top < newHeight; top += resultRows) {
    const bottom = Math.min(newHeight, top + resultRows);
    const [first, last] = [(top * height) / newHeight, Math.min((bottom * height) / newHeight, height)];
    const start = Math.trunc(first);
    const [from32, to32] = [Math.fround(first - start), Math.fround(last - start)]; // as PIL stores them
    const taps = computeTaps(Math.ceil(last) - start, bottom - top, filter, from32, to32);
    resizeRows(narrow.subarray(start * length), result.subarray(top * length, bottom * length), length, taps);
  }
  return result;
}

function resizeColumns(source, target, rows, width, newWidth, channels, { starts, counts, weights, stride }) {
  for (let y = 0; y < rows; y++) {
    const row = y * width * channels;
    let place = y * newWidth * channels;
    for (let x = 0; x < newWidth; x++) {
      for (let c = 0; c < channels; c++) {
        let sum = 0;
        let at = row + starts[x] * channels + c;
        const end = x * stride + counts[x];
        for (let k = x * stride; k < end; k++, at += channels) sum += weights[k] * source[at];
        target[place++] = Math.floor(sum + 0.5);
      }
    }
  }
}

function resizeRows(source, target, rowLength, { starts, counts, weights, stride }) {
  const sums = new Float32Array(rowLength);
  for (let y = 0; y < starts.length; y++) {
    sums.fill(0.5);
    for (let k = 0; k < counts[y]; k++) {
      const weight = weights[y * stride + k];
      const row = (starts[y] + k) * rowLength;
      for (let i = 0; i < rowLength; i++) sums[i] += weight * source[row + i];
    }
    const place = y * rowLength;
    for (let i = 0; i < rowLength; i++) target[place + i] = Math.floor(sums[i]);
  }
}

/** Resizes a float map to rows of a larger or smaller one on demand, with antialiased linear interpolation. */
export class MapResizer {
  /**
   * @param {Float32Array} map Values of shape `(height, width)`.
   * @param {[number, number]} from Height and width of the map.
   * @param {[number, number]} to New height and width.
   */
  constructor(map, [height, width], [newHeight, newWidth]) {
    this.width = newWidth;
    this.rows = computeTaps(height, newHeight);
    this.narrow = width === newWidth ? map : new Float32Array(height * newWidth);
    if (width === newWidth) return;
    const { starts, counts, weights, stride } = computeTaps(width, newWidth);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < newWidth; x++) {
        let sum = 0;
        for (let k = 0; k < counts[x]; k++) sum += weights[x * stride + k] * map[y * width + starts[x] + k];
        this.narrow[y * newWidth + x] = sum;
      }
    }
  }

  /** Return rows `top` to `bottom` of the resized map, rounded to 8 bits from values in [0, 1]. */
  readRows(top, bottom) {
    const { starts, counts, weights, stride } = this.rows;
    const { width, narrow } = this;
    const levels = new Uint8Array((bottom - top) * width);
    const sums = new Float32Array(width);
    for (let y = top; y < bottom; y++) {
      sums.fill(0);
      for (let k = 0; k < counts[y]; k++) {
        const weight = weights[y * stride + k];
        const row = (starts[y] + k) * width;
        for (let x = 0; x < width; x++) sums[x] += weight * narrow[row + x];
      }
      const place = (y - top) * width;
      for (let x = 0; x < width; x++) levels[place + x] = Math.round(Math.min(Math.max(sums[x], 0), 1) * 255);
    }
    return levels;
  }
}

/**
 * Return the size at which the longest side has at most a number of pixels; smaller images keep theirs.
 *
 * Rounds as `FCLMImageProcessor` does.
 */
export function fitSize([height, width], longest) {
  if (Math.max(height, width) <= longest) return [height, width];
  if (height >= width) return [longest, Math.max(1, Math.floor((2 * width * longest + height) / (2 * height)))];
  return [Math.max(1, Math.floor((2 * height * longest + width) / (2 * width))), longest];
}
