"""Image files: their size from the header, and their pixels as uint8 RGB. See "How pixels are read" in ../README.md."""

import errno
import functools
import importlib
import io
import os
from dataclasses import dataclass
from types import ModuleType
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from detector.data.image_errors import GREY_REMEDY, REMEDY, unreadable_image
from detector.data.image_headers import (
    JPEG_START,
    PNG_START,
    Header,
    exif_block_orientation,
    png_chunks,
    png_without_metadata,
    read_jpeg_header,
    read_png_header,
)
from detector.data.pillow_decoder import decode_with_pillow, open_with_pillow, pillow_header
from detector.data.pixel_values import apply_orientation, rgb_from_array
from detector.data.text_files import open_binary
from detector.errors import BadInput
from detector.structures import ceil_div

MAX_PIXELS = 500_000_000  # of an image; decoding takes up to 8 bytes a pixel
GREY = 114                # pixels of an image that could not be decoded, and of padding in augmentation
DARK = 16                 # grey levels of 255; an image without brighter pixels looks black


@dataclass(frozen=True)
class Decoded:
    """Pixels of an image, uint8 [H, W, 3], and the header of the image that they were decoded from."""

    pixels: np.ndarray
    header: Header
    is_turned: bool = False  # the decoder has applied the orientation, as Pillow does for a TIFF


def image_size(path: str) -> tuple[int, int]:
    """Returns height and width after EXIF orientation, as image viewers show them; reads only the header.

    Raises:
        BadInput: the file is missing, may not be read, is no image or a too large one.
    """
    try:
        with _open_file(path) as file:
            header = _own_header(file, file.read(8)) or pillow_header(open_with_pillow(file, path))
        _check_number_of_pixels(header)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise unreadable_image(path, error, "Replace it, or remove it and its annotations") from error
    return header.turned_size()


def exif_orientation(path: str) -> int:
    """Returns the EXIF orientation of an image file, 1 ... 8; 1 if it has none or cannot be read."""
    try:
        with _open_file(path) as file:
            return (_own_header(file, file.read(8)) or pillow_header(open_with_pillow(file, path))).orientation
    except Exception:
        return 1


def read_image(path: str, size: tuple[int, int] | None = None, divisor: int = 1,
               remedy: str = REMEDY + GREY_REMEDY) -> torch.Tensor:
    """Returns the pixels of an image file, uint8 [3, H, W], RGB.

    Args:
        size: annotated height and width. EXIF orientation is applied, unless only the image without it has this size:
            then the boxes were drawn on the unrotated image.
        divisor: 2, 4 or 8 decodes a JPEG at 1 / divisor of its size, rounded up; libjpeg then uses fewer DCT
            coefficients of each block. Other formats ignore it.
        remedy: the last sentence of the error for a damaged file.

    Raises:
        BadInput: the file is missing, may not be read, is no image, is truncated, is too large, or has another size
            than annotated.
    """
    try:
        with _open_file(path) as file:
            data = file.read()
        decoded = _decode(data, path, divisor)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise unreadable_image(path, error, remedy) from error
    header = decoded.header
    stored_size, turned_size = (header.height, header.width), header.turned_size()
    is_unturned = size is not None and tuple(size) == stored_size and stored_size != turned_size
    if size is not None and not is_unturned and tuple(size) != turned_size:
        height, width = turned_size
        raise BadInput(f"image {path} is {width}x{height} pixels (width x height), its annotations say "
                       f"{size[1]}x{size[0]}: fix the annotations, or restore the image that they were made for")
    pixels = decoded.pixels
    if decoded.is_turned == is_unturned and header.orientation > 1:
        back = {6: 8, 8: 6}.get(header.orientation, header.orientation)
        pixels = apply_orientation(pixels, back if is_unturned else header.orientation)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def pil_to_tensor(image: Image.Image) -> torch.Tensor:
    """Returns the pixels of a PIL image as read_image does for its file: uint8 [3, H, W], turned as EXIF says.

    Raises:
        BadInput: the image has no pixels or cannot be decoded, or its pixels are not understood.
    """
    try:
        if not (image.width and image.height):
            raise BadInput("it has no pixels. Pass an image of 1x1 pixels or more")
        pixels = decode_with_pillow(image, None)  # decodes, which completes `info`
        pixels = apply_orientation(pixels, exif_block_orientation(image.info.get("exif") or b""))
    except Exception as error:
        name = getattr(image, "filename", "") or f"PIL image of mode {image.mode}, {image.width}x{image.height} pixels"
        raise unreadable_image(name, error, "Pass an image that Pillow can decode") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def array_to_tensor(values: np.ndarray) -> torch.Tensor:
    """Returns an array [H, W] or [H, W, 1 to 4] as uint8 [3, H, W]. Raises BadInput as pixel_values.rgb_from_array."""
    return torch.from_numpy(rgb_from_array(values)).permute(2, 0, 1)


def is_blank(image: torch.Tensor) -> bool:
    """Returns True where all pixels of an image, uint8 [3, H, W], are equal or nearly black."""
    return int(image.max()) < DARK or bool((image.amax((1, 2)) == image.amin((1, 2))).all())


def decoder_note() -> str:
    """Returns a line about the decoder of JPEGs if it is the slower one; "" otherwise."""
    return "" if _simplejpeg() else ("JPEGs are decoded by Pillow; simplejpeg, which is not installed, is up to 1.6 "
                                     "times as fast: pip install simplejpeg")


def _open_file(path: str) -> BinaryIO:
    """Opens a file as `open_binary` does; one with a path that no file can have is missing."""
    try:
        return open_binary(path)
    except ValueError as error:  # a path with a zero byte
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from error


def _own_header(file: BinaryIO, start: bytes) -> Header | None:
    """Returns the header of a JPEG or PNG; None for other files, and for those that a decoder has to judge."""
    if start.startswith(JPEG_START):
        header = read_jpeg_header(file)
    else:
        header = read_png_header(file) if start == PNG_START else None
    file.seek(0)
    return header


def _check_number_of_pixels(header: Header) -> None:
    pixels = header.height * header.width
    if pixels > MAX_PIXELS:
        raise BadInput(f"{header.width}x{header.height} pixels, {pixels:,} in all, are more than the {MAX_PIXELS:,} "
                       "that are read. Cut it into tiles, or save it smaller")


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        return importlib.import_module("simplejpeg")
    except ImportError:
        return None


def _decode(data: bytes, path: str, divisor: int) -> Decoded:
    """Decodes the content of an image file. Raises what decoders raise."""
    header = _own_header(io.BytesIO(data), data[:8])
    if header:
        _check_number_of_pixels(header)
    if header and data.startswith(JPEG_START) and (pixels := _decode_clean_jpeg(data, header, divisor)) is not None:
        return Decoded(pixels, header)
    if header and data.startswith(PNG_START):
        data = png_without_metadata(data, list(png_chunks(io.BytesIO(data))))
    image = open_with_pillow(io.BytesIO(data), path)
    header = header or pillow_header(image)
    _check_number_of_pixels(header)
    if image.format == "JPEG" and divisor > 1:
        image.draft("RGB", (max(1, image.width // divisor), max(1, image.height // divisor)))  # or the next larger size
    return Decoded(decode_with_pillow(image, data), header, image.format == "TIFF")


def _decode_clean_jpeg(data: bytes, header: Header, divisor: int) -> np.ndarray | None:
    """Returns the pixels of a JPEG of three colors or grey without any fault; None for all others.

    Pillow then decides. The pixels are the same, and so are the files that are accepted, with and without simplejpeg.
    """
    decoder = _simplejpeg()
    height, width = ceil_div(header.height, divisor), ceil_div(header.width, divisor)
    if decoder is None or header.components > 3:
        return None
    try:
        pixels = decoder.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except Exception:
        return None
    return pixels if pixels.shape == (height, width, 3) else None
