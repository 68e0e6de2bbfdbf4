"""A photo, and the page in Chromium."""

from collections.abc import Iterator

import pytest
from paths import PHOTOS
from PIL import Image
from web_page import Visitor, WebSite, find_chromium, require_dist


@pytest.fixture(scope="session")
def coffee() -> Image.Image:
    """The photo of a cup of coffee."""
    with Image.open(PHOTOS / "coffee.jpg") as photo:
        return photo.convert("RGB")


@pytest.fixture(scope="session")
def site() -> Iterator[WebSite]:
    """The built page, served on the loopback device."""
    with WebSite(require_dist()) as running:
        yield running


@pytest.fixture(scope="session")
def visitor(site: WebSite) -> Iterator[Visitor]:
    """Chromium, which can reach nothing but the page."""
    find_chromium()
    with Visitor(site) as running:
        yield running
