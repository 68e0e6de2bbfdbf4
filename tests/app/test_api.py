"""The HTTP API of the app, through gradio_client."""

import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from app_photos import save_checkpoint, save_photos
from paths import ROOT
from PIL import Image

from fclm_hf.app.engine import Engine


pytest.importorskip("gradio")
gradio_client = pytest.importorskip("gradio_client")
httpx = pytest.importorskip("httpx")
handle_file = gradio_client.handle_file


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    checkpoint = save_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    return Engine([str(checkpoint)], device="cpu", max_bytes=150_000, max_pixels=500_000)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return save_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def url(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from running_app import run_app

    with run_app(engine, tmp_path_factory.mktemp("gradio")) as address:
        yield address


@pytest.fixture(scope="module")
def client(url: str, tmp_path_factory: pytest.TempPathFactory) -> gradio_client.Client:
    return gradio_client.Client(url, download_files=tmp_path_factory.mktemp("downloads"), verbose=False)


def read(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_a_round_trip(client: gradio_client.Client, engine: Engine, photos: list[Path]) -> None:
    prompts = {"text": ["a cat", None], "input_boxes": [None, [5, 5, 30, 30]]}
    mattes = client.predict(image=handle_file(photos[0]), prompts=prompts, api_name="/matte")
    cutouts = client.predict(image=handle_file(photos[0]), prompts=prompts, api_name="/cut_out")
    results = engine.matte(photos[0], prompts)
    assert [Path(path).name for path in mattes] == ["first_matte_1.png", "first_matte_2.png"]
    assert [Path(path).name for path in cutouts] == ["first_cutout_1.png", "first_cutout_2.png"]
    for matte, cutout, result in zip(mattes, cutouts, results, strict=True):
        np.testing.assert_array_equal(read(matte), np.asarray(result["alpha"]))
        np.testing.assert_array_equal(read(cutout), np.asarray(result["cutout"]))
    assert engine.num_encoded == 1


def test_all_arguments_but_the_photo_have_defaults(client: gradio_client.Client, photos: list[Path]) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/matte", "/cut_out", "/batch"}  # what the page does is private
    required = {
        name: [each["parameter_name"] for each in info["parameters"] if not each["parameter_has_default"]]
        for name, info in endpoints.items()
    }
    assert required == {"/matte": ["image"], "/cut_out": ["image"], "/batch": ["files"]}
    [matte] = client.predict(image=handle_file(photos[0]), api_name="/matte")
    assert read(matte).shape == (40, 50)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_boxes": [[9, 9, 2, 2]]}, r"input_boxes\[0\]\[0\] .* is empty: must satisfy x0 < x1"),
        ({"input_masks": ["/etc/passwd"]}, "prompts must be an object with text, input_points, .*"),
        (["cat"], "prompts must be an object with text"),
        ({"words": "cat"}, "prompts must have no other keys than text, .*, got words"),
    ],
)
def test_errors_are_one_sentence(
    client: gradio_client.Client, photos: list[Path], prompts: object, message: str
) -> None:
    with pytest.raises(gradio_client.exceptions.AppError, match=message.replace("<", "(?:<|&lt;)")) as caught:
        client.predict(image=handle_file(photos[0]), prompts=prompts, api_name="/matte")
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_photos(client: gradio_client.Client, photos: list[Path], tmp_path: Path) -> None:
    broken, wide = tmp_path / "broken.png", tmp_path / "wide.png"
    broken.write_bytes(photos[0].read_bytes()[:300])
    Image.new("L", (1000, 501)).save(wide)
    for path, message in ((broken, "broken.png is not an image"), (wide, "wide.png has too many pixels: 1000 x 501")):
        with pytest.raises(gradio_client.exceptions.AppError, match=message) as caught:
            client.predict(image=handle_file(path), api_name="/matte")
        assert "/" not in str(caught.value)


def test_files_that_are_too_large(url: str) -> None:
    answer = httpx.post(f"{url}gradio_api/upload", files={"files": ("large.png", bytes(150_001))}, timeout=60)
    assert answer.status_code == 413


def test_files_of_the_server_cannot_be_read(url: str, photos: list[Path]) -> None:
    data = [{"path": str(photos[0]), "meta": {"_type": "gradio.FileData"}}, {}, None, ""]
    event = httpx.post(f"{url}gradio_api/call/matte", json={"data": data}, timeout=60)
    if event.status_code == 200:
        answer = httpx.get(f"{url}gradio_api/call/matte/{event.json()['event_id']}", timeout=60).text
        assert answer.startswith("event: error")
    else:
        assert event.status_code in (400, 403)


def test_a_batch(client: gradio_client.Client, photos: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad<b>.png"
    bad.write_bytes(b"no photo")
    archive, report = client.predict(
        files=[handle_file(path) for path in [*photos, bad]], output="Color", color="navy", api_name="/batch"
    )
    with zipfile.ZipFile(archive) as opened:
        assert opened.namelist() == ["first_composite.png", "second_composite.png"]
    assert report.startswith("2 of 3 photos done.")
    assert "<b>" not in report


def test_the_page_asks_nobody_else(url: str) -> None:
    config = httpx.get(f"{url}config", timeout=60).json()
    assert config["analytics_enabled"] is False
    page = httpx.get(url, timeout=60).text
    loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*(?:src|href)="([^"]+)"', page)
    assert loaded
    assert not [address for address in loaded if re.match(r"(?:https?:)?//", address)]
    assert "fonts.googleapis" not in page + json.dumps(config)


def test_the_examples_of_the_guide(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "guides" / "app.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    assert '"http://127.0.0.1:7860"' in blocks[0]
    names: dict[str, object] = {}
    exec(compile(blocks[0].replace("http://127.0.0.1:7860", url), "app.md", "exec"), names)
    assert read(names["matte"]).shape == (400, 600)
    assert [read(path).shape for path in names["cutouts"]] == [(400, 600, 4)] * 2
    assert read(names["picture"]).shape == (400, 600, 3)
