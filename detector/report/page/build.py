"""One HTML file from its parts: NAME.html with page.css and its scripts of this folder, and its data.

Nothing is fetched, and a policy in the page forbids it; scripts and styles run by their hash only. Names reach the page
as JSON and are set as text, never as HTML.
"""

import base64
import hashlib
import html
import json
from pathlib import Path

from detector.run.files import write_whole

HERE = Path(__file__).resolve().parent
SCRIPTS = {"view": ("charts.js", "boxes.js", "view.js"),
           "report": ("charts.js", "boxes.js", "found.js", "numbers.js", "gallery.js", "report.js")}


def write_page(path: Path, name: str, title: str, data: dict) -> None:
    """Writes the page `name` (view or report) with its data; appears whole or not at all."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = "\n".join((HERE / part).read_text(encoding="utf-8") for part in SCRIPTS[name])
    policy = (f"default-src 'none'; img-src data:; script-src '{fingerprint(script)}'; "
              f"style-src '{fingerprint(style)}'; base-uri 'none'; form-action 'none'")
    parts = {"TITLE": html.escape(title), "POLICY": policy, "STYLE": style, "DATA": inert_json(data), "SCRIPT": script}
    text = (HERE / f"{name}.html").read_text(encoding="utf-8")
    pieces = text.split("%%")  # names stand between: what is filled in may itself contain anything
    write_whole(path, "".join(parts[piece] if number % 2 else piece for number, piece in enumerate(pieces)))


def fingerprint(text: str) -> str:
    """A source expression of a content security policy (W3C CSP level 2, section 4.2.5)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def inert_json(data: dict) -> str:
    """JSON that can stand in a <script> of any type: no text in it can end the element or begin another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
