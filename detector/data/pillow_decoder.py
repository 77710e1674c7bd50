"""Pillow as decoder: of all formats but JPEG, of unusual JPEGs, and of all JPEGs where simplejpeg is not installed."""

import contextlib
import ctypes
import functools
import io
import logging
import sys
import threading
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from detector.data.image_headers import EXIF_ORIENTATION, Header, exif_block_orientation
from detector.data.pixel_values import rgb_from_array, rgb_from_pil

# Pillow's raster formats. Other formats start programs (EPS), or need a library that is usually absent.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "DIB", "PPM", "JPEG2000", "AVIF", "QOI", "PCX", "SGI")
SWAPPED_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
SIGNED = {"I;16S", "I;16BS", "I;16NS"}  # rawmodes of signed integers of 16 bits
MAX_UNDECIDED = 63        # upper byte up to which the lower byte decides about the depth: 14 bits
PILLOW_LOCK = threading.Lock()  # its limit of pixels is global


def open_with_pillow(file: BinaryIO, path: str) -> Image.Image:
    """Opens an image of FORMATS without Pillow's own limit of pixels, warnings and log lines."""
    _silence_pillow()
    formats = FORMATS + (("TGA",) if path.lower().endswith(".tga") else ())  # TGA cannot be told from other files
    with PILLOW_LOCK:
        Image.init()
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file, formats=[name for name in formats if name in Image.OPEN])
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def pillow_header(image: Image.Image) -> Header:
    """Returns the header of an image that Pillow has opened and not decoded yet."""
    if image.format != "TIFF":
        return Header(image.height, image.width, exif_block_orientation(image.info.get("exif") or b""))
    orientation = image.tag_v2.get(EXIF_ORIENTATION, 1)
    orientation = orientation if orientation in range(1, 9) else 1
    stored_size = Header(image.height, image.width, orientation).turned_size()  # Pillow has turned the size of a TIFF
    return Header(*stored_size, orientation)


def decode_with_pillow(image: Image.Image, data: bytes | None) -> np.ndarray:
    """Returns the pixels of an opened image, uint8 [H, W, 3].

    Pillow keeps only the upper byte of 16-bit colors. Where these are dark, the lower bytes are decoded, too, so that
    8 to 14 bits in 16 become as bright as those of grey images.

    Args:
        data: content of the file; None: of an image whose file is still open, if there is one.
    """
    tiles = getattr(image, "tile", [])
    rawmodes = {part for tile in tiles for part in _parts(tile.args) if isinstance(part, str) and ";16" in part}
    is_deep = bool(rawmodes) and not image.mode.startswith("I")
    if is_deep and data is None:
        data = _content(image)
    pixels = rgb_from_pil(image, is_int16=bool(rawmodes & SIGNED))
    if not is_deep or data is None or pixels.max() > MAX_UNDECIDED or image.mode == "CMYK":
        return pixels
    other = open_with_pillow(io.BytesIO(data), "")
    is_grey = "LA;16B" in rawmodes  # of which both bytes are decoded as red and green
    other.tile = [tile._replace(args=_swap_bytes(tile.args)) for tile in other.tile]
    low = np.array(other)[..., 1:2] if is_grey else rgb_from_pil(other)
    return rgb_from_array(pixels.astype(np.uint16) << 8 | low)


def _parts(args: object) -> tuple:
    return args if isinstance(args, tuple) else (args,)


def _swap_bytes(args: object) -> object:
    """Returns the arguments of a decoder with the rawmode that reads the other byte of each value."""
    swapped = tuple("RGBA" if part == "LA;16B" else part[:-3] + SWAPPED_BYTES[part[-3:]]
                    if isinstance(part, str) and part[-3:] in SWAPPED_BYTES else part for part in _parts(args))
    return swapped if isinstance(args, tuple) else swapped[0]


def _content(image: Image.Image) -> bytes | None:
    """Returns the content of the file that a PIL image is still to be decoded from; None if it cannot be read."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    position = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(position)
    return content


@functools.cache
def _silence_pillow() -> None:
    """Hides warnings, log lines and libtiff's messages about metadata and damaged files, which do not name the file."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with contextlib.suppress(OSError, AttributeError):  # another system, or a libtiff inside Pillow: its messages stay
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        libraries = {line.split()[-1] for line in mapped if "libtiff" in line}
        for library in map(ctypes.CDLL, libraries):
            for set_handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
                set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
                set_handler(None)
