"""Not a test: a small HTTP server on this machine that breaks in the ways in which the network does."""

import contextlib
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Iterator


@dataclass
class Loopback:
    """Serves `files` (path -> content). What it was asked is in `asked`: (path, first byte)."""

    files: dict[str, bytes]
    ranges: bool = True                                 # does it know Range?
    states_size: bool = True                            # does it say Content-Length?
    cuts: list[int] = field(default_factory=list)       # the next answers end after so many bytes
    errors: list[int] = field(default_factory=list)     # the next answers are these statuses
    asked: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""


def handler(world: Loopback) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            first = int((re.match(r"bytes=(\d+)-$", self.headers.get("Range", "")) or [0, "0"])[1])
            world.asked.append((self.path, first))
            if world.errors:
                return self.send_error(world.errors.pop(0))
            content = world.files.get(self.path)
            if content is None:
                return self.send_error(404)
            if first and world.ranges and first >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            rest = content[first:] if world.ranges else content
            self.send_response(206 if first and world.ranges else 200)
            if world.states_size:
                self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest[:world.cuts.pop(0)] if world.cuts else rest)
    return Handler


@contextlib.contextmanager
def serve(files: dict[str, bytes], **behaviour) -> Iterator[Loopback]:
    world = Loopback(files, **behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(world))
    world.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
