"""Not a test: a local HTTP server with the faults of real networks: cut connections, errors, missing headers."""

import contextlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator


@dataclass
class Loopback:
    """Serves `files` (path -> content) and stores each request in `requests`: (path, first byte)."""

    files: dict[str, bytes]
    ranges: bool = True                                 # supports the header Range
    states_size: bool = True                            # sends Content-Length
    cuts: list[int] = field(default_factory=list)       # the next responses end after so many bytes
    errors: list[int] = field(default_factory=list)     # the next responses have these statuses
    requests: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


def handler(loopback: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            first = int((re.match(r"bytes=(\d+)-$", self.headers.get("Range", "")) or [0, "0"])[1])
            loopback.requests.append((self.path, first))
            if loopback.errors:
                return self.send_error(loopback.errors.pop(0))
            content = loopback.files.get(self.path)
            if content is None:
                return self.send_error(404)
            if first and loopback.ranges and first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            rest = content[first:] if loopback.ranges else content
            self.send_response(206 if first and loopback.ranges else 200)
            if loopback.states_size:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[:loopback.cuts.pop(0)] if loopback.cuts else rest)
    return Handler


@contextlib.contextmanager
def serve(files: dict[str, bytes], **behaviour) -> Iterator[Loopback]:
    loopback = Loopback(files, **behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(loopback))
    loopback.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield loopback
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
