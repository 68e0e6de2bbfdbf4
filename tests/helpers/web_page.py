"""The page of web/ as built into web/dist, a server for it, and a visitor with Chromium."""

import functools
import http.server
import io
import os
import shutil
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pytest
from paths import ROOT
from PIL import Image


WEB = ROOT / "web"
DIST = WEB / "dist"
NODE = shutil.which("node") or "node"
IS_REQUIRED = bool(os.environ.get("FCLM_WEB_TESTS"))  # set where everything is installed: then nothing is skipped
READY = '[data-model="ready"]'
MATTE = "#save-matte"
TIMEOUT = 600_000  # ms; only a crowded machine comes near
CUTOUT = "#save"

needs_node = pytest.mark.skipif(not IS_REQUIRED and not shutil.which("node"), reason="needs Node")
needs_packages = pytest.mark.skipif(
    not IS_REQUIRED and not (WEB / "node_modules").exists(), reason="needs `npm ci` in web/"
)


def require_dist() -> Path:
    """Return web/dist, or skip the test."""
    if not (DIST / "manifest.json").exists():
        _skip("needs `npm run build` in web/")
    return DIST


def find_chromium() -> str:
    """Return the path of Chromium, or skip the test."""
    if not IS_REQUIRED:
        pytest.importorskip("playwright")
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        _skip("needs Chromium")
    return path


def _skip(reason: str) -> None:
    if IS_REQUIRED:
        pytest.fail(f"The page cannot be tested: {reason}.")
    pytest.skip(reason)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files as `npm start` does: with threads of WebAssembly if the site is isolated."""

    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
    }  # fmt: skip
    is_isolated = True

    def end_headers(self) -> None:
        if self.is_isolated:
            self.send_header("Cross-Origin-Opener-Policy", "same-origin")
            self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        pass


class WebSite:
    """Server of a folder on the loopback device."""

    def __init__(self, folder: Path, is_isolated: bool = True) -> None:
        handler = type("Handler", (_Handler,), {"is_isolated": is_isolated})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder))
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self) -> "WebSite":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.shutdown()
        self.server.server_close()


class Visitor:
    """Chromium with the page open, and what one does there; a second visitor takes the browser of the first."""

    def __init__(self, site: WebSite, browser: Any = None) -> None:
        self.site = site
        self.browser = browser
        self.playwright: Any = None
        self.requests: list[str] = []
        self.problems: list[str] = []

    def __enter__(self) -> "Visitor":
        if self.browser is None:
            from playwright.sync_api import sync_playwright

            self.playwright = sync_playwright().start()
            self.browser = self.playwright.chromium.launch(
                executable_path=find_chromium(),
                args=["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
            )
        self.context = self.browser.new_context(viewport={"width": 1280, "height": 800}, reduced_motion="reduce")
        self.context.set_default_timeout(TIMEOUT)
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda line: self.problems.append(line.text) if line.type == "error" else None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.close()
        if self.playwright is not None:
            self.browser.close()
            self.playwright.stop()

    def visit(self, query: str = "") -> "Visitor":
        """Open the page and wait for the model."""
        self.page.goto(self.site.url + query)
        self.page.wait_for_selector(READY)
        return self

    def open(self, image: Image.Image, name: str = "photo.png", **options: Any) -> None:
        """Open a photo through the button of the page."""
        buffer = io.BytesIO()
        image.save(buffer, Path(name).suffix[1:].upper().replace("JPG", "JPEG"), **options)
        self.open_bytes(buffer.getvalue(), name)
        self.wait_for_photo(name)

    def wait_for_photo(self, name: str) -> None:
        """Wait until a photo is shown."""
        self.page.wait_for_selector(f'#marks[aria-label*="{name}"]', state="attached")
        self.wait()

    def open_bytes(self, data: bytes, name: str) -> None:
        """Open a file, photo or not."""
        self.page.set_input_files("#file", {"name": name, "mimeType": "image/png", "buffer": data})

    def wait(self) -> None:
        """Wait until the page is at rest."""
        self.page.wait_for_selector("body:not([aria-busy])")

    def locate(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place of the photo, in shares of its size, is on the screen."""
        bounds = self.page.locator("#marks").bounding_box()
        return bounds["x"] + x * bounds["width"], bounds["y"] + y * bounds["height"]

    def click(self, x: float, y: float, takes_away: bool = False) -> None:
        """Click the photo at a place in shares of its size."""
        if takes_away:
            self.page.keyboard.down("Shift")
        self.page.mouse.click(*self.locate(x, y))
        if takes_away:
            self.page.keyboard.up("Shift")
        self.wait()

    def drag(self, x0: float, y0: float, x1: float, y1: float) -> None:
        """Draw a box with the mouse."""
        self.page.mouse.move(*self.locate(x0, y0))
        self.page.mouse.down()
        self.page.mouse.move(*self.locate((x0 + x1) / 2, y1))
        self.page.mouse.move(*self.locate(x1, y1))
        self.page.mouse.up()
        self.wait()

    def name(self, text: str) -> None:
        """Type a name."""
        self.page.fill("#name", text)
        self.page.press("#name", "Enter")
        self.wait()

    def save(self, button: str = MATTE) -> np.ndarray:
        """Save a file with a button of the page and return its pixels."""
        with self.page.expect_download() as download:
            self.page.click(button)
        self.wait()
        with Image.open(download.value.path()) as image:
            return np.asarray(image)
