"""The size of each image of a data set: as annotated, or else from the header of its file."""

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from detector.data.image_io import image_size
from detector.errors import BadInput, combine_mistakes

MAX_SIDE = 2**31 - 1  # pixels; Dataset.sizes is int32
THREADS = 8           # that read headers; most of the time they wait for the disk


def annotated_size(height: object, width: object) -> tuple[int, int] | None:
    """Returns height and width from an annotation, where numbers may be texts or floats.

    Returns None for sizes that say nothing: missing, zero, negative, not a whole number, or beyond 32 bits. The size is
    then read from the image itself.
    """
    sides = _side(height), _side(width)
    return None if None in sides else sides


def _side(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return int(number) if math.isfinite(number) and number.is_integer() and 0 < number <= MAX_SIDE else None


def read_missing_sizes(root: str, images: list[tuple], subject: str, mistakes: Sequence[str] = ()
                       ) -> tuple[list[tuple], list[int]]:
    """Returns the rows for structures.build_dataset, and the indices of images whose size was read from the file.

    Args:
        images: (path below root, id, (height, width) or None) of each image.
        subject: the data set's name, for the error.
        mistakes: what is wrong with other files of the data set; an error lists it first, each sentence once.

    Raises:
        BadInput: lists `mistakes` and the images whose header cannot be read.
    """
    unsized = [index for index, (_, _, size) in enumerate(images) if size is None]

    def read(index: int) -> tuple[int, int] | BadInput:
        try:
            return image_size(os.path.join(root, images[index][0]))
        except BadInput as error:
            return error
    with ThreadPoolExecutor(THREADS) as pool:
        sizes = dict(zip(unsized, pool.map(read, unsized)))
    mistakes = [*mistakes, *(str(size) for size in sizes.values() if isinstance(size, BadInput))]
    if mistakes:
        raise combine_mistakes(subject, list(dict.fromkeys(mistakes)))
    return [(path, image_id, *(size or sizes[index])) for index, (path, image_id, size) in enumerate(images)], unsized
