"""Headers of image files: size and EXIF orientation of JPEG and PNG, read without trusting any other metadata."""

import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO, Iterator

EXIF_ORIENTATION = 0x0112  # tag number (EXIF 2.32)
SWAPS_SIZE = (5, 6, 7, 8)  # EXIF orientations that swap width and height
VALUE_FORMATS = {1: "B", 3: "H", 4: "I"}  # EXIF types BYTE, SHORT and LONG
JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")  # of a PNG; all others are metadata
# Markers that start a frame (ITU-T T.81, table B.1): C0 ... CF without DHT, JPG and DAC.
FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
APP1, START_OF_SCAN, FIRST_WITH_LENGTH = 0xE1, 0xDA, 0xC0
WITHOUT_LENGTH = frozenset(range(0xD0, 0xDA))  # RSTn, SOI, EOI


@dataclass(frozen=True)
class Header:
    """Size of an image as stored, and the EXIF orientation that turns it as viewers show it: 1 ... 8, 1 for none."""

    height: int
    width: int
    orientation: int
    components: int = 3  # of a JPEG: 4 for CMYK

    def turned_size(self) -> tuple[int, int]:
        """Returns height and width after the orientation is applied."""
        return (self.width, self.height) if self.orientation in SWAPS_SIZE else (self.height, self.width)


def exif_block_orientation(block: bytes) -> int:
    """Returns the orientation in an EXIF block, 1 ... 8; 1 if it states none or cannot be parsed. (EXIF 2.32, 4.6)"""
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        first, = struct.unpack_from(f"{order}I", block, 4)
        count, = struct.unpack_from(f"{order}H", block, first)
        for position in range(first + 2, first + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, position)
            if tag == EXIF_ORIENTATION:
                value, = struct.unpack_from(order + VALUE_FORMATS.get(kind, "H"), block, position + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def read_jpeg_header(file: BinaryIO) -> Header | None:
    """Returns the header of a JPEG; None where a segment is not as usual, so that a decoder has to say what it is."""
    size, orientation, components = None, 0, 0
    file.seek(2)
    while True:
        prefix = file.read(4)
        while prefix[:2] == b"\xff\xff":  # fill bytes
            prefix = prefix[1:] + file.read(1)
        if len(prefix) < 4 or prefix[0] != 0xFF or prefix[1] < FIRST_WITH_LENGTH or prefix[1] in WITHOUT_LENGTH:
            return None
        marker, length = prefix[1], int.from_bytes(prefix[2:], "big") - 2
        if marker == START_OF_SCAN:
            return Header(*size, orientation or 1, components) if size and min(size) > 0 else None
        if length < 0 or marker in FRAME_MARKERS and size:
            return None
        content = file.read(length) if marker in FRAME_MARKERS or marker == APP1 else b""
        if marker in FRAME_MARKERS:
            if len(content) < 6:
                return None
            size, components = struct.unpack_from(">HH", content, 1), content[5]
        elif content.startswith(b"Exif\0\0") and not orientation:
            orientation = exif_block_orientation(content)
        file.seek(length - len(content), 1)


def png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, position of the content and its length of each chunk of a PNG. (PNG specification, 5.3)"""
    position, kind = len(PNG_START), b""
    while kind != b"IEND":
        file.seek(position)
        prefix = file.read(8)
        if len(prefix) < 8:
            return
        length, kind = struct.unpack(">I4s", prefix)
        yield kind, position + 8, length
        position += 12 + length


def read_png_header(file: BinaryIO) -> Header | None:
    """Returns the header of a PNG; None if it does not begin with one. EXIF with a wrong checksum is ignored."""
    size, orientation = None, 1
    for kind, position, length in png_chunks(file):
        if size is None:
            if kind != b"IHDR" or length != 13:
                return None
            size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))[::-1]
        elif kind == b"eXIf":
            content, checksum = file.read(length), file.read(4)
            if zlib.crc32(content, zlib.crc32(kind)).to_bytes(4, "big") == checksum:
                orientation = exif_block_orientation(content)
    return Header(*size, orientation) if size and min(size) > 0 else None


def png_without_metadata(data: bytes, chunks: list[tuple[bytes, int, int]]) -> bytes:
    """Returns a PNG with the chunks that hold its pixels alone, so that no decoder stumbles over the others.

    Raises:
        ValueError: a checksum is wrong, the file ends early, or an unknown chunk changes what the pixels mean.
    """
    pieces, view = [PNG_START], memoryview(data)
    for kind, position, length in chunks:
        end = position + length + 4
        if kind not in PIXEL_CHUNKS:
            if kind[0] & 0x20 == 0:  # an upper-case first letter: critical
                raise ValueError(f"chunk {kind.decode('latin-1')!r} is not of the PNG standard")
            continue
        if end > len(data):
            raise ValueError("the file is truncated")
        if zlib.crc32(view[position - 4:end - 4]) != int.from_bytes(view[end - 4:end], "big"):
            raise ValueError(f"the checksum of a chunk {kind.decode()} is wrong")
        pieces.append(view[position - 8:end])
    return b"".join(pieces)
