/**
 * Bundle the page into web/dist: npm ci && npm run build
 *
 * The model is exported from the checkpoint of the package, with `fclm export-onnx`, unless a folder with an export is
 * given: npm run build -- --model FOLDER
 */

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { deflateSync } from "node:zlib";

import { build } from "esbuild";

import { collectTexts } from "./licenses.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const ROOT = join(HERE, "..");
const DIST = join(HERE, "dist");
const RUNTIME = join(HERE, "node_modules/onnxruntime-web/dist");
const RUNTIMES = { wasm: "ort-wasm-simd-threaded", webgpu: "ort-wasm-simd-threaded.jspi" };
const STATIC = ["index.html", "style.css", "icon.svg", "arrows.svg", "support.js"];
const PHOTOS = ["coffee.jpg", "cat.jpg", "astronaut.jpg", "LICENSE.md"];
const GRAPHS = ["image_encoder.onnx", "text_encoder.onnx", "prompt_decoder.onnx"];
const SETTINGS = ["config.json", "tokenizer.json", "tokenizer_config.json"];
const MAX_MODEL_BYTES = 8e6;

const { values } = parseArgs({ options: { model: { type: "string" } } });

rmSync(DIST, { recursive: true, force: true });
mkdirSync(join(DIST, "model"), { recursive: true });

await build({
  absWorkingDir: HERE,
  entryPoints: ["src/main.js", "src/worker.js"],
  outdir: DIST,
  bundle: true,
  splitting: true, // each runtime is read only where it is used
  format: "esm",
  target: ["chrome96", "firefox114", "safari16.4"],
  minify: true,
  legalComments: "eof",
  conditions: ["onnxruntime-web-use-extern-wasm"],
});

for (const name of STATIC) cpSync(join(HERE, "src", name), join(DIST, name));
for (const name of PHOTOS) cpSync(join(ROOT, "examples/photos", name), join(DIST, "photos", name));
cpSync(join(HERE, "THIRD_PARTY.md"), join(DIST, "THIRD_PARTY.md"));
writeFileSync(join(DIST, "LICENSES.txt"), collectTexts());
cpSync(join(HERE, "space/README.md"), join(DIST, "README.md"));
for (const name of Object.values(RUNTIMES)) {
  cpSync(join(RUNTIME, `${name}.mjs`), join(DIST, `${name}.mjs`));
  // a quarter of the bytes, whether the server compresses or not
  writeFileSync(join(DIST, `${name}.wasm.deflate`), deflateSync(readFileSync(join(RUNTIME, `${name}.wasm`)), { level: 9 }));
}

const model = values.model ?? exportModel();
for (const name of [...GRAPHS, ...SETTINGS]) cpSync(join(model, name), join(DIST, "model", name));
if (!values.model) rmSync(model, { recursive: true });

const graphBytes = sum(GRAPHS.map((name) => statSync(join(DIST, "model", name)).size));
if (graphBytes > MAX_MODEL_BYTES) throw new Error(`The model must have at most ${MAX_MODEL_BYTES} bytes, got ${graphBytes}.`);

const modelFiles = Object.fromEntries([...GRAPHS, ...SETTINGS].map((name) => [basename(name).split(".")[0], `model/${name}`]));
const runtimes = Object.fromEntries(
  Object.entries(RUNTIMES).map(([key, name]) => [key, { mjs: `${name}.mjs`, wasm: `${name}.wasm.deflate` }]),
);
const sized = [...Object.values(modelFiles), ...Object.values(runtimes).map(({ wasm }) => wasm)];
const sizes = Object.fromEntries(sized.map((name) => [name, statSync(join(DIST, name)).size]));
writeFileSync(join(DIST, "manifest.json"), JSON.stringify({ model: modelFiles, runtimes, sizes }, null, 1));

console.log(`web/dist: model ${(graphBytes / 1e6).toFixed(1)} MB, runtime ${(sizes[runtimes.wasm.wasm] / 1e6).toFixed(1)} MB`);

function exportModel() {
  const folder = mkdtempSync(join(tmpdir(), "fclm-onnx-"));
  const python = process.env.PYTHON ?? "python";
  const checkpoint = join(ROOT, "fclm_hf/checkpoints/fclm-lite");
  // weights alone: the mattes of integer activations depend on how a runtime rounds
  const args = ["-m", "fclm_hf.cli", "export-onnx", checkpoint, folder, "--quantize", "uint8"];
  execFileSync(python, args, { cwd: ROOT, stdio: "inherit" });
  if (!existsSync(join(folder, GRAPHS[0]))) throw new Error(`fclm export-onnx wrote no ${GRAPHS[0]}.`);
  return folder;
}

function sum(numbers) {
  return numbers.reduce((total, each) => total + each, 0);
}
