"""Images as small JPEGs that can be embedded in a page."""

import base64
import io

import numpy as np
from PIL import Image


def encode_thumbnail(pixels: np.ndarray, long_side: int, quality: int = 78) -> str:
    """Returns the image, uint8 [H, W, 3], as a base64 JPEG whose long side has at most `long_side` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
