/**
 * PNG files written row by row.
 *
 * A canvas multiplies colors by their opacity, which destroys them where the opacity is low, and it holds the whole
 * picture. This writer keeps all colors and only the compressed bytes.
 */

const CRC = new Uint32Array(256).map((_, n) => {
  let value = n;
  for (let k = 0; k < 8; k++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});
const COLOR_TYPES = { 1: 0, 3: 2, 4: 6 };

/** Writes a PNG; call `writeRows` from top to bottom, then `finish`. */
export class PngWriter {
  /**
   * @param {number} width Width in pixels.
   * @param {number} height Height in pixels.
   * @param {1 | 3 | 4} channels Gray, RGB or RGBA, 8 bits each.
   */
  constructor(width, height, channels) {
    this.channels = channels;
    this.rowLength = width * channels;
    this.previous = new Uint8Array(this.rowLength);
    const header = new DataView(new ArrayBuffer(13));
    header.setUint32(0, width);
    header.setUint32(4, height);
    header.setUint8(8, 8);
    header.setUint8(9, COLOR_TYPES[channels]);
    this.parts = [
      new Uint8Array([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
      makeChunk("IHDR", new Uint8Array(header.buffer)),
      makeChunk("sRGB", new Uint8Array([0])),
    ];
    const stream = new CompressionStream("deflate");
    this.writer = stream.writable.getWriter();
    this.compressed = this.collect(stream.readable.getReader());
    this.compressed.catch(() => {}); // reported by `finish`
  }

  /** Write interleaved pixels of any number of whole rows. */
  async writeRows(pixels) {
    const { rowLength } = this;
    const rows = pixels.length / rowLength;
    const filtered = new Uint8Array(rows * (rowLength + 1));
    for (let y = 0; y < rows; y++) {
      const row = pixels.subarray(y * rowLength, (y + 1) * rowLength);
      filterRow(row, this.previous, this.channels, filtered.subarray(y * (rowLength + 1), (y + 1) * (rowLength + 1)));
      this.previous = row;
    }
    this.previous = this.previous.slice(); // the caller may reuse its buffer
    await this.writer.write(filtered);
  }

  /** Finish the file and return it as a Blob. */
  async finish() {
    await this.writer.close();
    await this.compressed;
    this.parts.push(makeChunk("IEND", new Uint8Array(0)));
    return new Blob(this.parts, { type: "image/png" });
  }

  async collect(reader) {
    let waiting = [];
    let length = 0;
    const flush = () => {
      const data = new Uint8Array(length);
      let place = 0;
      for (const part of waiting) {
        data.set(part, place);
        place += part.length;
      }
      this.parts.push(makeChunk("IDAT", data));
      waiting = [];
      length = 0;
    };
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      waiting.push(value);
      length += value.length;
      if (length >= 1 << 20) flush();
    }
    flush();
  }
}

/** Write a row behind its filter, "Sub" or "Paeth", whichever leaves the smaller numbers. */
function filterRow(row, above, channels, target) {
  const { length } = row;
  let sub = 0;
  let paeth = 0;
  const step = channels * 4; // a quarter of the pixels tells
  for (let i = channels; i < length; i += step) {
    sub += Math.abs(((row[i] - row[i - channels]) << 24) >> 24);
    paeth += Math.abs(((row[i] - predict(row[i - channels], above[i], above[i - channels])) << 24) >> 24);
  }
  const usePaeth = paeth < sub;
  target[0] = usePaeth ? 4 : 1;
  for (let i = 0; i < channels; i++) target[i + 1] = usePaeth ? row[i] - above[i] : row[i];
  if (usePaeth) {
    for (let i = channels; i < length; i++) {
      target[i + 1] = row[i] - predict(row[i - channels], above[i], above[i - channels]);
    }
  } else {
    for (let i = channels; i < length; i++) target[i + 1] = row[i] - row[i - channels];
  }
}

function predict(left, above, corner) {
  const guess = left + above - corner;
  const toLeft = Math.abs(guess - left);
  const toAbove = Math.abs(guess - above);
  const toCorner = Math.abs(guess - corner);
  if (toLeft <= toAbove && toLeft <= toCorner) return left;
  return toAbove <= toCorner ? above : corner;
}

function makeChunk(type, data) {
  const chunk = new Uint8Array(data.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) chunk[4 + i] = type.charCodeAt(i);
  chunk.set(data, 8);
  let crc = 0xffffffff;
  for (let i = 4; i < data.length + 8; i++) crc = CRC[(crc ^ chunk[i]) & 255] ^ (crc >>> 8);
  view.setUint32(data.length + 8, ~crc >>> 0);
  return chunk;
}
