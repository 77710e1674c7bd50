"""The fingerprint of a data set, by which a resumed run tells that its data has changed since."""

import zlib

import numpy as np

from detector.errors import count_of
from detector.structures import Dataset

NAMES, SIZES, OBJECTS = "names", "sizes", "objects_crc"  # fields that are checksums
CHANGES = {NAMES: "other images, or the same in another order", SIZES: "images of another size",
           OBJECTS: "other boxes or labels"}
EFFECTS = {"training": "the weights will not be those of an undisturbed run",
           "validation": "evaluations up to now, and the choice of best.pt, are of other data"}


def fingerprint(dataset: Dataset) -> dict[str, int]:
    """Returns the numbers of images and objects, and CRCs of names, sizes and objects.

    Names are counted from the deepest folder that holds all images, so that data may be moved. Pixels are not read.
    """
    return {"images": len(dataset), "objects": len(dataset.boxes), NAMES: checksum(names_in_folder(dataset.paths)),
            SIZES: checksum(dataset.sizes),
            OBJECTS: checksum(dataset.offsets, dataset.boxes, dataset.labels, dataset.flags, dataset.areas)}


def checksum(*arrays: np.ndarray) -> int:
    """Returns the CRC of the bytes of these arrays."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array), total)
    return total


def names_in_folder(paths: np.ndarray) -> np.ndarray:
    """Returns paths, bytes [I], as letters, uint8 [I, L], without the deepest folder that holds all of them."""
    if len(paths) == 0:
        return np.zeros((0, 0), np.uint8)
    letters = np.ascontiguousarray(paths).view(np.uint8).reshape(len(paths), -1)
    is_common, is_used = (letters == letters[0]).all(axis=0), letters.any(axis=0)
    prefix = bytes(paths[0])[:len(is_common) if is_common.all() else int(is_common.argmin())]
    return letters[:, prefix.rfind(b"/") + 1:int(is_used.sum())]


def describe_change(part: str, before: dict[str, int] | None, now: dict[str, int] | None, step: int) -> str:
    """Returns a sentence about data that is not what it was; "" if it is, or if one of the two is not known.

    Args:
        part: training or validation.
        before: the fingerprint in the checkpoint of `step`.
    """
    if not before or not now or before == now:
        return ""
    numbers = [f"{count_of(data['images'], 'image')} with {count_of(data['objects'], 'object')}"
               for data in (before, now)]
    counts = f"{numbers[0]} before, {numbers[1]} now" if numbers[0] != numbers[1] else f"still {numbers[0]}, but " + (
        " and ".join(text for field, text in CHANGES.items() if before[field] != now[field]))
    order = ""
    if part == "training":
        same = before[NAMES] == now[NAMES] and before[SIZES] == now[SIZES]
        order = "the batches hold the same images, but " if same else "the batches hold other images than before, and "
    return f"the {part} data has changed since step {step}: {counts}; {order}{EFFECTS[part]}"
