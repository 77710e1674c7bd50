"""Draws boxes, class names and scores on images."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 6  # pixels between two images side by side


def box_color(label: int) -> tuple[int, int, int]:
    """Returns the RGB color of a class, 0 ... 255: neighboring labels differ in hue by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((label * 0.381966) % 1, 0.6, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, classes: tuple[str, ...],
               scores: np.ndarray | None = None) -> Image.Image:
    """Returns a copy of the image with boxes, class names and scores.

    A box is a bright line between two black ones. Its class name is black text on a plate of the box's color, above the
    box if there is space, and always inside the image.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes: [N, 4], pixels.
        labels: [N], 1 ... C.
        scores: [N]; boxes with higher scores are drawn on top. None: no scores, and boxes are drawn in their order.
    """
    drawing = Image.fromarray(image).convert("RGB")
    draw = ImageDraw.Draw(drawing)
    font_size = max(11, min(drawing.size) // 32)
    font = ImageFont.load_default(font_size)
    line_width = max(2, font_size // 6)
    order = range(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    for row in order:
        color = box_color(int(labels[row]))
        x1, y1, x2, y2 = (float(v) for v in boxes[row])
        x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)  # exclusive corner -> last pixel
        draw.rectangle([x1, y1, x2, y2], outline=(0, 0, 0), width=line_width + 2)
        if min(x2 - x1, y2 - y1) > 2:
            draw.rectangle([x1 + 1, y1 + 1, x2 - 1, y2 - 1], outline=color, width=line_width)
        text = classes[int(labels[row]) - 1] + ("" if scores is None else f" {scores[row]:.2f}")
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x = min(max(x1, 0), max(drawing.width - width - 1, 0))
        y = y1 - height if y1 >= height else min(max(y1, 0), max(drawing.height - height - 1, 0))
        draw.rectangle([x, y, x + width, y + height], fill=color, outline=(0, 0, 0))
        draw.text((x + 3 - left, y + 3 - top), text, fill=(0, 0, 0), font=font)
    return drawing


def limit_side(image: np.ndarray, boxes: np.ndarray, max_side: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image and its boxes reduced so that no side exceeds `max_side`; the same ones if none does.

    Args:
        image: uint8 [H, W, 3].
        boxes: [N, 4], pixels.
    """
    height, width = image.shape[:2]
    if max(height, width) <= max_side:
        return image, boxes
    factor = max_side / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    reduced = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.array(reduced), boxes * np.array([size[0] / width, size[1] / height] * 2)


def side_by_side(left: Image.Image, right: Image.Image, captions: tuple[str, str]) -> Image.Image:
    """Returns two images of equal height beside each other, with a caption above each."""
    font = ImageFont.load_default(14)
    sheet = Image.new("RGB", (left.width + GAP + right.width, left.height + 22), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for image, caption, x in ((left, captions[0], 0), (right, captions[1], left.width + GAP)):
        sheet.paste(image, (x, 22))
        draw.text((x + 4, 3), caption, fill=(0, 0, 0), font=font)
    return sheet
