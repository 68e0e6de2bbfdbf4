/** The three graphs of the model, and what goes into them. */

const PADDING = -10; // label of a point, and coordinates of a box, that is not there
const DIVISOR = 32; // images are padded to multiples of it
const TEXT_CHANNELS = 128;
const PROBE = { height: 384, width: 512 };

/** Encoded image: everything of it that the decoder needs. */
class Embeddings {
  constructor(tensors, { height, width }, paddedWidth) {
    Object.assign(this, { tensors, height, width, paddedWidth });
  }

  /** Free the memory. */
  dispose() {
    for (const tensor of Object.values(this.tensors)) tensor.dispose();
  }
}

/** The model: encodes an image once, then decodes any number of objects in it. */
export class Model {
  constructor(ort, sessions, tokenizer, { backend, threads, config, countMemory }) {
    Object.assign(this, { ort, sessions, tokenizer, backend, threads, config, countMemory });
  }

  /** Return how the model runs. */
  describe() {
    return { backend: this.backend, threads: this.threads, memory: this.countMemory() };
  }

  /**
   * Encode an image.
   *
   * @param {{ pixels: Uint8ClampedArray, height: number, width: number }} image RGBA pixels; the opacity does not count.
   * @returns {Promise<Embeddings>} What `decode` needs; call its `dispose`.
   */
  async encode(image) {
    const { height, width } = image;
    const padded = [height, width].map((side) => Math.ceil(side / DIVISOR) * DIVISOR);
    const inputs = {
      pixel_values: new this.ort.Tensor("float32", normalize(image, padded), [1, 3, ...padded]),
      image_sizes: this.makeIntegers([height, width], [1, 2]),
    };
    const { image_encoder: encoder } = this.sessions;
    if (encoder.inputNames.includes("encoder_size")) {
      inputs.encoder_size = this.makeIntegers([this.config.encoder_size], []);
    }
    const outputs = await encoder.run(inputs);
    inputs.pixel_values.dispose();
    return new Embeddings({ ...outputs, image_sizes: inputs.image_sizes }, image, padded[1]);
  }

  /** Return the embedding of a text as a Float32Array, or null without one. */
  async encodeText(text) {
    if (!text) return null;
    const ids = this.tokenizer.encode(text);
    const outputs = await this.sessions.text_encoder.run({ input_ids: this.makeIntegers(ids, [1, ids.length]) });
    return outputs.text_embeds.data;
  }

  /**
   * Predict the alpha of an object.
   *
   * @param {Embeddings} embeddings Encoded image.
   * @param {Prompts} prompts Prompts in pixels of the encoded image.
   * @param {Float32Array | null} textEmbeds Embedding of the name.
   * @returns {Promise<Float32Array>} Alpha in [0, 1] of the size of the image; 0 everywhere if the object has a name
   *   alone that fits no place of the image, as in Python.
   */
  async decode(embeddings, { points, box }, textEmbeds) {
    const { Tensor } = this.ort;
    const given = points.length ? points : [{ x: 0, y: 0, label: PADDING }];
    const coordinates = Float32Array.from(given.flatMap(({ x, y }) => [x, y]));
    const inputs = {
      ...embeddings.tensors,
      input_points: new Tensor("float32", coordinates, [1, 1, given.length, 2]),
      input_labels: this.makeIntegers(given.map(({ label }) => label), [1, 1, given.length]),
      input_boxes: new Tensor("float32", Float32Array.from(box ?? Array(4).fill(PADDING)), [1, 1, 4]),
      text_embeds: new Tensor("float32", textEmbeds ?? new Float32Array(TEXT_CHANNELS), [1, 1, TEXT_CHANNELS]),
      text_mask: this.makeIntegers([textEmbeds ? 1 : 0], [1, 1]),
    };
    const { prompt_decoder: decoder } = this.sessions;
    const known = Object.fromEntries(decoder.inputNames.map((name) => [name, inputs[name]]));
    const { alphas, text_scores: scores } = await decoder.run(known);
    const values = await alphas.getData();
    const { height, width, paddedWidth } = embeddings;
    const alpha = new Float32Array(height * width);
    const score = textEmbeds && scores && !points.length && !box ? (await scores.getData())[0] : Infinity;
    const isAbsent = score < (this.config.text_score_threshold ?? -Infinity);
    for (let y = 0; y < height && !isAbsent; y++) {
      alpha.set(values.subarray(y * paddedWidth, y * paddedWidth + width), y * width);
    }
    alphas.dispose();
    scores?.dispose();
    return alpha;
  }

  makeIntegers(values, shape) {
    return new this.ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
  }

  /** Return the matte of a disc on a plain ground, to compare backends. */
  async matteProbe() {
    const { height, width } = PROBE;
    const pixels = new Uint8ClampedArray(height * width * 4).fill(40);
    for (let i = 0; i < height * width; i++) {
      if (Math.hypot((i % width) - 240, Math.floor(i / width) - 200) < 120) pixels.set([230, 150, 60], 4 * i);
    }
    const embeddings = await this.encode({ pixels, height, width });
    const alpha = await this.decode(embeddings, { points: [{ x: 240, y: 200, label: 1 }], box: null }, null);
    embeddings.dispose();
    return alpha;
  }

  /** Free the memory of the graphs. */
  async release() {
    for (const session of Object.values(this.sessions)) await session.release();
  }
}

/** Return pixels as planes in [-1, 1], 0 on the padding. */
function normalize({ pixels, height, width }, [paddedHeight, paddedWidth]) {
  const planes = new Float32Array(3 * paddedHeight * paddedWidth);
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < height; y++) {
      const from = y * width * 4 + c;
      const to = (c * paddedHeight + y) * paddedWidth;
      for (let x = 0; x < width; x++) planes[to + x] = pixels[from + 4 * x] / 127.5 - 1;
    }
  }
  return planes;
}
