"""The built page in Chromium, offline. `npm ci && npm run build` in web/ makes it; see docs/guides/browser.md."""

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from paths import PHOTOS
from PIL import Image
from web_page import CUTOUT, DIST, MATTE, READY, Visitor, WebSite, require_dist

from fclm_hf import LITE_CHECKPOINT, FCLMForImageMatting, FCLMProcessor
from fclm_hf.foreground_fclm import make_cutout
from fclm_hf.onnx import OnnxFCLMForImageMatting
from fclm_hf.pipeline_results_fclm import quantize_alpha


CUP = (0.5, 0.45)
BOX = (0.12, 0.05, 0.83, 0.98)


Predict = Callable[..., np.ndarray]


def make_predictor(model: Any) -> Predict:
    """Return a function that mattes a photo with a model in Python, with 8 bits, as the page does."""
    processor = FCLMProcessor.from_pretrained(LITE_CHECKPOINT)

    def predict(photo: Image.Image, **prompts: Any) -> np.ndarray:
        inputs = processor(photo, return_tensors="pt", **prompts)
        sizes = inputs.pop("original_sizes")
        with torch.no_grad():
            outputs = model(**inputs)
        return quantize_alpha(processor.post_process_image_matting(outputs, sizes)[0]["alpha"][0])

    return predict


@pytest.fixture(scope="module")
def exported() -> Predict:
    """The graphs of the page in Python."""
    pytest.importorskip("onnxruntime")
    return make_predictor(OnnxFCLMForImageMatting(require_dist() / "model", ["CPUExecutionProvider"]))


@pytest.fixture(scope="module")
def opened(visitor: Visitor) -> Visitor:
    visitor.visit()
    return visitor


@pytest.fixture
def page(opened: Visitor, coffee: Image.Image) -> Iterator[Visitor]:
    """The page with the photo of the cup, freshly opened, and without errors at the end."""
    opened.open(coffee)
    yield opened
    assert opened.problems == []


def at(photo: Image.Image, *places: tuple[float, float]) -> list[list[list[list[float]]]]:
    return [[[[x * photo.width, y * photo.height] for x, y in places]]]


def assert_close(first: np.ndarray, second: np.ndarray, levels: int = 2) -> None:
    assert first.shape == second.shape
    assert np.abs(first.astype(int) - second).max() <= levels


def test_it_loads_offline_and_isolated(page: Visitor) -> None:
    assert page.requests
    assert all(url.startswith((page.site.url, f"blob:{page.site.url}")) for url in page.requests)
    assert page.page.evaluate("crossOriginIsolated")
    assert page.page.inner_text("#device-text") == "Runs on this device"


def test_it_cannot_send_anything(opened: Visitor) -> None:
    with WebSite(DIST) as other:
        script = "url => fetch(url, { mode: 'no-cors' }).then(() => 'sent', () => 'refused')"
        assert opened.page.evaluate(script, other.url) == "refused"
    opened.problems.clear()


def test_click_on_the_cup(page: Visitor, coffee: Image.Image, exported: Predict) -> None:
    page.click(*CUP)
    matte = page.save()
    assert_close(matte, exported(coffee, input_points=at(coffee, CUP)))
    full_precision = make_predictor(FCLMForImageMatting.from_pretrained(LITE_CHECKPOINT).eval())
    expected = full_precision(coffee, input_points=at(coffee, CUP))
    assert np.abs(matte.astype(int) - expected).mean() < 0.01 * 255  # what small integers cost
    assert "Matte " in page.page.inner_text("#timing")


def test_click_that_takes_away(page: Visitor, coffee: Image.Image, exported: Predict) -> None:
    page.click(*CUP)
    page.click(0.8, 0.2, takes_away=True)
    page.page.click("#tool [data-value=remove]")
    page.click(0.05, 0.9)
    prompts = {"input_points": at(coffee, CUP, (0.8, 0.2), (0.05, 0.9)), "input_labels": [[[1, 0, 0]]]}
    assert_close(page.save(), exported(coffee, **prompts))


@pytest.mark.parametrize("tool", ["add", "box"])
def test_box(page: Visitor, coffee: Image.Image, exported: Predict, tool: str) -> None:
    page.page.click(f"#tool [data-value={tool}]")
    page.drag(*BOX)
    corners = [[[BOX[0] * 600, BOX[1] * 400, BOX[2] * 600, BOX[3] * 400]]]
    assert_close(page.save(), exported(coffee, input_boxes=corners), levels=3)


def test_text(page: Visitor, coffee: Image.Image, exported: Predict) -> None:
    page.name("cup")
    assert_close(page.save(), exported(coffee, text=[["cup"]]))
    assert "cup" in page.page.inner_text("#objects")


def test_a_name_that_fits_nothing(visitor: Visitor, coffee: Image.Image) -> None:
    """A matte by a name alone is empty where no score reaches the threshold of the model."""
    data = (DIST / "model/config.json").read_bytes()
    config = json.dumps({**json.loads(data), "text_score_threshold": 1e6}, separators=(",", ":"))
    with Visitor(visitor.site, visitor.browser) as other:
        other.context.route("**/model/config.json", lambda route: route.fulfill(body=config.ljust(len(data))))
        other.visit()
        other.open(coffee)
        other.name("cup")
        assert "does not seem to be in the photo" in other.page.inner_text("#toast")
        assert not other.save().any()
        other.click(*CUP)
        assert other.save().any()
        assert other.problems == []


def test_what_stands_out(page: Visitor, coffee: Image.Image, exported: Predict) -> None:
    page.page.click("#salient")
    page.wait()
    assert_close(page.save(), exported(coffee))


def test_undo_and_redo(page: Visitor) -> None:
    page.click(*CUP)
    first = page.save()
    page.click(0.85, 0.8)
    second = page.save()
    assert not np.array_equal(first, second)
    page.page.click("#undo")
    page.wait()
    np.testing.assert_array_equal(page.save(), first)
    page.page.keyboard.press("Control+Shift+z")
    page.wait()
    np.testing.assert_array_equal(page.save(), second)
    page.page.keyboard.press("Control+z")
    page.page.keyboard.press("Control+z")
    assert page.page.is_disabled("#undo")
    assert page.page.is_disabled(MATTE)


def test_several_objects(page: Visitor) -> None:
    page.click(*CUP)
    cup = page.save()
    page.page.click("#new-object")
    page.drag(0.05, 0.05, 0.3, 0.4)
    both = page.save()
    page.page.click("[aria-label='Hide Object 1']")
    page.wait()
    other = page.save()
    np.testing.assert_array_equal(both, np.maximum(cup, other))
    page.page.click("[aria-label='Show Object 1']")
    page.page.click("[aria-label='Remove Object 2']")
    page.wait()
    np.testing.assert_array_equal(page.save(), cup)


def test_cutout_has_clean_colors(page: Visitor, coffee: Image.Image) -> None:
    page.click(*CUP)
    matte = page.save()
    cutout = page.save(CUTOUT)
    assert_close(cutout, np.asarray(make_cutout(coffee, matte)))


def test_new_background(page: Visitor, coffee: Image.Image) -> None:
    page.click(*CUP)
    matte = page.save()
    page.page.click("#background [aria-label=Blue]")
    page.wait()
    picture = page.save(CUTOUT)
    behind = Image.new("RGBA", coffee.size, "#9ec1e8")
    assert_close(picture, np.asarray(Image.alpha_composite(behind, make_cutout(coffee, matte)).convert("RGB")))
    page.page.set_input_files("#picture-file", str(PHOTOS / "cat.jpg"))
    page.wait()
    with_cat = page.save(CUTOUT)
    assert with_cat.shape == picture.shape
    assert np.abs(with_cat.astype(int) - picture)[matte == 0].mean() > 20
    np.testing.assert_array_equal(with_cat[matte == 255], picture[matte == 255])
    page.page.click("#background [data-value=none]")


def test_before_and_after(page: Visitor) -> None:
    page.click(*CUP)
    page.page.click("#view [data-value=result]")
    page.wait()
    slider = page.page.get_by_role("slider", name="Before and after")
    slider.focus()
    for _ in range(5):
        page.page.keyboard.press("ArrowRight")
    assert slider.input_value() == "55"
    assert page.page.evaluate("getComputedStyle(document.querySelector('#result')).clipPath").endswith("55%)")


def test_keyboard_alone(page: Visitor, coffee: Image.Image, exported: Predict) -> None:
    keys = page.page.keyboard
    for _ in range(40):
        if page.page.evaluate("document.activeElement.id") == "marks":
            break
        keys.press("Tab")
    for _ in range(10):
        keys.press("ArrowUp")
    keys.press("Enter")
    page.wait()
    # the pointer starts in the middle, and a step is 1 % of the longest side
    point = (0.5, (200 - 10 * 6) / 400)
    assert_close(page.save(), exported(coffee, input_points=at(coffee, point)))
    page.page.focus("#marks")
    keys.press("Shift+ArrowLeft")
    keys.press("Shift+Enter")
    page.wait()
    assert "2 clicks" in page.page.inner_text("#objects")
    for key in ("n", "b", "Shift+ArrowRight", "Shift+ArrowDown", "b"):
        keys.press(key)
    page.wait()
    assert "box" in page.page.inner_text("#objects li.active")
    assert "%" in page.page.inner_text("#live")
    keys.press("3")
    assert page.page.get_attribute("#frame", "data-view") == "matte"
    keys.press("t")
    assert page.page.evaluate("document.activeElement.id") == "name"


def test_everything_has_a_name(page: Visitor) -> None:
    page.click(*CUP)
    script = """() => [...document.querySelectorAll("button, input, a, summary, [tabindex='0']")]
        .filter((each) => each.checkVisibility() && !each.ariaHidden && !each.closest("[aria-hidden=true]"))
        .filter((each) => !(each.ariaLabel || each.innerText?.trim() || each.labels?.length || each.title))
        .map((each) => each.outerHTML)"""
    assert page.page.evaluate(script) == []
    assert page.page.get_by_role("radiogroup").count() == 3
    assert page.page.get_by_role("radio", checked=True).count() == 3


def test_orientation_of_a_photo(opened: Visitor, coffee: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    opened.open(coffee, "turned.jpg", exif=exif, quality=95)
    assert opened.page.evaluate("[photo.width, photo.height]") == [400, 600]
    opened.click(*CUP)
    cutout = opened.save(CUTOUT)
    turned = np.asarray(coffee.transpose(Image.Transpose.ROTATE_270))
    opaque = cutout[..., 3] == 255
    assert opaque.any()
    assert np.abs(cutout[opaque][:, :3].astype(int) - turned[opaque]).mean() < 6


def test_transparent_photo(opened: Visitor, coffee: Image.Image) -> None:
    opacity = Image.new("L", coffee.size)
    opacity.paste(255, (100, 0, 500, 400))
    photo = coffee.copy()
    photo.putalpha(opacity)
    opened.open(photo, "transparent.png")
    opened.page.click("#salient")
    opened.wait()
    matte, cutout = opened.save(), opened.save(CUTOUT)
    assert not cutout[:, :100, 3].any()
    assert (cutout[..., 3] == 255).mean() > 0.05
    np.testing.assert_array_equal(cutout[..., 3], matte)
    # opaque pixels keep their colors, except along an edge that the estimator moves
    difference = np.abs(cutout[..., :3].astype(int) - np.asarray(coffee))[matte == 255]
    assert (difference == 0).mean() > 0.99


def test_a_broken_file_leaves_the_photo(page: Visitor) -> None:
    page.click(*CUP)
    page.open_bytes(b"no photo", "broken.png")
    page.page.wait_for_selector("#toast:not([hidden])")
    assert "cannot be read" in page.page.inner_text("#toast")
    page.wait()
    assert page.save().any()


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_dropping_and_pasting(opened: Visitor, kind: str) -> None:
    data = list((PHOTOS / "cat.jpg").read_bytes())
    script = """([kind, data]) => {
        const items = new DataTransfer();
        items.items.add(new File([new Uint8Array(data)], `${kind}.jpg`, { type: "image/jpeg" }));
        const type = kind === "drop" ? DragEvent : ClipboardEvent;
        const given = { dataTransfer: items, clipboardData: items, bubbles: true };
        document.body.dispatchEvent(new type(kind, given));
    }"""
    opened.page.evaluate(script, [kind, data])
    opened.page.wait_for_function(
        "name => document.querySelector('#marks').ariaLabel.includes(name)", arg=f"{kind}.jpg"
    )
    opened.wait()


def test_bundled_photo(opened: Visitor) -> None:
    opened.page.reload()
    opened.page.wait_for_selector(READY)
    opened.page.get_by_role("button", name="A cup of coffee").click()
    opened.page.wait_for_selector('body[data-state="photo"]')
    opened.wait()
    opened.click(*CUP)
    with Image.open(PHOTOS / "coffee.jpg") as photo:
        assert opened.save().shape == (photo.height, photo.width)


def test_old_browser(opened: Visitor) -> None:
    page = opened.context.new_page()
    page.add_init_script("delete window.CompressionStream")
    page.goto(opened.site.url)
    assert "CompressionStream" in page.get_by_role("alert").inner_text()
    assert not page.is_visible("main")
    page.close()


@pytest.mark.slow
def test_without_isolation(visitor: Visitor, coffee: Image.Image, exported: Predict) -> None:
    with WebSite(require_dist(), is_isolated=False) as site, Visitor(site, visitor.browser) as other:
        other.visit("?threads=4")
        other.open(coffee)
        other.click(*CUP)
        assert "1 thread" in other.page.inner_text("#timing")
        assert_close(other.save(), exported(coffee, input_points=at(coffee, CUP)))
        assert other.problems == []


@pytest.mark.slow
def test_threads(visitor: Visitor, coffee: Image.Image, exported: Predict) -> None:
    with Visitor(visitor.site, visitor.browser) as other:
        other.visit("?threads=2")
        other.open(coffee)
        other.click(*CUP)
        assert "2 threads" in other.page.inner_text("#timing")
        assert_close(other.save(), exported(coffee, input_points=at(coffee, CUP)))
        assert other.problems == []


@pytest.mark.slow
def test_24_megapixels(opened: Visitor, coffee: Image.Image, exported: Predict) -> None:
    photo = coffee.resize((6000, 4000), Image.Resampling.BICUBIC)
    opened.open(photo, "large.png", compress_level=1)
    assert opened.page.evaluate("[photo.width, photo.height]") == [1024, 683]
    opened.click(*CUP)
    matte = opened.save()
    assert_close(matte, exported(photo, input_points=at(photo, CUP)), levels=3)
    assert_close(opened.save(CUTOUT)[::7, ::5], np.asarray(make_cutout(photo, matte))[::7, ::5], levels=3)


@pytest.mark.slow
def test_memory_is_flat_over_50_photos(opened: Visitor) -> None:
    photos = [Image.open(io.BytesIO(path.read_bytes())).convert("RGB") for path in sorted(PHOTOS.glob("*.jpg"))]
    opened.visit()
    memory = []
    for number in range(50):
        photo = photos[number % len(photos)]
        opened.open(photo.resize((photo.width + number % 7, photo.height - number % 5)), f"{number}.png")
        opened.click(*CUP)
        opened.click(0.2, 0.2, takes_away=True)
        memory.append(int(opened.page.get_attribute("body", "data-memory")))
    assert memory[0] > 0
    assert memory[-1] == memory[2 * len(photos)], memory
