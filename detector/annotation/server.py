"""The HTTP server of `annotate`: the page, images by number, labels, and what has changed.

Built on the standard library's ThreadingHTTPServer: five small routes for one user need no framework, nothing is to be
installed on a cluster, and each check of a request stands in this file. A request must name this server in Host (so
that no other site's name can lead here), come from its own page (Origin), and carry the token: in the address of the
page, in the header X-Token of everything else. Images are asked for by number; no path is taken from a request.
"""

import contextlib
import hmac
import io
import ipaddress
import json
import re
import secrets
import socket
import sys
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from PIL import Image

from detector.annotation.label_set import Conflict, Labels, LabelSet, check_objects
from detector.annotation.suggester import Suggester
from detector.errors import BadInput
from detector.report.page.build import csp_hash, escape_invalid, fill_template, to_script_json

MAX_BODY = 4 << 20      # bytes of a request
TIMEOUT_S = 60          # of a connection on which nothing arrives
LOOPBACK = ("127.0.0.1", "localhost", "::1")
JPEG_QUALITY = 93
FOLDER = Path(__file__).resolve().parent / "page"
REPORT_PAGE = FOLDER.parent.parent / "report" / "page"  # style and helpers of all pages
SCRIPTS = (*(REPORT_PAGE / name for name in ("charts.js", "theme.js", "boxes.js")),
           *(FOLDER / name for name in ("view.js", "images.js", "panels.js", "keys.js", "annotate.js")))


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


def open_server(site: Site, host: str, port: int) -> ThreadingHTTPServer:
    """Returns a server that is bound to an address. Raises BadInput if that is impossible."""
    server_class = type("Server", (ThreadingHTTPServer,), {
        "address_family": socket.AF_INET6 if ":" in host else socket.AF_INET, "daemon_threads": True,
        "handle_error": report_error})
    try:
        return server_class((host, port), handler_class(site))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "a port is a number from 0 to 65535"
        raise BadInput(f"cannot listen on {host}, port {port}: {reason}. Name another --port (0: any free one), or "
                       "another --host") from error


def report_error(*_) -> None:
    """Prints an unexpected error of a request; the server goes on. A page that was closed is none."""
    if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
        traceback.print_exc()


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


class Refusal(Exception):
    """A request that is not answered: (status, sentence)."""


def handler_class(site: Site) -> type[BaseHTTPRequestHandler]:
    """Returns the class that answers the requests of one site."""
    class Handler(BaseHTTPRequestHandler):
        protocol_version, server_version, sys_version, timeout = "HTTP/1.1", "fleet-rcnn", "", TIMEOUT_S

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.answer(lambda path, query: get(site, path, query))

        def do_PUT(self):
            self.answer(lambda path, query: put(site, path, self.read_request()))

        def answer(self, respond):
            try:
                address = urlsplit(self.path)
                query = {key: values[-1] for key, values in parse_qs(address.query).items()}
                if address.netloc:
                    raise Refusal(400, "this is no proxy")
                check_request(site, self.headers, address.path, query)
                status, kind, content, policy = respond(address.path, query)
            except Refusal as refusal:
                status, text = refusal.args
                kind, content, policy = "text/plain; charset=utf-8", text.encode("utf-8", "backslashreplace"), ""
                self.close_connection = True  # its body may not have been read
            except ValueError:  # an address that is none
                status, kind, content, policy, self.close_connection = 400, "text/plain", b"bad request", "", True
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store",
                                "Content-Security-Policy": policy or "default-src 'none'", "X-Frame-Options": "DENY",
                                "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
                                "Cross-Origin-Resource-Policy": "same-origin"}.items():
                self.send_header(name, value)
            if self.close_connection:
                self.send_header("Connection", "close")
            with contextlib.suppress(ConnectionError):  # the page has been closed
                self.end_headers()
                self.wfile.write(content)

        def read_request(self) -> bytes:
            length = self.headers.get("Content-Length", "")
            if not re.fullmatch("[0-9]{1,12}", length) or self.headers.get("Transfer-Encoding"):
                raise Refusal(411, "Content-Length is missing")
            if int(length) > MAX_BODY:
                raise Refusal(413, f"a request may have {MAX_BODY} bytes")
            return self.rfile.read(int(length))
    return Handler


def check_request(site: Site, headers, path: str, query: dict) -> None:
    """Raises Refusal for a request that another site, another machine or a page without the token sends."""
    host = headers.get("Host", "")
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        name = ""
    if name not in LOOPBACK and name not in site.hosts and not (site.is_open and _is_address(name)):
        raise Refusal(403, "this server has another name; see --host")
    origin = headers.get("Origin")
    if origin is not None and origin != f"http://{host}" or \
            headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise Refusal(403, "a request from another origin")
    token = query.get("token", "") if path == "/" else headers.get("X-Token", "")
    if not hmac.compare_digest(token.encode("utf-8", "replace"), site.token.encode()):
        raise Refusal(403, "the token is missing or wrong: open the address that fleet-rcnn annotate has printed")


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def get(site: Site, path: str, query: dict) -> tuple[int, str, bytes, str]:
    """Returns status, type, content and policy of an answer. Raises Refusal."""
    if path == "/":
        page, policy = render_page(site)
        return 200, "text/html; charset=utf-8", page, policy
    if path == "/changes":
        return _json(changes(site, query))
    kind, index = _route(site, path)
    try:
        if kind == "image":
            return 200, "image/jpeg", encode_image(site.labels, index), ""
        if site.suggester:
            site.suggester.look_at(index)
        return _json(site.describe(index, site.labels.load(index)))
    except (BadInput, OSError) as error:
        raise Refusal(422, str(error)) from error


def _load(site: Site, index: int) -> Labels:
    """Returns the labels of an image. Raises Refusal if they cannot be read."""
    try:
        return site.labels.load(index)
    except (BadInput, OSError) as error:
        raise Refusal(422, str(error)) from error


def put(site: Site, path: str, request: bytes) -> tuple[int, str, bytes, str]:
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
        return status, *_json(site.describe(index, labels))[1:]
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


def _json(content: dict) -> tuple[int, str, bytes, str]:
    return 200, "application/json", escape_invalid(json.dumps(content, allow_nan=False)).encode("utf-8"), ""
