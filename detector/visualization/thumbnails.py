"""Pictures small enough to travel inside a page."""

import base64
import io

import numpy as np
from PIL import Image


def thumbnail(pixels: np.ndarray, long_side: int, quality: int = 78) -> str:
    """uint8 [H, W, 3] -> a JPEG as base64, its long side at most so many pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((long_side, long_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(written.getvalue()).decode()
