"""The HTTP server of `annotate`: which requests are answered at all; routes.py has the answers.

Built on the standard library's ThreadingHTTPServer: five small routes for one user need no framework, and nothing is to
be installed on a cluster. A request must name this server in Host (so that no other site's name can lead here), come
from its own page (Origin), and carry the token: in the address of the page, in the header X-Token of everything else.
"""

import contextlib
import hmac
import ipaddress
import re
import socket
import sys
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from detector.annotation.routes import Refusal, Site, get, put
from detector.errors import BadInput

MAX_BODY = 4 << 20      # bytes of a request
TIMEOUT_S = 60          # of a connection on which nothing arrives
LOOPBACK = ("127.0.0.1", "localhost", "::1")


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
