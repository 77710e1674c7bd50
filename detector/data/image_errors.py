"""Why an image file cannot be read: one error with the cause, as far as the file shows it, and a remedy."""

import re
import struct

from PIL import UnidentifiedImageError

from detector.data.text_files import cannot_read, open_binary
from detector.errors import BadInput

REMEDY = "Replace or remove it"  # of a damaged image
GREY_REMEDY = ", or set data.unreadable_images=grey"
HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # behind "ftyp" in the first bytes of a file


def unreadable_image(path: str, error: Exception, remedy: str) -> BadInput:
    """Returns the error for an image that could not be opened or decoded."""
    if isinstance(error, BadInput):  # the file is whole
        return BadInput(f"image {path}: {error}")
    if isinstance(error, OSError) and error.errno is not None:  # of the system; those of Pillow have no number
        return cannot_read(path, error, "image file")
    if isinstance(error, UnidentifiedImageError) and _is_whole_tiff(path):
        return BadInput(f"image {path} cannot be decoded: a TIFF whose type of pixels, number of channels or "
                        "compression Pillow does not decode. Save it with 8 bits as grey or RGB")
    if isinstance(error, UnidentifiedImageError):
        unknown = "unknown image format, or channels, bits or compression that Pillow does not decode"
        reason = _describe_start(path) or unknown
    elif isinstance(error, MemoryError):
        reason = "not enough memory to decode it, or its header is damaged"
    elif str(error):
        reason = re.sub(r"^[\w:]+, \S+:\d+, ", "", str(error).splitlines()[0])  # without function, file and line
    else:
        reason = type(error).__name__
    return BadInput(f"corrupt image {path}: {reason.rstrip('.')}. {remedy}")


def _describe_start(path: str) -> str:
    """Returns what a file that is no image is, by its first bytes; "" where they do not tell."""
    try:
        with open_binary(path) as file:
            start = file.read(200)
    except (OSError, ValueError):
        return ""
    if not start:
        return "the file is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, and `git lfs pull` fetches the image"
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, as after a download that failed"
    if start.startswith(b"PK\3\4"):
        return "it is a zip archive, which has to be unpacked"
    if start[4:8] == b"ftyp" and start[8:12] in HEIC_BRANDS:
        return "it is HEIC, which Pillow does not decode; save it as JPEG"
    return ""


def _is_whole_tiff(path: str) -> bool:
    """Returns whether a file is a TIFF with its whole first directory. (TIFF 6.0, section 2)"""
    try:
        with open_binary(path) as file:
            start = file.read(8)
            order = {b"II*\0": "<", b"MM\0*": ">"}[start[:4]]
            file.seek(struct.unpack(f"{order}I", start[4:])[0])
            entries = struct.unpack(f"{order}H", file.read(2))[0]
            return entries > 0 and len(file.read(12 * entries)) == 12 * entries
    except (OSError, ValueError, KeyError, struct.error):
        return False


def offer_grey(message: str) -> str:
    """Returns the error of an image that is refused: to REMEDY at its end adds the option that makes the image grey."""
    return message + GREY_REMEDY if message.endswith(REMEDY) else message
