"""One file from the network: continued where it was cut, checked, and under its own name only when it is whole."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from detector.errors import BadInput

BLOCK = 1 << 20
TIMEOUT_S = 30.0  # without a byte
TRIES = 5         # in a row without a byte; a connection that brings some may break as often as it likes
AGENT = {"User-Agent": "fleet-rcnn", "Accept-Encoding": "identity"}
BROKEN = (http.client.HTTPException, OSError)  # what a cut connection raises, a URLError and a time-out among them


def download(url: str, target: Path, checksum: str, wait_s: float = 1.0) -> None:
    """Fetches `target`; what an earlier start has left in TARGET.part is continued. Raises BadInput where it cannot.

    `checksum` is "md5:..." or "sha256:...", or empty: then the size that the server states is all there is to check.
    `wait_s`: before the second try; each further one waits twice as long.
    """
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = size_of(part)
        try:
            total = fetch(url, part)
            if total is None or size_of(part) == total:
                break
            reason = f"the connection ended after {size_of(part)} of {total} bytes"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise BadInput(f"cannot download {url}: the server says {error.code} {error.reason}. Fetch the file "
                               f"in another way and put it at {target}") from error
            reason = f"the server says {error.code} {error.reason}"
        except OutOfSpace as error:
            raise BadInput(f"cannot write {part}: {error}. Make room and start again: what is there is kept") from error
        except BROKEN as error:
            reason = str(error) or type(error).__name__
        failures = 0 if size_of(part) > before else failures + 1
        if failures >= TRIES:
            raise BadInput(f"cannot download {url}: {reason}, {TRIES} times in a row. Start again later to go on from "
                           f"byte {size_of(part)}, or put the file at {target}")
        time.sleep(wait_s * 2 ** failures)
    verify(part, checksum, url)
    os.replace(part, target)


class OutOfSpace(Exception):
    """Writing failed; not the network."""


def fetch(url: str, part: Path) -> int | None:
    """One connection, appended to `part`; the size of the whole file, or None where the server does not say."""
    have = size_of(part)
    request = urllib.request.Request(url, headers={**AGENT, **({"Range": f"bytes={have}-"} if have else {})})
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after what we have: it is whole, or of another file
            stated = error.headers.get("Content-Range", "").rpartition("/")[2]
            if stated.isdigit() and int(stated) == have:
                return have
            part.unlink()
            raise ConnectionError("the part that was there is longer than the file") from error
        raise
    with answer:
        stated = answer.headers.get("Content-Length")
        goes_on = have > 0 and answer.status == 206
        total = int(stated) + (have if goes_on else 0) if stated else None
        with open(part, "ab" if goes_on else "wb") as file, \
                tqdm(total=total, initial=have if goes_on else 0, desc=part.name.removesuffix(".part"), unit="B",
                     unit_scale=True, unit_divisor=1024, disable=None, leave=False) as bar:
            while block := answer.read(BLOCK):
                try:
                    file.write(block)
                except OSError as error:
                    raise OutOfSpace(error.strerror or str(error)) from error
                bar.update(len(block))
    return total


def size_of(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def verify(path: Path, checksum: str, url: str) -> None:
    """Raises BadInput, and removes the file, where it is not the one that `checksum` stands for."""
    if not checksum:
        return
    kind, _, wanted = checksum.partition(":")
    found = hashlib.new(kind)
    with open(path, "rb") as file, tqdm(total=size_of(path), desc=f"checking {path.stem}", unit="B", unit_scale=True,
                                        unit_divisor=1024, disable=None, leave=False) as bar:
        while block := file.read(BLOCK):
            found.update(block)
            bar.update(len(block))
    if found.hexdigest() != wanted:
        path.unlink()
        raise BadInput(f"{url} is not the file it should be: its {kind} is {found.hexdigest()}, {wanted} was expected. "
                       "It has been removed; start again, and if it happens again something between here and there "
                       "changes it")
