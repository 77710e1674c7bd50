"""Pixels of any type and depth as uint8 RGB: one rule by type and range of values, for files, PIL images, arrays."""

import numpy as np
from PIL import Image, ImageCms

from detector.data.image_headers import SWAPS_SIZE
from detector.errors import BadInput

DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and files; 10, 12 and 14 are usually stored in 16
OVERSHOOT = 0.01              # of the largest value: interpolated float images exceed their range by as much
BAND_PIXELS = 1 << 24         # of an image that is converted at once, which limits the memory
# EXIF orientation -> steps along rows and columns, after rows and columns were swapped for 5 ... 8.
FLIPS = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}


def to_uint8(values: np.ndarray) -> np.ndarray:
    """Returns the values of an image as uint8, of the same shape.

    uint8 stays; True is 255. Integers are taken as numbers of the fewest bits among DEPTHS that hold the largest value
    of the image, and their upper 8 bits are kept; the largest depth of int16 is 15. Floats are fractions of 255 if none
    exceeds 1, or else numbers like the integers.

    Raises:
        BadInput: negative values, values above 65535, NaN or infinity, or another type.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == bool:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind not in "iuf":
        raise BadInput(f"its pixels are of type {values.dtype}; integers and floats are read")
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    is_float = values.dtype.kind == "f"
    if not np.isfinite([low, high]).all():
        raise BadInput("it has pixels that are NaN or infinite. Replace them, and save it with 8 bits")
    slack = OVERSHOOT if is_float else 0.0
    depths = (*DEPTHS[:-1], 15) if (values.dtype.kind, values.dtype.itemsize) == ("i", 2) else DEPTHS
    depth = next((bits for bits in depths if high <= (2 ** bits - 1) * (1 + slack)), None)
    if depth is None or low < -slack * max(high, 0):
        raise BadInput(f"its pixels range from {low:g} to {high:g}; 0 to 65535 is read, or 0 to 1 of floats. Save it "
                         "with 8 bits")
    if is_float and high <= 1 + slack:
        return np.rint(values.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
    if not is_float:
        return (values >> (depth - 8)).astype(np.uint8)
    scaled = np.rint(values) if depth == 8 else np.floor(values / 2 ** (depth - 8))
    return scaled.clip(0, 255).astype(np.uint8)


def rgb_from_pil(image: Image.Image, is_int16: bool = False) -> np.ndarray:
    """Returns the pixels of a PIL image as uint8 [H, W, 3]; transparency is dropped. Raises BadInput as to_uint8.

    Args:
        is_int16: the file has signed integers of 16 bits, which Pillow decodes to 32.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        return np.repeat(to_uint8(values.astype(np.int16) if is_int16 else values)[..., None], 3, axis=2)
    rows = max(1, BAND_PIXELS // max(1, image.width))
    if rows >= image.height:
        return np.array(_to_rgb(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        pixels[top:bottom] = np.asarray(_to_rgb(image.crop((0, top, image.width, bottom))))
    return pixels


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        return ImageCms.profileToProfile(image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"),
                                         outputMode="RGB")
    straight = {"RGBa": "RGBA", "La": "LA"}.get(image.mode)  # from premultiplied alpha
    image = image.convert(straight) if straight else image
    return image if image.mode == "RGB" else image.convert("RGB")


def rgb_from_array(values: np.ndarray) -> np.ndarray:
    """Returns an array [H, W] or [H, W, 1 to 4] of any depth as uint8 [H, W, 3]; 2 and 4 channels end with alpha.

    Raises:
        BadInput: another shape, no pixel, or as to_uint8.
    """
    values = values[..., None] if values.ndim == 2 else values
    if values.ndim != 3 or not 1 <= values.shape[2] <= 4 or values.size == 0:
        raise BadInput("its shape is not that of an image")
    colors = to_uint8(values[..., :1 if values.shape[2] < 3 else 3])
    return np.repeat(colors, 3, axis=2) if colors.shape[2] == 1 else np.array(colors)


def apply_orientation(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns pixels [H, W, 3] turned and mirrored as an EXIF orientation says. (EXIF 2.32, tag 0x0112)"""
    if orientation in SWAPS_SIZE:
        pixels = pixels.transpose(1, 0, 2)
    down, right = FLIPS[orientation]
    return np.ascontiguousarray(pixels[::down, ::right])
