"""Anchors of py-faster-rcnn (model.legacy_anchors)."""

from functools import lru_cache


@lru_cache(maxsize=64)
def legacy_cell_anchors(sizes: tuple[float, ...], ratios: tuple[float, ...],
                        stride: int) -> tuple[tuple[float, ...], ...]:
    """Returns the anchors of the first cell of a level, whose x2 and y2 are the last pixel.

    The sides of the cell itself (0, 0, 15, 15 at stride 16) are rounded for each ratio, then multiplied by size /
    stride. All anchors share the cell's centre (7.5 at stride 16). The list in the comment of py-faster-rcnn's
    generate_anchors.py counts pixels from 1; its code returns one less, as this function does.
    """
    centre, anchors = (stride - 1) / 2, []
    for ratio in ratios:
        width = round((stride * stride / ratio) ** 0.5)
        height = round(width * ratio)
        for size in sizes:
            half_width, half_height = (width * size / stride - 1) / 2, (height * size / stride - 1) / 2
            anchors.append((centre - half_width, centre - half_height, centre + half_width, centre + half_height))
    return tuple(anchors)
