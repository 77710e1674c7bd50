"""Image files: their size without decoding, and their pixels as uint8 RGB."""

import os
import re

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_image

from detector.errors import BadInput

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
ROTATES = (5, 6, 7, 8)  # EXIF orientations that swap width and height (EXIF 2.32, tag 0x0112)
GREY = 114              # the pixels of an image that stands in for a broken one


def image_size(path: str) -> tuple[int, int]:
    """Height and width as a person sees the image (EXIF orientation applied), from its header alone."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow has turned a TIFF already when it is opened.
            turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) in ROTATES
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error, "Replace it, or remove it and its annotations") from error
    return (width, height) if turned else (height, width)


def read_image(path: str, size: tuple[int, int] | None = None, divisor: int = 1) -> torch.Tensor:
    """The pixels: uint8 [3, H, W], RGB. Grey becomes three equal channels, 16 bit becomes 8, transparency is dropped.

    EXIF orientation is applied, unless `size` (the annotated height and width) says that the boxes were drawn on the
    unturned image. A JPEG is decoded at 1 / divisor (2, 4 or 8) of its size, rounded up, which libjpeg does from fewer
    coefficients of each block. Raises BadInput for a file that cannot be read, is cut short or has another size than
    annotated.
    """
    try:
        image, whole = _decode(path, True, divisor)
        if size is not None and whole != tuple(size):
            image, whole = _decode(path, False, divisor)
    except (OSError, RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error, "Replace or remove it, or set data.unreadable_images=grey") from error
    if size is not None and whole != tuple(size):
        raise BadInput(f"image {path} is {whole[1]}x{whole[0]} pixels (width x height), its annotations "
                       f"say {size[1]}x{size[0]}: mend the annotations, or bring the image they were made on")
    return image


def image_files(source: str) -> list[str]:
    """The image itself, or every image below a folder, in the order of their names."""
    if os.path.isfile(source):
        return [source]
    if not os.path.isdir(source):
        raise BadInput(f"no such image or folder: {source}")
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names
                   if name.lower().endswith(ENDINGS))
    if not paths:
        raise BadInput(f"no image in {source}: names that end in {', '.join(ENDINGS)} are looked for")
    return paths


def unreadable(path: str, error: Exception, remedy: str) -> BadInput:
    if isinstance(error, FileNotFoundError):
        return BadInput(f"no such image file: {path}")
    reason = "no image format that is known" if isinstance(error, UnidentifiedImageError) else \
        re.sub(r"^[\w:]+, \S+:\d+, ", "", str(error).splitlines()[0]) if str(error) else type(error).__name__
    return BadInput(f"corrupt image {path}: {reason.rstrip('.')}. {remedy}")


def _decode(path: str, turn: bool, divisor: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """The pixels, and the height and width of the whole image."""
    data = np.fromfile(path, np.uint8)
    start = data[:8].tobytes()
    jpeg = start[:3] == b"\xff\xd8\xff"
    if jpeg and divisor > 1:
        return _decode_reduced(path, turn, divisor)
    if jpeg or start == b"\x89PNG\r\n\x1a\n":
        image = decode_image(torch.from_numpy(data), ImageReadMode.RGB, apply_exif_orientation=turn)
        image = image if image.dtype == torch.uint8 else (image.to(torch.int32) >> 8).to(torch.uint8)
    else:
        with Image.open(path) as opened:
            opened = ImageOps.exif_transpose(opened) if turn else opened
            if opened.mode.startswith("I;16") or opened.mode in ("I", "F"):
                opened = Image.fromarray((np.asarray(opened, np.float64) / 257).clip(0, 255).astype(np.uint8))
            image = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).contiguous()
    return image, tuple(image.shape[1:])


def _decode_reduced(path: str, turn: bool, divisor: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """A JPEG by Pillow: torchvision.io has no reduced scales."""
    with Image.open(path) as opened:
        width, height = opened.size
        swaps = turn and opened.getexif().get(0x0112, 1) in ROTATES
        opened.draft("RGB", (max(1, width // divisor), max(1, height // divisor)))  # or the next larger
        image = (ImageOps.exif_transpose(opened) if turn else opened).convert("RGB")
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1),
                (width, height) if swaps else (height, width))
