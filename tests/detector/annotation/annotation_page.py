"""Not a test: the page of `annotate` in a real browser, driven by mouse and keys."""

import contextlib
import json
import os
import threading
import time

import pytest
from chromium import CHROMIUM, Browser
from test_layouts import photographs

from detector.annotation.routes import Site
from detector.annotation.server import open_server

IN_A_BROWSER = [pytest.mark.slow,
                pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: the page was not opened in a browser")]
ALT, CTRL, SHIFT = 1, 2, 8
CODES = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40, "Delete": 46, "Escape": 27, "Enter": 13}


class AnnotationPage:
    """One tab with the page. Counts the actions of its user: drags, clicks and keys."""

    def __init__(self, browser: Browser, url: str):
        self.browser, self.actions, self.may_be_refused = browser, 0, False
        self.load("Page.navigate", url=url)

    def reload(self) -> None:
        self.load("Page.reload")

    def load(self, method: str, **parameters) -> None:
        """Loads a page. No script is run before it is there: the answer could be lost with the page before."""
        browser = self.browser
        browser.number += 1
        message = {"id": browser.number, "method": method, "params": parameters, "sessionId": browser.session}
        os.write(browser.requests, json.dumps(message).encode() + b"\0")
        while browser.read().get("method") != "Page.loadEventFired":
            pass
        self.wait("document.documentElement.dataset.ready === 'yes' && saved()", "document.documentElement.dataset.ready")

    def run(self, script: str):
        return self.browser.run(script)

    def wait(self, condition: str, about: str = "''", seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        condition = condition.replace("saved()", "(unsaved().length === 0)")
        while not self.run(f"(() => {{ try {{ return !!({condition}); }} catch {{ return false; }} }})()"):
            assert time.monotonic() < until, (condition, self.browser.messages, self.run("document.documentElement.dataset.failure"),
                                              self.run("document.body.innerText.slice(0, 400)"))
            time.sleep(0.02)

    def settled(self) -> None:
        """Waits until everything is shown and saved."""
        self.wait("root.dataset.index === String(page.index) && !update.isPending && !redraw.isPending && !page.isCopying && saved()")
        if self.may_be_refused:
            self.browser.messages[:] = [text for text in self.browser.messages if "409 (Conflict)" not in text]
        assert "failure" not in self.browser.dataset(), self.browser.dataset()

    def key(self, key: str, modifiers: int = 0) -> None:
        self.actions += 1
        code = CODES.get(key, ord(key[0].upper()))
        text = {"text": key} if len(key) == 1 and not modifiers & CTRL else {}
        for kind in ("keyDown" if text else "rawKeyDown", "keyUp"):
            extra = text if kind == "keyDown" else {}
            self.browser.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, modifiers=modifiers, **extra)

    def mouse(self, kind: str, x: float, y: float, button: str = "left", modifiers: int = 0, **more) -> None:
        self.browser.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, clickCount=int(kind != "mouseMoved"),
                          modifiers=modifiers, buttons=0 if kind == "mouseReleased" else {"left": 1, "right": 2}.get(button, 0), **more)

    def drag(self, start, end, modifiers: int = 0, button: str = "left") -> None:
        """Drags from one point of the window to another."""
        self.actions += 1
        self.mouse("mousePressed", *start, button, modifiers)
        for part in (0.3, 0.7, 1):
            self.mouse("mouseMoved", *(a + (b - a) * part for a, b in zip(start, end)), button, modifiers)
        self.mouse("mouseReleased", *end, button, modifiers)

    def click(self, point) -> None:
        self.actions += 1
        self.mouse("mousePressed", *point)
        self.mouse("mouseReleased", *point)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns the point of the window where a point of the image is shown."""
        left, top, px, py, scale = self.run(
            "(() => { const r = stage.getBoundingClientRect(); return [r.left, r.top, view.x, view.y, view.scale]; })()")
        return left + px + x * scale, top + py + y * scale

    def draw(self, box) -> None:
        self.drag(self.at(*box[:2]), self.at(*box[2:]), SHIFT)

    def objects(self) -> list[tuple[str, list[float]]]:
        return [(name, box) for name, box in self.run("current().objects.map(o => [o.name, o.box])")]

    def press_button(self, text: str) -> None:
        """Clicks a button by its text, with the mouse."""
        self.settled()
        x, y = self.run("(() => { const b = [...document.querySelectorAll('button, .text')].find(b => b.textContent === "
                        f"{json.dumps(text)}); b.scrollIntoView(); const r = b.getBoundingClientRect(); "
                        "return [r.left + r.width / 2, r.top + r.height / 2]; })()")
        self.click((x, y))


@contextlib.contextmanager
def served(site: Site):
    """Serves a site; yields the address of its page."""
    with open_server(site, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        if site.suggester:
            site.suggester.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/?token={site.token}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


@pytest.fixture
def root(tmp_path):
    return photographs(tmp_path / "photos", 4, (640, 480))


def stored(root, index: int) -> list[tuple[str, list[float]]]:
    """Returns classes and boxes in the file of an image; [] if there is none."""
    path = root / "labels" / f"{index}.json"
    content = json.loads(path.read_text()) if path.exists() else {"labels": [], "boxes": []}
    return [*zip(content["labels"], content["boxes"])]
