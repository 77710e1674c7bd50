"""view.html and anchors.html in a real browser: they open without an error and show their images and boxes."""

import pytest
from chromium import CHROMIUM, Browser

from detector.inspection.view import anchors, view

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: the pages were not opened in a browser")]


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


@pytest.mark.parametrize("verb, image_count, box_kinds", [(view, 10, {"box "}), (anchors, 6, {
    "box anchor", "box iou-high", "box iou-medium", "box iou-low"})], ids=["view", "anchors"])
def test_a_page_opens_without_an_error_and_shows_images_with_boxes(verb, image_count, box_kinds, tiny, config_file, tmp_path,
                                                                   browser):
    page = verb(str(config_file), tiny, str(tmp_path / "page.html"))
    attributes = browser.open(page)
    assert "failure" not in attributes, attributes
    assert browser.run("document.querySelectorAll('figure image').length") == image_count
    kinds = browser.run("[...document.querySelectorAll('rect.box')].map(box => box.getAttribute('class'))")
    assert kinds and set(kinds) <= box_kinds
    assert browser.run("!document.body.innerText.match(/undefined|NaN|null/)")
