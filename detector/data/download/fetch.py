"""Downloads one file: resumed after a cut connection, verified, and renamed to its own name only when complete."""

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
MAX_TRIES = 5     # in a row without a byte; the number of connections that deliver some bytes is not limited
HEADERS = {"User-Agent": "fleet-rcnn", "Accept-Encoding": "identity"}
CONNECTION_ERRORS = (http.client.HTTPException, OSError)  # includes URLError and time-outs
RETRY_STATUS = (408, 429)  # of the HTTP statuses below 500, those after which a retry may help


class WriteFailed(Exception):
    """Writing to the disk failed, as opposed to reading from the network."""


def download(url: str, target: Path, checksum: str, wait_s: float = 1.0) -> None:
    """Downloads `url` to `target`; TARGET.part of an earlier attempt is continued.

    Args:
        checksum: "md5:..." or "sha256:..."; empty: only the size that the server states is checked.
        wait_s: unit of the waiting time between two tries, in seconds; the time is doubled for each further one.

    Raises:
        BadInput: the server refuses, the connection fails MAX_TRIES times in a row, the disk is full, or the checksum
            differs.
    """
    part = target.with_name(target.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        size_before = file_size(part)
        try:
            total = fetch_once(url, part)
            if total is None or file_size(part) == total:
                break
            reason = f"the connection ended after {file_size(part)} of {total} bytes"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in RETRY_STATUS:
                raise BadInput(f"cannot download {url}: the server answers {error.code} {error.reason}. Get the file "
                               f"in another way and put it at {target}") from error
            reason = f"the server answers {error.code} {error.reason}"
        except WriteFailed as error:
            raise BadInput(f"cannot write {part}: {error}. Free some space and start again; the download continues "
                           "where it stopped") from error
        except CONNECTION_ERRORS as error:
            reason = str(error) or type(error).__name__
        failures = 0 if file_size(part) > size_before else failures + 1
        if failures >= MAX_TRIES:
            raise BadInput(f"cannot download {url}: {reason}, {MAX_TRIES} times in a row. Start again later to "
                           f"continue at byte {file_size(part)}, or put the file at {target}")
        time.sleep(wait_s * 2 ** failures)
    verify(part, checksum, url)
    os.replace(part, target)


def fetch_once(url: str, part: Path) -> int | None:
    """Appends to `part` what one connection delivers; returns the size of the complete file, None if not stated."""
    size = file_size(part)
    request = urllib.request.Request(url, headers={**HEADERS, **({"Range": f"bytes={size}-"} if size else {})})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # range not satisfiable: the part is complete, or belongs to another file
            stated = error.headers.get("Content-Range", "").rpartition("/")[2]
            if stated.isdigit() and int(stated) == size:
                return size
            part.unlink()
            raise ConnectionError("the partial file was longer than the file on the server") from error
        raise
    with response:
        stated = response.headers.get("Content-Length")
        resumed = size > 0 and response.status == 206
        total = int(stated) + (size if resumed else 0) if stated else None
        with open(part, "ab" if resumed else "wb") as file, \
                tqdm(total=total, initial=size if resumed else 0, desc=part.name.removesuffix(".part"), unit="B",
                     unit_scale=True, unit_divisor=1024, disable=None, leave=False) as bar:
            while block := response.read(BLOCK):
                try:
                    file.write(block)
                except OSError as error:
                    raise WriteFailed(error.strerror or str(error)) from error
                bar.update(len(block))
    return total


def file_size(path: Path) -> int:
    """Returns the size of a file in bytes; 0 for a missing one."""
    return path.stat().st_size if path.is_file() else 0


def verify(path: Path, checksum: str, url: str) -> None:
    """Removes the file and raises BadInput if its checksum differs from `checksum`; an empty one accepts any file."""
    if not checksum:
        return
    algorithm, _, expected = checksum.partition(":")
    digest = hashlib.new(algorithm)
    with open(path, "rb") as file, tqdm(total=file_size(path), desc=f"checking {path.stem}", unit="B", unit_scale=True,
                                        unit_divisor=1024, disable=None, leave=False) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    if digest.hexdigest() != expected:
        path.unlink()
        raise BadInput(f"{url} is not the expected file: its {algorithm} is {digest.hexdigest()}, expected {expected}. "
                       "The download has been removed; start again. If this happens again, a proxy may change the file")
