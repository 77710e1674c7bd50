"""A coordinate as annotated, in pixels."""

import math

MAX_COORDINATE = 1e9  # pixels; a corner beyond it lies nowhere: float32 and areas would overflow


def box_around_rotated(corners: list[float], degrees: object) -> list[float]:
    """Returns x1, y1, x2, y2 of the box around a box that is turned about its centre, as CVAT's `rotation` says.

    Args:
        degrees: a number, or a text that holds one; any other value leaves the box as it is.
    """
    angle = math.radians(to_coordinate(degrees) or 0)
    if not angle or not math.isfinite(angle):
        return corners
    x1, y1, x2, y2 = corners
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    width, height = (x2 - x1) * cosine + (y2 - y1) * sine, (x2 - x1) * sine + (y2 - y1) * cosine
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def to_coordinate(value: object) -> float | None:
    """Returns a coordinate, nan for one that lies nowhere, such as 1e300; None for a value that is no number.

    A number may be a text.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    except ValueError:
        return None
    return number if abs(number) < MAX_COORDINATE else math.nan
