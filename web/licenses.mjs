/**
 * Write THIRD_PARTY.md, the npm packages that the page is made of, from the lock file: npm run licenses
 *
 * With --check nothing is written, and the exit code tells whether the file is up to date.
 */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const TARGET = join(HERE, "THIRD_PARTY.md");
const INTRODUCTION = `# Third-party software of the page

Written by \`npm run licenses\` from \`package-lock.json\`. These npm packages, and what they depend on, are bundled into
\`web/dist\`; \`web/dist/LICENSES.txt\` has the license texts that they carry. The WebAssembly files of onnxruntime-web contain
further libraries, listed in
[ThirdPartyNotices.txt](https://github.com/microsoft/onnxruntime/blob/main/ThirdPartyNotices.txt) of ONNX Runtime. esbuild
(MIT) makes the bundle and is not part of it.

| package | version | license |
|---|---|---|
`;

/** Return the packages of the bundle, `{ name, version, license, folder }`, in the order of their names. */
export function listPackages() {
  const { packages } = JSON.parse(readFileSync(join(HERE, "package-lock.json"), "utf8"));
  return Object.entries(packages)
    .filter(([folder, { dev }]) => folder && !dev)
    .map(([folder, { version, license }]) => ({ name: folder.replace(/^.*node_modules\//, ""), version, license, folder }))
    .sort((first, second) => (first.name < second.name ? -1 : 1));
}

/** Return the license texts of the installed packages, one after the other. */
export function collectTexts() {
  const parts = listPackages().map(({ name, version, license, folder }) => {
    const file = readdirSync(join(HERE, folder)).find((each) => /^licen[sc]e/i.test(each));
    const text = file ? readFileSync(join(HERE, folder, file), "utf8").trim() : `${license}; the package carries no text.`;
    return `${name} ${version} (${license})\n\n${text}\n`;
  });
  return parts.join(`\n${"-".repeat(80)}\n\n`);
}

function render() {
  const rows = listPackages().map(
    ({ name, version, license }) => `| [${name}](https://www.npmjs.com/package/${name}) | ${version} | ${license} |\n`,
  );
  return INTRODUCTION + rows.join("");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const text = render();
  if (!process.argv.includes("--check")) writeFileSync(TARGET, text);
  else if (readFileSync(TARGET, "utf8") !== text) {
    console.error("THIRD_PARTY.md is not what package-lock.json says: npm run licenses");
    process.exitCode = 1;
  }
}
