"""Boxes, names and scores on pictures, readable on any ground."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 6  # pixels between two pictures side by side


def class_colour(label: int) -> tuple[int, int, int]:
    """A colour of its own for each class: hues far from each other (the golden angle), always bright."""
    red, green, blue = colorsys.hsv_to_rgb((label * 0.381966) % 1, 0.6, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, classes: tuple[str, ...],
               scores: np.ndarray | None = None) -> Image.Image:
    """The picture uint8 [H, W, 3] with boxes [N, 4]; nothing to draw gives the picture itself.

    Each box is a bright line between two black ones; each name stands in black on a plate of its class's colour, above
    its box if there is room and never outside the picture. Better scores are drawn later, and so lie on top.
    """
    picture = Image.fromarray(image).convert("RGB")
    draw = ImageDraw.Draw(picture)
    size = max(11, min(picture.size) // 32)
    font = ImageFont.load_default(size)
    line = max(2, size // 6)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for row in order:
        colour = class_colour(int(labels[row]))
        x1, y1, x2, y2 = (float(v) for v in boxes[row])
        x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # exclusive corner -> last pixel
        draw.rectangle([x1, y1, x2, y2], outline=(0, 0, 0), width=line + 2)
        if min(x2 - x1, y2 - y1) > 2:
            draw.rectangle([x1 + 1, y1 + 1, x2 - 1, y2 - 1], outline=colour, width=line)
        text = classes[int(labels[row]) - 1] + ("" if scores is None else f" {scores[row]:.2f}")
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(x1, 0), max(picture.width - width - 1, 0))
        y = y1 - height if y1 >= height else min(max(y1, 0), max(picture.height - height - 1, 0))
        draw.rectangle([x, y, x + width, y + height], fill=colour, outline=(0, 0, 0))
        draw.text((x + 3 - left, y + 3 - top), text, fill=(0, 0, 0), font=font)
    return picture


def side_by_side(left: Image.Image, right: Image.Image, captions: tuple[str, str]) -> Image.Image:
    """Two pictures of one height beside each other, with a caption above each."""
    font = ImageFont.load_default(14)
    sheet = Image.new("RGB", (left.width + GAP + right.width, left.height + 22), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for picture, caption, x in ((left, captions[0], 0), (right, captions[1], left.width + GAP)):
        sheet.paste(picture, (x, 22))
        draw.text((x + 4, 3), caption, fill=(0, 0, 0), font=font)
    return sheet
