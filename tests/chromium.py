"""Drives a headless Chromium over a pipe, by the Chrome DevTools Protocol, without a library."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--window-size=1300,1000", "--remote-debugging-pipe")
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Escape": 27, "Enter": 13, "Tab": 9, "Home": 36, "End": 35}


class Browser:
    """One tab. `messages` collects its console messages and uncaught exceptions."""

    def __init__(self):
        (browser_input, self.requests), (self.responses, browser_output) = os.pipe(), os.pipe()
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        self.process = subprocess.Popen(  # Chromium reads file descriptor 3 and writes 4
            ["bash", "-c", f'exec "$0" "$@" 3<&{browser_input} 4>&{browser_output}', CHROMIUM, *FLAGS, f"--user-data-dir={self.folder}"],
            pass_fds=(browser_input, browser_output), stderr=subprocess.DEVNULL, env={**os.environ, "HOME": self.folder})
        os.close(browser_input)
        os.close(browser_output)
        self.number, self.buffer, self.session, self.messages = 0, b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.requests)
        os.close(self.responses)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, **parameters) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.requests, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.messages.append(json.dumps(answer["params"])[:500])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def read(self) -> dict:
        while b"\0" not in self.buffer:
            part = os.read(self.responses, 1 << 20)
            assert part, "the browser has ended"
            self.buffer += part
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, address: str = "") -> dict[str, str]:
        """Loads a page and returns the data attributes of its root element, once the page is ready."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"file://{path}{'#' if address else ''}{address}")
        until = time.monotonic() + 60
        while self.run("document.documentElement?.dataset.ready || document.documentElement?.dataset.failure || ''") == "":
            assert time.monotonic() < until, (f"{path}#{address} never became ready", self.messages)
            time.sleep(0.02)
        return self.dataset()

    def run(self, script: str):
        """Returns the value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def dataset(self) -> dict[str, str]:
        assert not self.messages, self.messages
        return self.run("({...document.documentElement.dataset})")

    def address(self, part: str) -> str:
        """Returns the address from # on, once it ends with `part`; the page updates it with a short delay."""
        until = time.monotonic() + 10
        while not (address := self.run("location.hash")).endswith(part):
            assert time.monotonic() < until, f"the address {address} does not end with {part}"
            time.sleep(0.02)
        return address

    def press(self, *keys: str) -> dict[str, str]:
        for key in keys:
            for kind in ("rawKeyDown", "keyUp"):
                text = {"text": "\r"} if key == "Enter" and kind == "rawKeyDown" else {}
                self.call("Input.dispatchKeyEvent", type="keyDown" if text else kind, key=key, code=key,
                          windowsVirtualKeyCode=KEYS[key], **text)
        return self.dataset()

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
