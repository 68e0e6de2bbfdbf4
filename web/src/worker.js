/** Worker that holds the model and the current photo, so that the page never waits for them. */

import { loadModel } from "./worker/loading.js";
import { chooseBackground, openPhoto } from "./worker/photo.js";
import { fitSize } from "./worker/resize.js";
import { cleanColors, saveFile } from "./worker/saving.js";

let model = null;
let current = null;

const methods = {
  /** Load the model; returns how it runs. */
  async load(options) {
    model = await loadModel(options, (fraction) => report("load", fraction));
    return model.describe();
  },

  /** Decode and encode a photo; returns its preview. The former photo is kept if this fails. */
  async open({ file, longest }) {
    if (!model) throw new Error("The model could not be loaded.");
    const photo = await openPhoto(file);
    try {
      const { height, width } = photo;
      const [previewHeight, previewWidth] = fitSize([height, width], longest);
      const own = photo.resize(previewHeight, previewWidth);
      photo.background = chooseBackground(own);
      const pixels = photo.background ? photo.resize(previewHeight, previewWidth) : own;
      const preview = { pixels, height: previewHeight, width: previewWidth };
      const start = performance.now();
      const embeddings = await model.encode(preview);
      const ms = performance.now() - start;
      current?.embeddings.dispose();
      const opacity = photo.background ? own.filter((_, i) => i % 4 === 3) : null;
      current = { file, size: { height, width }, background: photo.background, preview, opacity, embeddings };
      return { preview, size: current.size, ms, memory: model.countMemory() };
    } finally {
      photo.close();
    }
  },

  /** Return the matte of what prompts name, of the size of the preview. */
  async decode({ prompts }) {
    const textEmbeds = await model.encodeText(prompts.text);
    const start = performance.now();
    const alpha = await model.decode(current.embeddings, prompts, textEmbeds);
    const ms = performance.now() - start;
    const matte = new Uint8Array(alpha.length);
    for (let i = 0; i < alpha.length; i++) matte[i] = Math.round(alpha[i] * 255);
    const { opacity } = current;
    if (opacity) for (let i = 0; i < matte.length; i++) matte[i] = Math.min(matte[i], opacity[i]);
    return { matte, ms };
  },

  /** Return the colors, RGB, of the preview without those of the background. */
  cleanColors({ matte }) {
    return { colors: cleanColors(current.preview, matte) };
  },

  /** Make a PNG of the full size. */
  async save({ kind, objects, preview, background }) {
    const start = performance.now();
    const file = await saveFile({ model, current, kind, objects, preview, background }, (done) => report("save", done));
    return { file, ms: performance.now() - start, memory: model.countMemory() };
  },
};

function report(kind, fraction) {
  postMessage({ progress: { kind, fraction } });
}

let last = Promise.resolve();
onmessage = ({ data: { id, method, args } }) => {
  // one after the other, as calls share the photo
  last = last.then(async () => {
    try {
      postMessage({ id, result: await methods[method](args) });
    } catch (error) {
      postMessage({ id, error: error.message });
    }
  });
};
