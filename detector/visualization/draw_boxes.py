"""Draws boxes, class names and scores on images."""

import colorsys
import os
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 6     # pixels between two images side by side
MARGIN = 3  # pixels between the text of a plate and its edge


def box_color(label: int) -> tuple[int, int, int]:
    """Returns the RGB color of a class, 0 ... 255: neighboring labels differ in hue by the golden angle."""
    red, green, blue = colorsys.hsv_to_rgb((label * 0.381966) % 1, 0.6, 1.0)
    return int(255 * red), int(255 * green), int(255 * blue)


@cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Returns matplotlib's DejaVu Sans: it has Latin, Greek and Cyrillic letters, Pillow's own font ASCII alone."""
    import matplotlib
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, classes: tuple[str, ...],
               scores: np.ndarray | None = None) -> Image.Image:
    """Returns a copy of the image with boxes, class names and scores.

    A box is a bright line between two black ones. Its class name is black text on a plate of the box's color: above the
    box if there is space, always inside the image, and beside the other plates where possible. All plates lie on top of
    all boxes.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes: [N, 4], pixels.
        labels: [N], 1 ... C.
        scores: [N]; boxes with higher scores are drawn on top. None: no scores, and boxes are drawn in their order.
    """
    drawing = Image.fromarray(image).convert("RGB")
    draw = ImageDraw.Draw(drawing)
    font_size = max(11, min(drawing.size) // 32)
    font = load_font(font_size)
    order = np.arange(len(boxes)) if scores is None else np.argsort(scores, kind="stable")
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    last_pixels = np.maximum(corners[:, 2:] - 1, corners[:, :2])  # exclusive corner -> last pixel
    corners = np.concatenate([corners[:, :2], last_pixels], axis=1)
    for row in order:
        draw_box(draw, corners[row], box_color(int(labels[row])), line_width=max(2, font_size // 6))
    texts = [classes[int(label) - 1] for label in labels]
    if scores is not None:
        texts = [f"{text} {score:.2f}" for text, score in zip(texts, scores)]
    text_boxes = np.array([draw.textbbox((0, 0), text, font=font) for text in texts]).reshape(-1, 4)
    sizes = text_boxes[:, 2:] - text_boxes[:, :2] + 2 * MARGIN
    places = place_plates(corners[order[::-1]], sizes[order[::-1]], drawing.size)[::-1]
    for row, (x, y) in zip(order, places):
        draw.rectangle([x, y, *(sizes[row] + (x, y))], fill=box_color(int(labels[row])), outline=(0, 0, 0))
        left, top = text_boxes[row, :2]
        draw.text((x + MARGIN - left, y + MARGIN - top), texts[row], fill=(0, 0, 0), font=font)
    return drawing


def draw_box(draw: ImageDraw.ImageDraw, corners: np.ndarray, color: tuple[int, int, int], line_width: int) -> None:
    """Draws a bright line between two black ones. `corners`: x1, y1, x2, y2 of the outermost pixels."""
    x1, y1, x2, y2 = corners.tolist()
    draw.rectangle([x1, y1, x2, y2], outline=(0, 0, 0), width=line_width + 2)
    if min(x2 - x1, y2 - y1) > 2:
        draw.rectangle([x1 + 1, y1 + 1, x2 - 1, y2 - 1], outline=color, width=line_width)


def place_plates(corners: np.ndarray, sizes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Returns the upper left corner of the plate of each box, float64 [N, 2]: inside the image, best rows first.

    A plate takes the first of eight places that no earlier plate covers, or else the one that is covered least. Plates
    may share the line of their edge.

    Args:
        corners: float64 [N, 4], the outermost pixels of each box.
        sizes: [N, 2], width and height of each plate, less one pixel.
        image_size: width and height.
    """
    placed = np.zeros((len(corners), 4))
    for row, (box, size) in enumerate(zip(corners, sizes)):
        box, limit = np.clip(box, 0, [*image_size] * 2), np.maximum(np.array(image_size) - 1 - size, 0)
        candidates = np.array([(x, y) for x in (box[0], box[2] - size[0])
                               for y in (box[1] - size[1], box[1], box[3], box[3] - size[1])])
        fits = (candidates[:, 1] >= 0) & (candidates[:, 1] <= limit[1])
        candidates = np.clip(candidates[fits] if fits.any() else candidates[:1], 0, limit)
        starts = np.maximum(candidates[:, None], placed[:row, :2])
        ends = np.minimum(candidates[:, None] + size, placed[:row, 2:])
        covered = np.clip(ends - starts, 0, None).prod(axis=2).sum(axis=1)
        place = candidates[covered.argmin()]
        placed[row] = [*place, *(place + size)]
    return placed[:, :2]


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
    font = load_font(14)
    sheet = Image.new("RGB", (left.width + GAP + right.width, left.height + 22), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    for image, caption, x in ((left, captions[0], 0), (right, captions[1], left.width + GAP)):
        sheet.paste(image, (x, 22))
        draw.text((x + 4, 3), caption, fill=(0, 0, 0), font=font)
    return sheet
