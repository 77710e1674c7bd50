"""Corrects annotations of any format: boxes as fractions, swapped corners, invalid boxes, duplicates.

Each correction is counted in the `warnings` of the Dataset.
"""

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from detector import structures
from detector.errors import BadInput, count_of
from detector.structures import Dataset, offsets_from_counts, select_boxes, select_images

MIN_BOX_SIZE = 0.1         # pixels; corners of a thinner box may become equal when flipped or scaled in float32
OVERHANG_TOLERANCE = 1.0   # pixels that a box may exceed its image by: rounding of the annotations, not a mistake
FRACTION_TOLERANCE = 1e-3  # by which a fraction may exceed 1
SMALLEST_SIDE = 8          # pixels; in images without a larger side, boxes of one pixel may be meant
SMALLEST_SHARE = 0.5       # of all boxes lie in the first pixel, and the others within LARGEST_FRACTION, where all are
LARGEST_FRACTION = 2.0     # fractions, of which some reach outside their image


def scale_fractions(parts: list[Dataset], others: Callable[[], list[Dataset]] = list) -> list[Dataset]:
    """Returns splits with boxes in pixels, where they are given as fractions of width and height.

    They are fractions where most boxes of all splits lie in the first pixel of their image, and none far outside it.
    Where only some lie there, boxes are left as they are, with a warning.

    Args:
        others: returns further splits of the data set, which count for the decision; called only if it is needed.
    """
    if not any((part.boxes[:, 2:] <= 1 + FRACTION_TOLERANCE).all(axis=1).any() for part in parts):  # mostly
        return parts
    are_fractions = _are_fractions([*parts, *others()])
    return [_to_pixels(part) if are_fractions else _note_fractions(part) for part in parts]


def _are_fractions(parts: list[Dataset]) -> bool:
    boxes = np.concatenate([part.boxes for part in parts])
    inside = np.concatenate([_in_first_pixel(part) for part in parts])
    finite = np.isfinite(boxes).all(axis=1)
    return bool((boxes[inside] != 0).any() and (np.abs(boxes[finite]) <= LARGEST_FRACTION).all()
                and inside[finite].mean() >= SMALLEST_SHARE)


def _in_first_pixel(dataset: Dataset) -> np.ndarray:
    """Returns which boxes lie in the first pixel of an image that is not tiny, bool [N]."""
    with np.errstate(invalid="ignore"):
        inside = ((dataset.boxes >= -FRACTION_TOLERANCE) & (dataset.boxes <= 1 + FRACTION_TOLERANCE)).all(axis=1)
    return inside & (dataset.sizes[dataset.image_of_box()].max(axis=1, initial=0) > SMALLEST_SIDE)


def _to_pixels(dataset: Dataset) -> Dataset:
    if not len(dataset.boxes):
        return dataset
    sizes = dataset.sizes[dataset.image_of_box()]
    areas = dataset.areas * sizes.prod(axis=1, dtype=np.float64) if dataset.areas.max() <= LARGEST_FRACTION \
        else dataset.areas
    inside = _in_first_pixel(dataset)
    first = describe_first(dataset, inside if inside.any() else ~inside)
    warning = (count_of(len(sizes), "box lies in the first pixel of its image: it was",
                        "boxes lie in the first pixel of their image: they were")
               + f" read as fractions of width and height; first: {first}")
    return replace(dataset, boxes=dataset.boxes * sizes[:, [1, 0, 1, 0]].astype(np.float32),
                   areas=areas.astype(np.float32), warnings=(*dataset.warnings, warning))


def _note_fractions(dataset: Dataset) -> Dataset:
    """Returns the data set with a warning about boxes that would be fractions."""
    with np.errstate(invalid="ignore"):
        sides = dataset.boxes[:, 2:] - dataset.boxes[:, :2]
    suspicious = _in_first_pixel(dataset) & (sides > 0).all(axis=1) & (sides < 1 - FRACTION_TOLERANCE).any(axis=1)
    if not suspicious.any():
        return dataset
    warning = (f"{int(suspicious.sum())} of {len(sides)} boxes lie in the first pixel of their image, as fractions of "
               f"width and height would; first: {describe_first(dataset, suspicious)}. If they are fractions, "
               "multiply them by width and height: they are read as pixels, in which such objects cannot be found")
    return replace(dataset, warnings=(*dataset.warnings, warning))


def fix_swapped_corners(dataset: Dataset, policy: str) -> Dataset:
    """Returns boxes with x1 <= x2 and y1 <= y2; a negative width or height is a pair of swapped corners, too.

    Args:
        policy: the value of `data.invalid_boxes`: clip swaps them back, drop leaves such objects out.

    Raises:
        BadInput: the policy is refuse, and a box has swapped corners.
    """
    boxes = dataset.boxes
    swapped = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if not swapped.any():
        return dataset
    count, first = int(swapped.sum()), describe_first(dataset, swapped)
    if policy == "refuse":
        raise BadInput(f"{count_of(count, 'box', 'boxes')} with swapped corners in {dataset.name} "
                       f"(data.invalid_boxes=refuse); first: {first}. Fix them, or set data.invalid_boxes=clip or drop")
    action = "left out" if policy == "drop" else "corrected"
    swaps = count_of(count, "box with swapped corners was", "boxes with swapped corners were")
    guess = ". Most boxes are such: if they are [x, y, width, height], write corners [x1, y1, x2, y2]" \
        if 2 * count > len(boxes) else ""
    warnings = (*dataset.warnings, f"{swaps} {action}; first: {first}{guess}")
    if policy == "drop":
        return replace(select_boxes(dataset, ~swapped), warnings=warnings)
    ordered = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    fixed = np.where(swapped[:, None], ordered, boxes)
    unknown = swapped & ~(dataset.areas > 0)  # computed from a negative width
    areas = np.where(unknown, structures.area(fixed), dataset.areas).astype(np.float32)
    return replace(dataset, boxes=fixed, areas=areas, warnings=warnings)


def fix_invalid_boxes(dataset: Dataset, policy: str) -> Dataset:
    """Cuts or drops boxes that exceed their image or have no area inside it; each kind is counted in `warnings`.

    Args:
        policy: the value of `data.invalid_boxes`: clip, drop or refuse.

    Raises:
        BadInput: the policy is refuse and there is an invalid box.
    """
    sizes = dataset.sizes[dataset.image_of_box()].astype(np.float32)
    edges = np.stack([sizes[:, 1], sizes[:, 0], sizes[:, 1], sizes[:, 0]], axis=1)
    clipped = np.minimum(np.maximum(dataset.boxes, 0), edges)
    finite = np.isfinite(dataset.boxes).all(axis=1)
    outside = finite & (np.abs(dataset.boxes - clipped).max(axis=1, initial=0) > OVERHANG_TOLERANCE)
    fixed = np.where(outside[:, None], clipped, dataset.boxes)
    thin = ~finite | (np.minimum(clipped[:, 2] - clipped[:, 0], clipped[:, 3] - clipped[:, 1]) < MIN_BOX_SIZE)
    invalid = outside | thin
    if not invalid.any():
        return dataset
    if policy == "refuse":
        raise BadInput(f"{count_of(int(invalid.sum()), 'invalid box', 'invalid boxes')} in {dataset.name} "
                       "(data.invalid_boxes=refuse); first: "
                       + describe_first(dataset, invalid) + ". Fix them, or set data.invalid_boxes=clip or drop")
    drop = thin if policy == "clip" else invalid
    kinds = [(outside & ~drop, "box exceeds its image and was cut to it",
              "boxes exceed their image and were cut to it"),
             (outside & drop & ~thin, "box exceeds its image and was left out",
              "boxes exceed their image and were left out"),
             (thin, "box without area inside its image was left out",
              "boxes without area inside their image were left out")]
    warnings = tuple(f"{count_of(int(mask.sum()), singular, plural)}; first: {describe_first(dataset, mask)}"
                     for mask, singular, plural in kinds if mask.any())
    return replace(select_boxes(replace(dataset, boxes=fixed), ~drop), warnings=dataset.warnings + warnings)


def fix_duplicates(dataset: Dataset, policy: str) -> Dataset:
    """Returns each image once, with the objects of all its entries, and each of several equal objects once.

    Images are equal by path; objects of an image by class, flags and box.

    Args:
        policy: the value of `data.duplicates`: drop; keep returns the data set unchanged.

    Raises:
        BadInput: the policy is refuse, and an image or object occurs twice.
    """
    if policy == "keep":
        return dataset
    merged, repeated, different = _merge_images(dataset)
    objects = _repeated_objects(merged)
    # What a second entry of an image repeats from the first is no news: the sentence on images says so.
    rows = objects if repeated is None else _repeated_objects(dataset)
    count = int(rows.sum())
    messages = []
    if repeated is not None:
        others = f"; in {different} of them the entries have different objects, which all count" if different else ""
        messages.append(f"{count_of(int(repeated.sum()), 'image is', 'images are')} listed again{others}; first: "
                        f"{dataset.path(int(np.flatnonzero(repeated)[0]))}")
    if count:
        messages.append(f"{count_of(count, 'object is', 'objects are')} annotated again, exactly equal; first: "
                        f"{describe_first(dataset, rows)}")
    if not messages:
        return dataset
    if policy == "refuse":
        raise BadInput(f"duplicates in {dataset.name} (data.duplicates=refuse): {'; '.join(messages)}. Remove them, or "
                       "set data.duplicates=drop or keep")
    return replace(select_boxes(merged, ~objects), warnings=(
        *dataset.warnings, *(f"{message}; each counts once" for message in messages)))


def _merge_images(dataset: Dataset) -> tuple[Dataset, np.ndarray | None, int]:
    """Returns one entry for each path, with the objects of all; which entries repeat a path; how many paths differ.

    The second is None where no path repeats; the third counts paths whose entries have different objects.
    """
    paths = _normal_paths(dataset)
    if len(set(paths)) == len(paths):
        return dataset, None, 0
    first: dict[bytes, int] = {}
    target = np.array([first.setdefault(path, index) for index, path in enumerate(paths)], np.int64)
    repeated = target != np.arange(len(paths))
    different = {int(target[index]) for index in np.flatnonzero(repeated)
                 if _objects_of(dataset, index) != _objects_of(dataset, int(target[index]))}
    owner = target[dataset.image_of_box()]
    order = np.argsort(owner, kind="stable")
    moved = replace(dataset, offsets=offsets_from_counts(np.bincount(owner, minlength=len(paths))),
                    **{name: getattr(dataset, name)[order] for name in ("boxes", "labels", "flags", "areas")})
    return select_images(moved, ~repeated), repeated, len(different)


def _objects_of(dataset: Dataset, index: int) -> set[tuple]:
    rows = dataset.rows(index)
    return {(label, flags, *box) for label, flags, box in
            zip(dataset.labels[rows].tolist(), dataset.flags[rows].tolist(), dataset.boxes[rows].tolist())}


def _normal_paths(dataset: Dataset) -> list[bytes]:
    """Returns the paths without `.`, `..` and doubled slashes, which few data sets have."""
    paths = dataset.paths.tolist()
    text = b"\n" + b"\n".join(paths)
    is_normal = not any(part in text for part in (b"//", b"/./", b"/../", b"\n./", b"\n../"))
    if is_normal and b"\n/" not in text:
        return paths
    root = os.fsencode(os.path.abspath(dataset.root))
    return [os.path.normpath(os.path.join(root, path)) for path in paths]


def _repeated_objects(dataset: Dataset) -> np.ndarray:
    """Returns which objects equal an earlier one of their image, bool [N]."""
    corners = (dataset.boxes + np.float32(0)).view(np.uint32)  # + 0: of -0, too
    columns = [dataset.image_of_box(), dataset.labels, dataset.flags, *corners.T]
    key = np.zeros(len(corners), np.uint64)
    for column in columns:  # a hash: equal objects have equal keys, different ones hardly ever
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    ordered = np.sort(key)
    candidates = np.flatnonzero(np.isin(key, ordered[1:][ordered[1:] == ordered[:-1]]))
    repeated, known = np.zeros(len(key), bool), set()
    for row, values in zip(candidates, zip(*(column[candidates].tolist() for column in columns))):
        repeated[row] = values in known
        known.add(values)
    return repeated


def describe_first(dataset: Dataset, mask: np.ndarray) -> str:
    """Returns box, class, image and size of the first object where `mask` (bool [N]) is true."""
    row = int(np.flatnonzero(mask)[0])
    image = int(dataset.image_of_box()[row])
    height, width = dataset.sizes[image]
    corners = ", ".join(f"{value:g}" for value in dataset.boxes[row])
    return f"[{corners}] ({dataset.classes[dataset.labels[row] - 1]}) in {dataset.path(image)}, {width}x{height} pixels"
