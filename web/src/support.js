/* In the JavaScript of 2009, so that an old browser can say that it is one. */
(function () {
  "use strict";
  // (module (func (result v128) i32.const 0 i8x16.splat i8x16.popcnt)): SIMD of WebAssembly
  var simd = [
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
  ];
  function canSimd() {
    return typeof WebAssembly === "object" && WebAssembly.validate(new Uint8Array(simd));
  }
  var theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch (error) {
    // storage is switched off
  }
  var isDark = window.matchMedia && matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.setAttribute("data-theme", theme || (isDark ? "dark" : "light")); // before anything is drawn
  var missing = [];
  if (!canSimd()) missing.push("WebAssembly with SIMD");
  if (typeof Worker === "undefined") missing.push("web workers");
  if (typeof OffscreenCanvas === "undefined") missing.push("OffscreenCanvas");
  if (typeof CompressionStream === "undefined") missing.push("CompressionStream");
  if (typeof createImageBitmap === "undefined") missing.push("createImageBitmap");
  if (!Array.prototype.at) missing.push("ES2022");
  window.fclmUnsupported = missing;
  if (!missing.length) return;
  document.addEventListener("DOMContentLoaded", function () {
    document.body.setAttribute("data-state", "unsupported");
    document.getElementById("missing").textContent = missing.join(", ");
    document.getElementById("unsupported").hidden = false;
  });
})();
