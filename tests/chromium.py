"""A headless Chromium that tests drive over its own pipe (Chrome DevTools Protocol), without a library."""

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
    """One tab. `faults` collects what it wrote on its console and what it threw."""

    def __init__(self):
        (its_end, self.say), (self.hear, its_voice) = os.pipe(), os.pipe()
        self.folder = tempfile.mkdtemp(prefix="chromium-")
        self.process = subprocess.Popen(  # it reads 3 and writes 4
            ["bash", "-c", f'exec "$0" "$@" 3<&{its_end} 4>&{its_voice}', CHROMIUM, *FLAGS, f"--user-data-dir={self.folder}"],
            pass_fds=(its_end, its_voice), stderr=subprocess.DEVNULL, env={**os.environ, "HOME": self.folder})
        os.close(its_end)
        os.close(its_voice)
        self.number, self.rest, self.session, self.warnings = 0, b"", None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.say)
        os.close(self.hear)
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method: str, **parameters) -> dict:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.say, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.read()
            if answer.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.warnings.append(json.dumps(answer["params"])[:500])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def read(self) -> dict:
        while b"\0" not in self.rest:
            part = os.read(self.hear, 1 << 20)
            assert part, "the browser has ended"
            self.rest += part
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, address: str = "") -> dict[str, str]:
        """Loads a page anew; gives what its root says of itself once it is ready."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"file://{path}{'#' if address else ''}{address}")
        until = time.monotonic() + 60
        while self.run("document.documentElement?.dataset.ready || document.documentElement?.dataset.fault || ''") == "":
            assert time.monotonic() < until, (f"{path}#{address} never became ready", self.warnings)
            time.sleep(0.02)
        return self.told()

    def run(self, script: str):
        """The value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def told(self) -> dict[str, str]:
        assert not self.warnings, self.warnings
        return self.run("({...document.documentElement.dataset})")

    def address(self, part: str) -> str:
        """The part of the address from # on, once it ends so; it follows what is seen by a moment."""
        until = time.monotonic() + 10
        while not (said := self.run("location.hash")).endswith(part):
            assert time.monotonic() < until, f"{part} is not the end of the address {said}"
            time.sleep(0.02)
        return said

    def press(self, *keys: str) -> dict[str, str]:
        for key in keys:
            for kind in ("rawKeyDown", "keyUp"):
                text = {"text": "\r"} if key == "Enter" and kind == "rawKeyDown" else {}
                self.call("Input.dispatchKeyEvent", type="keyDown" if text else kind, key=key, code=key,
                          windowsVirtualKeyCode=KEYS[key], **text)
        return self.told()

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))
