"""Image files: their size from the header, and their pixels as uint8 RGB."""

import os
import re

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_image

from detector.errors import BadInput

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
EXIF_ORIENTATION = 0x0112  # tag number (EXIF 2.32)
SWAPS_SIZE = (5, 6, 7, 8)  # EXIF orientations that swap width and height
GREY = 114                 # pixels of an image that could not be decoded, and of padding in augmentation


def image_size(path: str) -> tuple[int, int]:
    """Returns height and width after EXIF orientation, as image viewers show them; reads only the header.

    Raises:
        BadInput: the file is missing or is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            # Pillow applies the orientation of a TIFF when it opens the file.
            swapped = image.format != "TIFF" and image.getexif().get(EXIF_ORIENTATION, 1) in SWAPS_SIZE
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable_image(path, error, "Replace it, or remove it and its annotations") from error
    return (width, height) if swapped else (height, width)


def read_image(path: str, size: tuple[int, int] | None = None, divisor: int = 1) -> torch.Tensor:
    """Returns the pixels of an image file, uint8 [3, H, W], RGB.

    Grey images get three equal channels, 16 bits are reduced to 8, and transparency is dropped.

    Args:
        size: annotated height and width. EXIF orientation is applied, unless only the image without it has this size:
            then the boxes were drawn on the unrotated image.
        divisor: 2, 4 or 8 decodes a JPEG at 1 / divisor of its size, rounded up; libjpeg then uses fewer DCT
            coefficients of each block. Other formats ignore it.

    Raises:
        BadInput: the file is missing, is no image, is truncated, or has another size than annotated.
    """
    try:
        image, full_size = _decode(path, True, divisor)
        if size is not None and full_size != tuple(size):
            image, full_size = _decode(path, False, divisor)
    except (OSError, RuntimeError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise unreadable_image(path, error, "Replace or remove it, or set data.unreadable_images=grey") from error
    if size is not None and full_size != tuple(size):
        raise BadInput(f"image {path} is {full_size[1]}x{full_size[0]} pixels (width x height), its annotations "
                       f"say {size[1]}x{size[0]}: fix the annotations, or restore the image that they were made for")
    return image


def image_files(source: str) -> list[str]:
    """Returns the image file itself, or every image below a folder, sorted by path.

    Raises:
        BadInput: there is no such file or folder, or the folder contains no image.
    """
    if os.path.isfile(source):
        return [source]
    if not os.path.isdir(source):
        raise BadInput(f"no such image or folder: {source}")
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names
                   if name.lower().endswith(IMAGE_EXTENSIONS))
    if not paths:
        raise BadInput(f"no image in {source}: no file name ends in one of {', '.join(IMAGE_EXTENSIONS)}")
    return paths


def unreadable_image(path: str, error: Exception, remedy: str) -> BadInput:
    """Returns the error for an image that could not be opened or decoded."""
    if isinstance(error, FileNotFoundError):
        return BadInput(f"no such image file: {path}")
    if isinstance(error, UnidentifiedImageError):
        reason = "unknown image format"
    elif str(error):
        reason = re.sub(r"^[\w:]+, \S+:\d+, ", "", str(error).splitlines()[0])  # without function, file and line
    else:
        reason = type(error).__name__
    return BadInput(f"corrupt image {path}: {reason.rstrip('.')}. {remedy}")


def _decode(path: str, apply_exif: bool, divisor: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Returns the pixels, uint8 [3, H, W], and the height and width of the full image."""
    data = np.fromfile(path, np.uint8)
    start = data[:8].tobytes()
    is_jpeg = start[:3] == b"\xff\xd8\xff"
    if is_jpeg and divisor > 1:
        return _decode_reduced(path, apply_exif, divisor)
    if is_jpeg or start == b"\x89PNG\r\n\x1a\n":
        # torchvision 0.29 deprecates this decoder in favour of TorchCodec; Python hides the warning by default.
        image = decode_image(torch.from_numpy(data), ImageReadMode.RGB, apply_exif_orientation=apply_exif)
        image = image if image.dtype == torch.uint8 else (image.to(torch.int32) >> 8).to(torch.uint8)
    else:
        with Image.open(path) as opened:
            opened = ImageOps.exif_transpose(opened) if apply_exif else opened
            if opened.mode.startswith("I;16") or opened.mode in ("I", "F"):
                opened = Image.fromarray((np.asarray(opened, np.float64) / 257).clip(0, 255).astype(np.uint8))
            image = torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1).contiguous()
    return image, tuple(image.shape[1:])


def _decode_reduced(path: str, apply_exif: bool, divisor: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """As `_decode`, for a JPEG at reduced size, with Pillow: torchvision.io cannot decode at reduced size."""
    with Image.open(path) as opened:
        width, height = opened.size
        swapped = apply_exif and opened.getexif().get(EXIF_ORIENTATION, 1) in SWAPS_SIZE
        opened.draft("RGB", (max(1, width // divisor), max(1, height // divisor)))  # this size or the next larger one
        image = (ImageOps.exif_transpose(opened) if apply_exif else opened).convert("RGB")
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1),
                (width, height) if swapped else (height, width))
