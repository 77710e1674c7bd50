"""A synthetic data set in COCO layout: coloured shapes on textured, cluttered backgrounds.

It consists of JPEG files and an annotation file, so that a run without any download uses all code from disk to AP.
"""

import colorsys
import json
import math
import os
import shutil
import tempfile

import numpy as np
from PIL import Image, ImageDraw

from detector.errors import BadInput
from detector.seeding import derive_seed, numpy_random_state

CLASSES = ("circle", "square", "triangle", "star", "cross", "ring")
IMAGES = {"train": 480, "val": 120}
SIZES = ((160, 224), (224, 160), (192, 192), (144, 256), (256, 144))  # height, width
MAX_OBJECTS = 10
MAX_ROTATION = 0.35          # radians, in either direction
HUE_SPREAD = 0.05            # fraction of the hue circle, in either direction; hues of classes are 0.17 apart
EMPTY_FRACTION = 0.06        # of the images have no object
MAX_COVERED_FRACTION = 0.30  # of the box of a shape may be covered by the box of a later shape

Box = tuple[int, int, int, int]  # x1, y1, x2, y2 in whole pixels


def draw_if_missing(root: str) -> None:
    """Draws the data set into `root` if there is none yet; it is renamed into place when it is complete.

    Raises:
        BadInput: `root` cannot be written, or is a folder with other files.
    """
    if _is_complete(root):
        return
    parent = os.path.dirname(os.path.abspath(root))
    os.makedirs(parent, exist_ok=True)
    temporary = tempfile.mkdtemp(dir=parent, prefix=".shapes-")
    os.chmod(temporary, 0o755)
    try:
        for split, count in IMAGES.items():
            draw_split(temporary, split, count)
        try:
            os.rename(temporary, root)  # also replaces an empty folder
        except OSError as error:
            if _is_complete(root):
                return  # another machine with the same disk has drawn it meanwhile
            raise BadInput(f"cannot draw the shapes into data.root={root}: {error.strerror}. Name a folder that does "
                           "not exist yet, or is empty") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_complete(root: str) -> bool:
    return os.path.isfile(os.path.join(root, "annotations", "instances_val.json"))


def draw_split(root: str, split: str, count: int) -> None:
    """Draws `count` images into root/split and writes their COCO file into root/annotations."""
    os.makedirs(os.path.join(root, split))
    os.makedirs(os.path.join(root, "annotations"), exist_ok=True)
    images, annotations = [], []
    for number in range(1, count + 1):
        state = numpy_random_state(derive_seed(0, "shapes", split, number))
        picture, objects = draw_image(state)
        name = f"{number:05d}.jpg"
        picture.save(os.path.join(root, split, name), quality=int(state.randint(70, 95)))
        images.append({"id": number, "file_name": name, "width": picture.width, "height": picture.height})
        annotations += [{"id": len(annotations) + i, "image_id": number, "category_id": label, "iscrowd": 0,
                         "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                         "area": (box[2] - box[0]) * (box[3] - box[1])}
                        for i, (label, box) in enumerate(objects, start=1)]
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
    with open(os.path.join(root, "annotations", f"instances_{split}.json"), "w", encoding="utf-8") as file:
        json.dump({"info": {"description": "shapes"}, "images": images, "annotations": annotations,
                   "categories": categories}, file)


def draw_image(state: np.random.RandomState) -> tuple[Image.Image, list[tuple[int, Box]]]:
    """Draws one image; returns it and its objects, (label from 1, box), in the order in which they were drawn."""
    height, width = SIZES[state.randint(len(SIZES))]
    picture = draw_background(state, height, width)
    objects: list[tuple[int, Box]] = []
    if state.uniform() < EMPTY_FRACTION:
        return picture, objects
    grain = state.normal(0, 8, (height, width, 1))
    for _ in range(state.randint(1, MAX_OBJECTS + 1)):
        label = int(state.randint(len(CLASSES))) + 1
        radius = float(np.exp(state.uniform(np.log(12), np.log(0.32 * min(height, width)))))
        center = state.uniform(radius + 1, width - radius - 1), state.uniform(radius + 1, height - radius - 1)
        mask = shape_mask(CLASSES[label - 1], (height, width), center, radius,
                          state.uniform(-MAX_ROTATION, MAX_ROTATION))
        left, top, right, bottom = mask.getbbox()
        if any(_covered_fraction(box, (left, top, right, bottom)) > MAX_COVERED_FRACTION for _, box in objects):
            continue
        color = class_color(label, state)
        fill = Image.fromarray((np.array(color) + grain).clip(0, 255).astype(np.uint8))
        edge = Image.new("RGB", picture.size, tuple(255 - c if abs(c - 128) > 40 else 0 for c in color))
        picture.paste(edge, (0, 0), mask)
        picture.paste(fill, (0, 0), erode(mask))
        objects.append((label, (left, top, right, bottom)))
    return picture, objects


def class_color(label: int, state: np.random.RandomState) -> tuple[int, int, int]:
    """Draws a colour of a class: its hue varies little; brightness and saturation do not depend on the class."""
    hue = (label / len(CLASSES) + state.uniform(-HUE_SPREAD, HUE_SPREAD)) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, state.uniform(0.45, 1), state.uniform(0.45, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def draw_background(state: np.random.RandomState, height: int, width: int) -> Image.Image:
    """Draws a textured background with clutter that belongs to no class: lines, arcs and specks."""
    low = state.randint(0, 256, (int(state.randint(2, 9)), int(state.randint(2, 9)), 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    angle, wavelength = state.uniform(0, math.pi), state.uniform(4, 30)
    stripes = state.uniform(0, 30) * np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / wavelength)
    noise = state.normal(0, state.uniform(2, 14), (height, width, 3))
    picture = Image.fromarray((0.6 * smooth + 50 + stripes[..., None] + noise).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(state.randint(4, 16)):
        color = tuple(int(c) for c in state.randint(0, 256, 3))
        a, b = state.randint(0, width, 2), state.randint(0, height, 2)
        box = [int(min(a)), int(min(b)), int(max(a)) + 2, int(max(b)) + 2]
        kind = state.randint(3)
        if kind == 0:
            draw.line([int(a[0]), int(b[0]), int(a[1]), int(b[1])], fill=color, width=int(state.randint(1, 4)))
        elif kind == 1:
            start = int(state.randint(360))
            draw.arc(box, start, start + int(state.randint(30, 120)), fill=color, width=int(state.randint(1, 4)))
        else:
            draw.rectangle([box[0], box[1], box[0] + int(state.randint(1, 5)), box[1] + int(state.randint(1, 5))],
                           fill=color)
    return picture


def shape_mask(name: str, size: tuple[int, int], center: tuple[float, float], radius: float,
               rotation: float) -> Image.Image:
    """Returns the pixels of one shape: 255 inside, 0 outside.

    Args:
        size: height and width of the mask.
        center: x and y.
        rotation: radians; circles and rings ignore it.
    """
    mask = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(mask)
    cx, cy = center
    if name in ("circle", "ring"):
        draw.ellipse([cx - radius, cy - radius, cx + radius, cy + radius], fill=255)
        if name == "ring":
            inner = 0.55 * radius
            draw.ellipse([cx - inner, cy - inner, cx + inner, cy + inner], fill=0)
        return mask
    corners = {"square": [(1, k * math.pi / 2) for k in range(4)],
               "triangle": [(1, k * 2 * math.pi / 3) for k in range(3)],
               "star": [(1 if k % 2 == 0 else 0.42, k * math.pi / 5) for k in range(10)],
               "cross": [(r, k * math.pi / 2 + d) for k in range(4)
                         for r, d in ((1.0, -0.32), (1.0, 0.32), (0.44, math.pi / 4))]}[name]
    draw.polygon([(cx + radius * r * math.cos(rotation + a), cy + radius * r * math.sin(rotation + a))
                  for r, a in corners], fill=255)
    return mask


def erode(mask: Image.Image) -> Image.Image:
    """Returns the mask without its outermost pixels; the shape keeps an outline of another colour there."""
    inside = np.asarray(mask) > 0
    padded = np.pad(inside, 1)
    inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return Image.fromarray((inside * 255).astype(np.uint8))


def _covered_fraction(box: Box, cover: Box) -> float:
    width, height = min(box[2], cover[2]) - max(box[0], cover[0]), min(box[3], cover[3]) - max(box[1], cover[1])
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))
