"""The answers to the requests of `annotate`: the page, images by number, labels, and what has changed.

Images are asked for by number; no path is taken from a request.
"""

import io
import json
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from detector.annotation.label_set import Conflict, Labels, LabelSet, check_objects
from detector.annotation.suggester import Suggester
from detector.errors import BadInput
from detector.report.page.build import csp_hash, escape_invalid, fill_template, to_script_json

JPEG_QUALITY = 93
FOLDER = Path(__file__).resolve().parent / "page"
REPORT_PAGE = FOLDER.parent.parent / "report" / "page"  # style and helpers of all pages
SCRIPTS = (*(REPORT_PAGE / name for name in ("charts.js", "theme.js", "boxes.js")),
           *(FOLDER / name for name in ("view.js", "images.js", "panels.js", "keys.js", "annotate.js")))
Answer = tuple[int, str, bytes, str]  # status, type, content, content security policy


class Refusal(Exception):
    """A request that is not answered: (status, sentence)."""


@dataclass(frozen=True)
class Site:
    """Labels and suggestions that a server serves.

    hosts: names by which it may be asked for, besides those of the loopback interface.
    """

    labels: LabelSet
    suggester: Suggester | None = None
    score: float = 0.5
    hosts: frozenset[str] = frozenset()
    is_open: bool = False  # listens to other machines: any IP address is then a name of this one
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def summary(self, index: int) -> dict:
        """Returns what the list of images shows of one."""
        rows = self.suggester.suggestions.get(index) if self.suggester else None
        return {"state": self.labels.states[index], "unsure": self.suggester.unsure(index) if self.suggester else None,
                "top": None if rows is None else max([row["score"] for row in rows], default=0)}

    def describe(self, index: int, labels: Labels) -> dict:
        """Returns the labels and suggestions of an image as a page gets them."""
        rows = self.suggester.suggestions.get(index) if self.suggester else None
        return {"version": labels.version, "labelled": labels.is_labelled, "objects": labels.objects,
                "suggestions": rows}


def get(site: Site, path: str, query: dict) -> Answer:
    """Returns the answer to a request that changes nothing. Raises Refusal."""
    if path == "/":
        page, policy = render_page(site)
        return 200, "text/html; charset=utf-8", page, policy
    if path == "/changes":
        return _json_answer(changes(site, query))
    kind, index = _route(site, path)
    try:
        if kind == "image":
            return 200, "image/jpeg", encode_image(site.labels, index), ""
        if site.suggester:
            site.suggester.look_at(index)
        return _json_answer(site.describe(index, site.labels.load(index)))
    except (BadInput, OSError) as error:
        raise Refusal(422, str(error)) from error


def put(site: Site, path: str, request: bytes) -> Answer:
    """Writes the labels of an image; returns the answer, with the labels as they are then in the file.

    409: the file has other labels than the page knows, which are the answer. 422: they cannot be read. 507: the file
    cannot be written.
    """
    kind, index = _route(site, path)
    if kind != "labels":
        raise Refusal(405, "images are not written")
    try:
        content = json.loads(request)
        if not isinstance(content, dict) or not isinstance(content.get("version"), str) or \
                not isinstance(content.get("labelled"), bool):
            raise BadInput("the request needs version, labelled and objects")
        objects = check_objects(content.get("objects"))
        _load(site, index)  # 422 where the file cannot be read: the page tries again
        try:
            status, labels = 200, site.labels.save(index, content["version"], content["labelled"], objects)
        except Conflict:
            status, labels = 409, _load(site, index)
        return _json_answer(site.describe(index, labels), status)
    except OSError as error:
        raise Refusal(507, f"{error.strerror or error}: {site.labels.root}") from error
    except (ValueError, RecursionError, BadInput) as error:
        raise Refusal(400, str(error)) from error


def changes(site: Site, query: dict) -> dict:
    """Returns the images that have changed since a serial number, and the version of the labels of one of them."""
    since, index = (int(query[key]) if re.fullmatch("[0-9]{1,12}", query.get(key, "")) else -1
                    for key in ("since", "image"))
    labels, version = site.labels, ""
    if index in labels.indices:
        try:
            version = labels.load(index).version
        except (BadInput, OSError):
            pass  # the page learns it when it saves or loads the image
    with labels.lock:
        return {"serial": labels.serial, "version": version,
                "images": {str(changed): site.summary(changed)
                           for changed, serial in labels.changes.items() if serial > since}}


def render_page(site: Site) -> tuple[bytes, str]:
    """Returns the page and its content security policy."""
    labels = site.labels
    style = "\n".join(path.read_text(encoding="utf-8") for path in (REPORT_PAGE / "page.css", FOLDER / "annotate.css"))
    script = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    data = {"folder": str(Path(labels.root).resolve()), "layout": labels.layout, "split": labels.split,
            "classes": labels.classes, "grid": labels.files.grid, "score": site.score,
            "suggests": site.suggester is not None, "serial": labels.serial,
            "images": [{"index": index, "name": labels.name(index), **site.summary(index)} for index in labels.indices]}
    values = {"STYLE": style, "DATA": to_script_json(data), "SCRIPT": script}
    page = fill_template((FOLDER / "annotate.html").read_text(encoding="utf-8"), values)
    policy = (f"default-src 'none'; script-src '{csp_hash(script)}'; style-src '{csp_hash(style)}'; connect-src 'self';"
              " base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
    return page.encode("utf-8"), policy


def _load(site: Site, index: int) -> Labels:
    """Returns the labels of an image. Raises Refusal if they cannot be read."""
    try:
        return site.labels.load(index)
    except (BadInput, OSError) as error:
        raise Refusal(422, str(error)) from error


def encode_image(labels: LabelSet, index: int) -> bytes:
    """Returns an image as JPEG, with the pixels that a training reads: turned as EXIF says, 8 bits, RGB."""
    pixels = labels.read_image(index).permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _route(site: Site, path: str) -> tuple[str, int]:
    match = re.fullmatch("/(image|labels)/([0-9]{1,9})", path)
    if not match or int(match[2]) not in site.labels.indices:
        raise Refusal(404, "no such page")
    return match[1], int(match[2])


def _json_answer(content: dict, status: int = 200) -> Answer:
    return status, "application/json", escape_invalid(json.dumps(content, allow_nan=False)).encode("utf-8"), ""
