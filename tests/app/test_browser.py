"""The app in Chromium, as a visitor uses it."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from paths import PHOTOS
from PIL import Image

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor, ReferringMattingPipeline


pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not Path(LITE_CHECKPOINT).is_dir(), reason="the embedded checkpoint is not there"),
]

Page = sync_api.Page
TIMEOUT = 300_000
MAX_BYTES = 400_000
RESULT = ".frame img:visible"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as `fclm train` writes it, whose mattes are clearly narrower than those of the embedded one."""
    folder = tmp_path_factory.mktemp("runs") / "best"
    model = FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT)
    with torch.no_grad():
        model.head.coefficients.bias[-1] -= 4
    model.save_pretrained(folder)
    FCLMProcessor.from_pretrained(LITE_CHECKPOINT).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def app_url(tuned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from running_app import run_app

    from fclm_hf.app.engine import EMBEDDED, Engine

    engine = Engine([EMBEDDED, str(tuned)], device="cpu", max_bytes=MAX_BYTES)
    with run_app(engine, tmp_path_factory.mktemp("gradio")) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: sync_api.Browser, app_url: str) -> Iterator[Callable[[], Page]]:
    """Opens the app as another visitor; nothing may be requested from elsewhere, and no script may fail."""
    requests, problems, contexts = [], [], []

    def open_page() -> Page:
        context = browser.new_context(viewport={"width": 1360, "height": 900}, accept_downloads=True)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT)
        page = context.new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(app_url)
        page.wait_for_selector("text=Choose a photo")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert {urlsplit(url).netloc for url in requests if url.startswith("http")} == {urlsplit(app_url).netloc}
    assert not problems


def upload(page: Page, file: Path | dict) -> None:
    page.set_input_files("#fclm-hidden input[type=file]", file)


def click(page: Page, x: float, y: float, **kwargs: object) -> None:
    """Click at a fraction of the width and height of the photo."""
    area = page.locator(".stage canvas").bounding_box()
    page.locator(".stage canvas").click(position={"x": x * area["width"], "y": y * area["height"]}, **kwargs)


def wait_for_result(page: Page, action: Callable[[], None]) -> str:
    """Return the data URL of the result that an action gives."""
    before = page.locator(".frame img").first.get_attribute("src")
    action()
    page.wait_for_function(
        "before => ![null, before].includes(document.querySelector('.frame img').getAttribute('src'))",
        arg=before,
    )
    return page.locator(".frame img").first.get_attribute("src")


def read_alpha(page: Page, url: str) -> np.ndarray:
    data = page.evaluate("async url => [...new Uint8Array(await (await fetch(url)).arrayBuffer())]", url)
    return np.asarray(Image.open(BytesIO(bytes(data))).convert("RGBA"))[..., 3]


def download(page: Page) -> Image.Image:
    with page.expect_download() as started:
        page.click("text=Download PNG")
    image = Image.open(started.value.path())
    image.load()
    return image


def test_a_visit(visit: Callable[[], Page]) -> None:
    page = visit()
    upload(page, PHOTOS / "coffee.jpg")
    page.wait_for_selector(".stage.photo")
    one = read_alpha(page, wait_for_result(page, lambda: click(page, 0.5, 0.35)))
    assert one.shape == (400, 600)
    assert one[140, 300] > 200
    two = read_alpha(page, wait_for_result(page, lambda: click(page, 0.3, 0.8, modifiers=["Shift"])))
    assert two[320, 180] < one[320, 180] or one[320, 180] < 20
    undone = read_alpha(page, wait_for_result(page, lambda: page.click("text=Undo")))
    np.testing.assert_array_equal(undone, one)

    area = page.locator(".stage canvas").bounding_box()
    page.mouse.move(area["x"] + 0.2 * area["width"], area["y"] + 0.05 * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.6 * area["height"], steps=4)
    page.mouse.move(area["x"] + 0.8 * area["width"], area["y"] + 0.9 * area["height"], steps=4)
    boxed = read_alpha(page, wait_for_result(page, page.mouse.up))
    assert boxed[140, 300] > 200
    assert boxed[10, 10] < 20

    page.click("text=+ Another object")
    page.get_by_placeholder("Or name it").fill("cup")
    wait_for_result(page, lambda: page.click("text=Find it"))
    page.wait_for_selector(".objects button:has-text('cup')")
    wait_for_result(page, lambda: page.click("text=Selected object"))
    cutout = download(page)
    assert (cutout.mode, cutout.size) == ("RGBA", (600, 400))
    wait_for_result(page, lambda: page.locator("label:has-text('Matte')").first.click())
    assert download(page).mode == "L"


def test_a_box_of_two_clicks_what_stands_out_and_keys(visit: Callable[[], Page]) -> None:
    page = visit()
    page.click(".examples button >> nth=0")
    page.wait_for_selector(".stage.photo")
    page.click("text=Box")
    click(page, 0.2, 0.05)
    wait_for_result(page, lambda: click(page, 0.8, 0.9))
    wait_for_result(page, lambda: page.click("text=What stands out"))
    page.click(".bar >> text=Clear")
    page.wait_for_function("document.querySelector('.frame img').hidden")
    page.click("text=Add")
    page.locator(".stage canvas").focus()
    page.keyboard.press("ArrowUp")
    wait_for_result(page, lambda: page.keyboard.press("Enter"))
    page.keyboard.press("Control+z")
    page.wait_for_function("document.querySelector('.frame img').hidden")


def test_two_visitors_at_once(visit: Callable[[], Page]) -> None:
    first, second = visit(), visit()
    upload(first, PHOTOS / "coffee.jpg")
    upload(second, PHOTOS / "cat.jpg")
    first.wait_for_selector(".stage.photo")
    second.wait_for_selector(".stage.photo")
    for page in (first, second):
        click(page, 0.5, 0.35)
    for page, (width, height) in ((first, (600, 400)), (second, (451, 300))):
        page.wait_for_selector(RESULT)
        assert read_alpha(page, page.locator(".frame img").first.get_attribute("src")).shape == (height, width)
        assert page.locator(".objects button").count() == 2  # the object, and the button for another


def test_bad_uploads_are_explained_and_leave_the_photo(visit: Callable[[], Page]) -> None:
    page = visit()
    upload(page, PHOTOS / "cat.jpg")
    page.wait_for_selector(".stage.photo")
    large = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    data = BytesIO()
    Image.fromarray(large).save(data, "PNG")
    assert len(data.getvalue()) > MAX_BYTES
    for name, content, message in (
        ("broken.jpg", (PHOTOS / "cat.jpg").read_bytes()[:5000], "broken.jpg is not an image that PIL can read"),
        ("words.png", b"no picture", "words.png is not an image that PIL can read"),
        ("large.png", data.getvalue(), "maximum allowed size"),
    ):
        upload(page, {"name": name, "mimeType": "image/png", "buffer": content})
        page.wait_for_selector(f"text={message}")
        assert "gradio" not in page.locator(".toast-body").last.inner_text()  # the folder of the upload
        page.locator(".toast-close").last.click()
    wait_for_result(page, lambda: click(page, 0.5, 0.35))


def upload_batch(page: Page, files: list[Path | dict]) -> None:
    page.get_by_role("tab", name="Many photos").click()
    page.set_input_files("#fclm-batch input[type=file]", files)


def test_many_photos_give_one_archive(visit: Callable[[], Page]) -> None:
    page = visit()
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    names = ("coffee", "cat")
    written = [{"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": read_photo(name)} for name in names]
    upload_batch(page, [*written, broken])
    page.get_by_label("Object", exact=True).fill("cup")
    page.click("text=Cut out all")
    page.wait_for_selector("text=2 of 3 photos done.")
    page.wait_for_selector("text=broken.jpg is not an image that PIL can read")
    with page.expect_download() as started:
        page.locator("#fclm-archive a[download]").first.click()
    with zipfile.ZipFile(started.value.path()) as archive:
        assert archive.namelist() == [f"{name}_cutout.png" for name in names]
        cutouts = [Image.open(BytesIO(archive.read(name))) for name in archive.namelist()]
    matting = ReferringMattingPipeline(
        FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT), processor=FCLMProcessor.from_pretrained(LITE_CHECKPOINT)
    )
    for name, cutout in zip(names, cutouts, strict=True):
        expected = matting(PHOTOS / f"{name}.jpg", text="cup")["cutout"]
        assert (cutout.mode, cutout.size) == ("RGBA", expected.size)
        assert np.abs(np.asarray(cutout, int) - np.asarray(expected)).max() <= 1


def read_photo(name: str) -> bytes:
    return (PHOTOS / f"{name}.jpg").read_bytes()


def test_two_models_side_by_side(visit: Callable[[], Page], tuned: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Compare models").click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector("text=Choose a photo first.")
    page.get_by_role("tab", name="Photo", exact=True).click()
    upload(page, PHOTOS / "coffee.jpg")
    page.wait_for_selector(".stage.photo")
    alone = read_alpha(page, wait_for_result(page, lambda: click(page, 0.5, 0.35)))
    page.get_by_role("tab", name="Compare models").click()
    choices = page.get_by_role("combobox").filter(visible=True)  # of the app, left and right
    choices.nth(2).wait_for()
    assert [each.input_value() for each in choices.all()] == ["fclm-lite", "fclm-lite", str(tuned)]
    page.get_by_role("button", name="Compare", exact=True).click()
    sides = page.locator(".frame img:visible")
    sides.nth(1).wait_for()
    embedded, fine_tuned = (read_alpha(page, sides.nth(index).get_attribute("src")) for index in range(2))
    np.testing.assert_array_equal(embedded, alone)
    matting = ReferringMattingPipeline(
        FCLMForImageMatting.from_pretrained(tuned), processor=FCLMProcessor.from_pretrained(tuned)
    )
    expected = np.asarray(matting(PHOTOS / "coffee.jpg", input_points=[[300, 140]])["alpha"], int)
    assert np.abs(fine_tuned - expected).mean() < 1
    assert fine_tuned.mean() < 0.9 * embedded.mean()
