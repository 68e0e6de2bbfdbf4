/** Loading of the model and its runtime, with progress. */

import { Model } from "./model.js";
import { TextTokenizer } from "./tokenizer.js";

const GRAPHS = ["image_encoder", "text_encoder", "prompt_decoder"];
const TOLERANCE = 0.03; // by which an alpha of the GPU may differ from that of the CPU

// the memory of the runtime, which grows and never shrinks, is otherwise out of reach
const memories = [];
WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(descriptor) {
    super(descriptor);
    memories.push(this);
  }
};

/** Return how many bytes the runtime of the model takes. */
export function countMemory() {
  return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
}

/**
 * Load the model, on the GPU where that works and gives the same mattes.
 *
 * @param {object} options
 * @param {"auto" | "wasm" | "webgpu"} options.backend Where it runs; "webgpu" also takes a GPU that is emulated or slow.
 * @param {number} options.maxThreads Largest number of threads.
 * @param {(fraction: number) => void} onProgress Called with how much has been read.
 * @returns {Promise<Model>} The model.
 */
export async function loadModel({ backend, maxThreads }, onProgress) {
  const manifest = await (await fetch("manifest.json")).json();
  const hasGpu = backend !== "wasm" && (await findGpu(backend === "webgpu"));
  const runtime = hasGpu ? manifest.runtimes.webgpu : manifest.runtimes.wasm;
  const download = new Download([runtime.wasm, ...Object.values(manifest.model)], manifest.sizes, onProgress);
  const [wasm, files, tokenizer, config] = await Promise.all([
    download.read(runtime.wasm).then(inflate),
    Promise.all(GRAPHS.map((name) => download.read(manifest.model[name]))),
    loadTokenizer(download, manifest.model),
    download.readJson(manifest.model.config),
  ]);
  const ort = await (hasGpu ? import("onnxruntime-web/jspi") : import("onnxruntime-web/wasm"));
  const threads = self.crossOriginIsolated ? maxThreads : 1;
  Object.assign(ort.env.wasm, {
    numThreads: threads,
    wasmBinary: wasm,
    wasmPaths: { mjs: new URL(runtime.mjs, self.location.href).href },
  });
  const openModel = (name) => createModel(ort, files, tokenizer, { backend: name, threads, config, countMemory });
  const onCpu = await openModel("wasm");
  if (!hasGpu) return onCpu;
  return (await tryGpu(() => openModel("webgpu"), onCpu, backend === "webgpu")) ?? onCpu;
}

/** Return whether there is a GPU, and the runtime for it works here. */
async function findGpu(takeAny) {
  try {
    const adapter = "Suspending" in WebAssembly && (await navigator.gpu?.requestAdapter());
    return Boolean(adapter) && (takeAny || !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter));
  } catch {
    return false;
  }
}

async function createModel(ort, files, tokenizer, options) {
  const sessions = {};
  for (const [i, name] of GRAPHS.entries()) {
    const executionProviders = [name === "text_encoder" ? "wasm" : options.backend];
    sessions[name] = await ort.InferenceSession.create(files[i].slice(), { executionProviders });
  }
  return new Model(ort, sessions, tokenizer, options);
}

/** Return the model on the GPU, or null if it fails, gives other mattes than on the CPU, or is no faster. */
async function tryGpu(openOnGpu, onCpu, takeSlow) {
  let onGpu = null;
  try {
    onGpu = await openOnGpu();
    const expected = await runProbe(onCpu);
    const probe = await runProbe(onGpu);
    const isSame = expected.alpha.every((value, i) => Math.abs(value - probe.alpha[i]) < TOLERANCE);
    if (isSame && (takeSlow || probe.ms < expected.ms)) {
      await onCpu.release();
      return onGpu;
    }
  } catch {
    // the CPU does it, too
  }
  await onGpu?.release();
  return null;
}

async function runProbe(model) {
  await model.matteProbe(); // the first run includes compilation
  const start = performance.now();
  const alpha = await model.matteProbe();
  return { alpha, ms: performance.now() - start };
}

async function loadTokenizer(download, model) {
  const names = [model.tokenizer, model.tokenizer_config];
  return new TextTokenizer(...(await Promise.all(names.map((name) => download.readJson(name)))));
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

/** Reads several files and tells how much of all of them has come. */
class Download {
  constructor(names, sizes, onProgress) {
    this.sizes = sizes;
    this.total = names.reduce((sum, name) => sum + sizes[name], 0);
    this.done = 0;
    this.onProgress = onProgress;
  }

  /** Return what a JSON file holds. */
  async readJson(name) {
    return JSON.parse(new TextDecoder().decode(await this.read(name)));
  }

  /** Return the bytes of a file. */
  async read(name) {
    const response = await fetch(name);
    if (!response.ok) throw new Error(`${name} is missing on the server (${response.status}).`);
    const bytes = new Uint8Array(this.sizes[name]);
    const reader = response.body.getReader();
    let place = 0;
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      if (place + value.length > bytes.length) break;
      bytes.set(value, place);
      place += value.length;
      this.done += value.length;
      this.onProgress(this.done / this.total);
    }
    if (place !== bytes.length) throw new Error(`${name} has another size than expected: reload the page.`);
    return bytes;
  }
}
