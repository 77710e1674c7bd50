"""Shared by the benchmarks: interleaved measurement, ratios with their spread, result lines, and drawn data.

A benchmark compares variants, such as this package and torchvision, which is then the peer.
"""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
PROJECT_README = Path(__file__).parents[2] / "README.md"


def run_interleaved(variants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each round, by variant.

    Every round runs each variant once, in an order that rotates, so that other load on the machine slows all alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            started_at = time.perf_counter()
            variants[name]()
            seconds[name].append(time.perf_counter() - started_at)
    return seconds


def ratio(numerators: list[float], denominators: list[float]) -> dict[str, float]:
    """Returns the spread of the ratios, round by round; of seconds, those of the peer come first."""
    return spread([a / b for a, b in zip(numerators, denominators, strict=True)])


def spread(values: list[float]) -> dict[str, float]:
    """Returns median, minimum ("from") and maximum ("to")."""
    return {"median": statistics.median(values), "from": min(values), "to": max(values)}


def format_spread(values: dict[str, float], digits: int = 2) -> str:
    return f"{values['median']:.{digits}f} ({values['from']:.{digits}f} to {values['to']:.{digits}f})"


def append_result(name: str, line: dict, out: str = "") -> None:
    """Appends a JSON line, with time, machine, versions and commit, to results/NAME.jsonl or to the file `out`."""
    from detector.run.environment import collect_environment
    path = Path(out) if out else RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"benchmark": name, **line, **collect_environment(),
                               "load": round(os.getloadavg()[0], 2), "time": round(time.time(), 1)}) + "\n")


def write_between_markers(readme: Path, name: str, text: str) -> None:
    """Replaces the text between the two marker comments of NAME.py in a markdown file."""
    begin, end = f"<!-- {name}: python tests/benchmarks/{name}.py --readme writes this -->", f"<!-- {name}: end -->"
    before, rest = readme.read_text().split(begin)
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def draw_picture(rng: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: noise of all scales, stronger at coarse ones as in photographs, and hard edges."""
    total = np.zeros((height, width, 3), np.float32)
    cells = 4
    while cells <= min(height, width):
        coarse = rng.rand(max(2, cells * height // width), cells, 3).astype(np.float32) - 0.5
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(plane) * (300 / cells ** 0.2)
        cells *= 2
    pixels = (total + 128).clip(0, 255)
    for _ in range(8):
        top, left = rng.randint(0, height), rng.randint(0, width)
        pixels[top:top + height // 6, left:left + width // 6] *= 0.3 + 0.7 * rng.rand(3).astype(np.float32)
    return pixels.astype(np.uint8)


def draw_batch(count: int, classes: int) -> tuple[list, list]:
    """Returns uint8 tensors of 640 x 480 pixels, and targets with 3 to 12 objects each."""
    import torch
    rng = np.random.RandomState(0)
    images = [torch.from_numpy(np.ascontiguousarray(draw_picture(rng, 480, 640).transpose(2, 0, 1))) for _ in range(count)]
    targets = []
    for objects in rng.randint(3, 13, count):
        first = rng.rand(objects, 2) * [560, 400]
        boxes = np.concatenate([first, first + 16 + rng.rand(objects, 2) * 64], axis=1).astype(np.float32)
        targets.append({"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(rng.randint(1, classes + 1, objects))})
    return images, targets


def draw_jpegs(folder: Path, count: int, height: int, width: int, quality: int = 90) -> list[Path]:
    """Draws JPEGs from a seed, with about as many bytes per pixel as COCO's."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(draw_picture(np.random.RandomState(number), height, width)).save(path, quality=quality)
    return paths


def write_annotations(path: Path, images: int, boxes: int, classes: int, height: int, width: int) -> None:
    """Writes annotations as instances_train2017.json holds them, drawn from a seed, with outlines.

    With COCO's numbers of images and boxes the file has COCO's size. Image n is named 00000000000n.jpg; all images have
    one size.
    """
    rng = np.random.RandomState(0)
    image_of_box = rng.randint(0, images, boxes).tolist()
    labels = rng.randint(1, classes + 1, boxes).tolist()
    corners = (rng.rand(boxes, 2) * 0.7 * [width, height]).round(2).tolist()
    sizes = ((0.05 + 0.2 * rng.rand(boxes, 2)) * [width, height]).round(2).tolist()
    points = (rng.rand(100_000) * 640).round(2).astype(str).tolist()
    first_point, num_points = rng.randint(0, 99_000, boxes).tolist(), (2 * rng.randint(4, 40, boxes)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"info": {"description": "drawn"}, "licenses": [], "images": [')
        for n in range(images):
            separator = ", " if n > 0 else ""
            file.write(separator + f'{{"license": 3, "file_name": "{n:012d}.jpg", "coco_url": "http://images.cocodataset.'
                       f'org/train2017/{n:012d}.jpg", "height": {height}, "width": {width}, "date_captured": "2013-11-14 '
                       f'11:18:45", "flickr_url": "http://farm9.staticflickr.com/8186/{n:010d}_4e622c8349_z.jpg", "id": {n}}}')
        file.write('], "annotations": [')
        for n in range(boxes):
            (x, y), (w, h) = corners[n], sizes[n]
            outline = ", ".join(points[first_point[n]:first_point[n] + num_points[n]])
            separator = ", " if n > 0 else ""
            file.write(separator + f'{{"segmentation": [[{outline}]], "area": {0.7 * w * h:.4f}, "iscrowd": 0, "image_id": '
                       f'{image_of_box[n]}, "bbox": [{x}, {y}, {w}, {h}], "category_id": {labels[n]}, "id": {n + 1}}}')
        file.write('], "categories": [' + ", ".join(f'{{"supercategory": "thing", "id": {c}, "name": "class {c}"}}'
                                                    for c in range(1, classes + 1)) + ']}')
