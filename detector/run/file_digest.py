"""Sealed files: a zip archive with the digest of its bytes as the archive's comment, so that no damage is passed over.

torch.save writes a zip archive, and torch.load reads one with a comment as one without. A sealed file is

    all of the archive but two bytes | length of the comment, two bytes | comment: SEAL and the digest as hex digits

The digest is of the first part; the other two are compared byte by byte. So every flipped bit, every cut and every
appended byte is found. Nor can one make a sealed file look like one of an older version, which ends without a comment:
its last bytes are digits of the digest, and a cut leaves the length of a comment that is gone.

The digest is the XXH3-128 of the XXH3-128 of each PART bytes, which several threads read.
"""

import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

try:
    import xxhash
except ImportError:  # files then get no digest; see fallback_message
    xxhash = None

SEAL = b"fleet-rcnn xxh3_128 of 16 MiB parts: "
COMMENT_BYTES = len(SEAL) + 32
LENGTH_FIELD = COMMENT_BYTES.to_bytes(2, "little")
MEMBER = b"PK\3\4"         # how an archive starts
END_RECORD = b"PK\5\6"     # its last record, END_RECORD_BYTES long, ends with the length of the comment
END_RECORD_BYTES = 22
PART = 16 << 20
BLOCK = 2 << 20            # bytes that a thread reads at once: they are still in the processor's cache when hashed
THREADS = min(8, os.cpu_count() or 1)


class Damaged(Exception):
    """A file is not as it was written; the message says in which way, without its path."""


class SealedWriter:
    """A file that is written from its start to its end; the digest is computed on the way, nothing is read again."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.digests: list[bytes] = []  # of the parts that are complete
        self.part, self.room = xxhash and xxhash.xxh3_128(), PART
        self.tail = b""                 # the last two bytes written, which are not in `part` yet

    def write(self, data: bytes | memoryview) -> int:
        """Writes bytes; returns how many."""
        view = memoryview(data).cast("B")
        self.file.write(view)
        if xxhash:
            if len(view) < 2:
                view = memoryview(self.tail + bytes(view))
            else:
                self._add(memoryview(self.tail))
            self._add(view[:-2])
            self.tail = bytes(view[-2:])
        return len(data)

    def flush(self) -> None:
        """Passes what is buffered to the operating system."""
        self.file.flush()

    def seal(self) -> None:
        """Writes the comment of a complete archive."""
        if xxhash:
            self.file.seek(-2, os.SEEK_END)
            self.file.write(LENGTH_FIELD + SEAL + combine([*self.digests, self.part.digest()]))

    def _add(self, view: memoryview) -> None:
        while len(view):
            if not self.room:
                self.digests.append(self.part.digest())
                self.part, self.room = xxhash.xxh3_128(), PART
            now, view = view[:self.room], view[self.room:]
            self.part.update(now)
            self.room -= len(now)


def verify_file(path: Path) -> None:
    """Reads a file and compares its digest; of a file of an older version, the CRCs of the archive's members.

    Raises:
        Damaged: the file is not as it was written.
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        is_archive = file.read(len(MEMBER)) == MEMBER
        size = file.seek(0, os.SEEK_END)
        file.seek(-min(size, END_RECORD_BYTES + COMMENT_BYTES), os.SEEK_END)
        end = file.read()
    is_of_older_version = end[-END_RECORD_BYTES:].startswith(END_RECORD) and end.endswith(b"\0\0")
    is_sealed = end.startswith(END_RECORD) and SEAL in end
    if is_of_older_version or is_sealed and not xxhash:
        verify_members(path)
    elif not is_sealed:
        raise Damaged(f"it was cut, extended or changed: its {size} bytes do not end with a digest" if is_archive
                      else "it does not start as a file of torch.save")
    elif not end.endswith(LENGTH_FIELD + SEAL + digest_file(path, size - COMMENT_BYTES - len(LENGTH_FIELD))):
        raise Damaged(f"its {size} bytes are not those that were written: their digest is another")


def verify_foreign(path: Path) -> bool:
    """Verifies a file that any program may have written: an archive without our digest by its CRCs.

    Returns:
        False if the file is no archive, so that nothing is known.

    Raises:
        Damaged, OSError: see `verify_file`.
    """
    with open(path, "rb") as file:
        is_archive = file.read(len(MEMBER)) == MEMBER
        file.seek(0, os.SEEK_END)
        file.seek(-min(file.tell(), COMMENT_BYTES), os.SEEK_END)
        is_sealed = file.read().startswith(SEAL)
    if is_archive:
        (verify_file if is_sealed else verify_members)(path)
    return is_archive


def digest_file(path: Path, size: int) -> bytes:
    """Returns the digest of the first `size` bytes of a file, as hex digits."""
    with ThreadPoolExecutor(THREADS) as pool:
        return combine(list(pool.map(lambda start: digest_part(path, start, min(start + PART, size)),
                                     range(0, size, PART))))


def digest_part(path: Path, start: int, stop: int) -> bytes:
    """Returns the XXH3-128 of these bytes of a file."""
    digest, block = xxhash.xxh3_128(), memoryview(bytearray(min(BLOCK, stop - start)))
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while start < stop and (count := file.readinto(block[:stop - start])):
            digest.update(block[:count])
            start += count
    return digest.digest()


def combine(digests: list[bytes]) -> bytes:
    """Returns the digest of a file, as hex digits, from those of its parts."""
    return xxhash.xxh3_128_hexdigest(b"".join(digests)).encode()


def verify_members(path: Path) -> None:
    """Compares the CRC of every member of a zip archive. Raises Damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise Damaged(f"it is no complete archive: {error}") from error
    if damaged:
        raise Damaged(f"the CRC of its part {damaged} is wrong")


def fallback_message() -> str:
    """Returns a sentence if xxhash is not installed; "" if it is."""
    return "" if xxhash else ("xxhash is not installed: checkpoints get no digest, and damage is found only where the "
                              "CRCs of their parts tell. `pip install xxhash` adds the digest")
