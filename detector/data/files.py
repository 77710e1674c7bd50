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


def read_image(path: str, size: tuple[int, int] | None = None) -> torch.Tensor:
    """The pixels: uint8 [3, H, W], RGB. Grey becomes three equal channels, 16 bit becomes 8, transparency is dropped.

    EXIF orientation is applied, unless `size` (the annotated height and width) says that the boxes were drawn on the
    unturned image. Raises BadInput for a file that cannot be read, is cut short or has another size than annotated.
    """
    try:
        image = _decode(path, turn=True)
        if size is not None and tuple(image.shape[1:]) != tuple(size):
            image = _decode(path, turn=False)
    except (OSError, RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable(path, error, "Replace or remove it, or set data.broken_images=grey") from error
    if size is not None and tuple(image.shape[1:]) != tuple(size):
        raise BadInput(f"image {path} is {image.shape[2]}x{image.shape[1]} pixels (width x height), its annotations "
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


def _decode(path: str, turn: bool) -> torch.Tensor:
    data = np.fromfile(path, np.uint8)
    start = data[:8].tobytes()
    if start[:3] == b"\xff\xd8\xff" or start == b"\x89PNG\r\n\x1a\n":
        image = decode_image(torch.from_numpy(data), ImageReadMode.RGB, apply_exif_orientation=turn)
        return image if image.dtype == torch.uint8 else (image.to(torch.int32) >> 8).to(torch.uint8)
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image) if turn else image
        if image.mode.startswith("I;16") or image.mode in ("I", "F"):
            image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).astype(np.uint8))
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()
