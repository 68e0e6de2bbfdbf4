/** Mattes as arrays of one byte per pixel, and pictures made of them. */

/** Return the matte of several objects together: the largest of their alphas. */
export function uniteMattes(mattes, length) {
  if (mattes.length === 1) return mattes[0];
  const union = new Uint8Array(length);
  for (const matte of mattes) {
    for (let i = 0; i < length; i++) if (matte[i] > union[i]) union[i] = matte[i];
  }
  return union;
}

/** Return the share of the photo that a matte covers. */
export function measureCoverage(matte) {
  let sum = 0;
  for (let i = 0; i < matte.length; i++) sum += matte[i];
  return sum / (255 * matte.length);
}

/** Fill an ImageData with a shade over everything that is not selected, lighter over objects other than the active one. */
export function fillShade({ data }, union, active) {
  const levels = new Uint32Array(data.buffer);
  for (let i = 0; i < union.length; i++) {
    const other = active ? Math.max(0, union[i] - active[i]) : 0;
    const opacity = ((255 - union[i]) * 176 + other * 40) >> 8;
    levels[i] = (opacity << 24) | 0x1c1613; // little-endian ABGR
  }
}

/** Fill an ImageData with the matte in gray. */
export function fillGray({ data }, matte) {
  const levels = new Uint32Array(data.buffer);
  for (let i = 0; i < matte.length; i++) levels[i] = 0xff000000 | (matte[i] * 0x010101);
}

/** Fill an ImageData with colors, RGB or RGBA, behind a matte. */
export function fillCutout({ data }, colors, matte) {
  const channels = colors.length / matte.length;
  for (let i = 0; i < matte.length; i++) {
    data[4 * i] = colors[channels * i];
    data[4 * i + 1] = colors[channels * i + 1];
    data[4 * i + 2] = colors[channels * i + 2];
    data[4 * i + 3] = matte[i];
  }
}

/** Return the box around what a matte shows, x0, y0, x1, y1 in pixels, or null if it shows nothing. */
export function findBounds(matte, width) {
  let [x0, y0, x1, y1] = [width, Infinity, 0, 0];
  for (let i = 0; i < matte.length; i++) {
    if (matte[i] < 26) continue;
    const x = i % width;
    const y = (i - x) / width;
    if (x < x0) x0 = x;
    if (x >= x1) x1 = x + 1;
    if (y < y0) y0 = y;
    if (y >= y1) y1 = y + 1;
  }
  return x1 > x0 ? [x0, y0, x1, y1] : null;
}
