"""Builds an HTML file from NAME.html, page.css and the scripts of this folder, and the page's data.

A page fetches nothing, and its content security policy forbids it to; scripts and styles run by their hash only. Names
from the data reach the page as JSON and are set as text, never as HTML.
"""

import base64
import hashlib
import html
import json
from pathlib import Path

from detector.run.files import refuse_folder, write_whole

FOLDER = Path(__file__).resolve().parent
SCRIPTS = {"view": ("charts.js", "theme.js", "boxes.js", "view.js"),
           "report": ("charts.js", "theme.js", "boxes.js", "matching.js", "metrics.js", "confusion.js", "gallery.js",
                      "labels.js", "report.js")}


def write_page(path: Path, name: str, title: str, data: dict) -> None:
    """Writes a page with its data; the file is replaced as a whole.

    Args:
        name: "view" or "report", the template.
        data: values that JSON can represent; NaN is an error.
    """
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    script = "\n".join((FOLDER / part).read_text(encoding="utf-8") for part in SCRIPTS[name])
    policy = (f"default-src 'none'; img-src data:; script-src '{csp_hash(script)}'; "
              f"style-src '{csp_hash(style)}'; base-uri 'none'; form-action 'none'")
    values = {"TITLE": html.escape(escape_invalid(title)), "POLICY": policy, "STYLE": style,
              "DATA": to_script_json(data), "SCRIPT": script}
    write_whole(path, fill_template((FOLDER / f"{name}.html").read_text(encoding="utf-8"), values))


def fill_template(template: str, values: dict[str, str]) -> str:
    """Returns a template with every %%NAME%% replaced by the value NAME; values are not searched for placeholders."""
    pieces = template.split("%%")  # text and names alternate
    return "".join(values[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def page_path(option: str, out: str, name: str) -> Path:
    """Returns the path of a page to write: `out`, or without it `new_page_path(name)`.

    Args:
        option: whose value `out` is, for the error.

    Raises:
        BadInput: `out` is a folder.
    """
    if not out:
        return new_page_path(name)
    refuse_folder(option, Path(out), f"{name}.html")
    return Path(out)


def new_page_path(name: str) -> Path:
    """Returns pages/NAME.html in the current folder, or NAME-2.html and so on: a file that is not there yet."""
    number, path = 1, Path("pages") / f"{name}.html"
    while path.exists():
        number += 1
        path = Path("pages") / f"{name}-{number}.html"
    return path


def csp_hash(text: str) -> str:
    """Returns the hash source of an inline script or style. (W3C Content Security Policy level 2, section 4.2.5)"""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def to_script_json(data: dict) -> str:
    """Returns JSON that is safe inside a <script> element: no text in it can end the element or start another."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = escape_invalid(text)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def escape_invalid(text: str) -> str:
    """Returns a text in which bytes that are not UTF-8, as file names may have, are escaped as JSON escapes them."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
