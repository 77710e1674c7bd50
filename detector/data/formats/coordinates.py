"""A coordinate as annotated, in pixels."""

import math

MAX_COORDINATE = 1e9  # pixels; a corner beyond it lies nowhere: float32 and areas would overflow


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
