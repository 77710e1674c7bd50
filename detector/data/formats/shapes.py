"""An embedded data set that draws itself: coloured shapes on textured, cluttered grounds, in COCO layout.

Real JPEG files and a real annotation file, so that every part of the road from disk to AP is used, without a download.
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
MOST_OBJECTS = 10
TURN = 0.35               # radians that a shape may be turned either way
HUE_SPREAD = 0.05         # of the circle of hues, either way; neighbours are 0.17 apart
EMPTY_SHARE = 0.06      # of images have no object
COVERED_AT_MOST = 0.30  # of a shape's box may be hidden by the shapes drawn after it


def draw_once(root: str) -> None:
    """Draws the data set below `root`, unless it is there. It appears by rename: whole or not at all."""
    if os.path.isfile(os.path.join(root, "annotations", "instances_val.json")):
        return
    above = os.path.dirname(os.path.abspath(root))
    os.makedirs(above, exist_ok=True)
    beside = tempfile.mkdtemp(dir=above, prefix=".shapes-")
    os.chmod(beside, 0o755)
    try:
        for split, count in IMAGES.items():
            draw_split(beside, split, count)
        try:
            os.rename(beside, root)  # takes the place of an empty folder, too
        except OSError as error:
            if os.path.isfile(os.path.join(root, "annotations", "instances_val.json")):
                return  # another machine on a shared disk was faster
            raise BadInput(f"cannot draw the shapes into data.root={root}: {error.strerror}. Name a folder that does "
                           "not exist yet, or is empty") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def draw_split(root: str, split: str, count: int) -> None:
    """`count` images in root/split and their COCO file in root/annotations."""
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


def draw_image(state: np.random.RandomState) -> tuple[Image.Image, list[tuple[int, tuple[int, int, int, int]]]]:
    """One picture and its objects: (label from 1, (x1, y1, x2, y2) in whole pixels), in the order they were drawn."""
    height, width = SIZES[state.randint(len(SIZES))]
    picture = ground(state, height, width)
    objects: list[tuple[int, tuple[int, int, int, int]]] = []
    if state.uniform() < EMPTY_SHARE:
        return picture, objects
    grain = state.normal(0, 8, (height, width, 1))
    for _ in range(state.randint(1, MOST_OBJECTS + 1)):
        label = int(state.randint(len(CLASSES))) + 1
        radius = float(np.exp(state.uniform(np.log(12), np.log(0.32 * min(height, width)))))
        centre = state.uniform(radius + 1, width - radius - 1), state.uniform(radius + 1, height - radius - 1)
        mask = shape_mask(CLASSES[label - 1], (height, width), centre, radius, state.uniform(-TURN, TURN))
        left, top, right, bottom = mask.getbbox()
        if any(_share_covered(box, (left, top, right, bottom)) > COVERED_AT_MOST for _, box in objects):
            continue
        colour = class_colour(label, state)
        fill = Image.fromarray((np.array(colour) + grain).clip(0, 255).astype(np.uint8))
        edge = Image.new("RGB", picture.size, tuple(255 - c if abs(c - 128) > 40 else 0 for c in colour))
        picture.paste(edge, (0, 0), mask)
        picture.paste(fill, (0, 0), shrunk(mask))
        objects.append((label, (left, top, right, bottom)))
    return picture, objects


def class_colour(label: int, state: np.random.RandomState) -> tuple[int, int, int]:
    """Mostly one hue for each class, as tomatoes are mostly red; brightness and saturation say nothing."""
    hue = (label / len(CLASSES) + state.uniform(-HUE_SPREAD, HUE_SPREAD)) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, state.uniform(0.45, 1), state.uniform(0.45, 1))
    return int(255 * red), int(255 * green), int(255 * blue)


def ground(state: np.random.RandomState, height: int, width: int) -> Image.Image:
    """A textured ground with clutter that is no shape of any class: lines, arcs and specks."""
    low = state.randint(0, 256, (int(state.randint(2, 9)), int(state.randint(2, 9)), 3)).astype(np.uint8)
    smooth = np.asarray(Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    angle, wave = state.uniform(0, math.pi), state.uniform(4, 30)
    stripes = state.uniform(0, 30) * np.sin((x * math.cos(angle) + y * math.sin(angle)) * 2 * math.pi / wave)
    noise = state.normal(0, state.uniform(2, 14), (height, width, 3))
    picture = Image.fromarray((0.6 * smooth + 50 + stripes[..., None] + noise).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for _ in range(state.randint(4, 16)):
        colour = tuple(int(c) for c in state.randint(0, 256, 3))
        a, b = state.randint(0, width, 2), state.randint(0, height, 2)
        box = [int(min(a)), int(min(b)), int(max(a)) + 2, int(max(b)) + 2]
        kind = state.randint(3)
        if kind == 0:
            draw.line([int(a[0]), int(b[0]), int(a[1]), int(b[1])], fill=colour, width=int(state.randint(1, 4)))
        elif kind == 1:
            start = int(state.randint(360))
            draw.arc(box, start, start + int(state.randint(30, 120)), fill=colour, width=int(state.randint(1, 4)))
        else:
            draw.rectangle([box[0], box[1], box[0] + int(state.randint(1, 5)), box[1] + int(state.randint(1, 5))],
                           fill=colour)
    return picture


def shape_mask(name: str, size: tuple[int, int], centre: tuple[float, float], radius: float,
               turn: float) -> Image.Image:
    """The pixels of one shape: 255 inside, 0 outside, size (height, width)."""
    mask = Image.new("L", (size[1], size[0]))
    draw = ImageDraw.Draw(mask)
    cx, cy = centre
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
    draw.polygon([(cx + radius * r * math.cos(turn + a), cy + radius * r * math.sin(turn + a)) for r, a in corners],
                 fill=255)
    return mask


def shrunk(mask: Image.Image) -> Image.Image:
    """The mask without its outermost pixel, so that a line of another colour stays around a shape."""
    inside = np.asarray(mask) > 0
    padded = np.pad(inside, 1)
    inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return Image.fromarray((inside * 255).astype(np.uint8))


def _share_covered(box: tuple, by: tuple) -> float:
    width, height = min(box[2], by[2]) - max(box[0], by[0]), min(box[3], by[3]) - max(box[1], by[1])
    return max(width, 0) * max(height, 0) / ((box[2] - box[0]) * (box[3] - box[1]))
