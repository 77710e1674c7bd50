"""Anchors of py-faster-rcnn: ratios rounded at the size of a cell, around the cell's centre."""

from functools import lru_cache


@lru_cache(maxsize=64)
def legacy_cell(sizes: tuple[float, ...], ratios: tuple[float, ...], stride: int) -> tuple[tuple[float, ...], ...]:
    """py-faster-rcnn's, with x2 and y2 the last pixel: the cell itself (0, 0, 15, 15 at stride 16), its sides rounded
    for each ratio, then multiplied by size / stride, around the cell's centre at 7.5.

    The list printed in the comment of its generate_anchors.py counts pixels from 1; its code gives one less.
    """
    centre, found = (stride - 1) / 2, []
    for ratio in ratios:
        width = round((stride * stride / ratio) ** 0.5)
        height = round(width * ratio)
        for size in sizes:
            right, down = (width * size / stride - 1) / 2, (height * size / stride - 1) / 2
            found.append((centre - right, centre - down, centre + right, centre + down))
    return tuple(found)
