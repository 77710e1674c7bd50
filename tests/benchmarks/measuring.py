"""What the benchmarks share: sides that take turns, ratios with their spread, JSON lines, and the data they draw."""

import json
import os
import statistics
import time
from pathlib import Path
from typing import Callable

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[2] / "README.md"


def in_turns(sides: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, by side: in every round each side takes one turn, in an order that changes, so that
    whatever else the machine does slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        names = list(sides)
        for name in names[turn % len(names):] + names[:turn % len(names)]:
            started_at = time.perf_counter()
            sides[name]()
            seconds[name].append(time.perf_counter() - started_at)
    return seconds


def ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """How many times as long the peer took, round by round."""
    return spread([a / b for a, b in zip(theirs, ours, strict=True)])


def spread(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "from": min(values), "to": max(values)}


def told(one: dict[str, float], digits: int = 2) -> str:
    """A spread as people read it."""
    return f"{one['median']:.{digits}f} ({one['from']:.{digits}f} to {one['to']:.{digits}f})"


def append(name: str, line: dict, out: str = "") -> None:
    """The line, with machine, versions and commit, at the end of results/NAME.jsonl or of the file `out`."""
    from detector.run.environment import collect_environment
    path = Path(out) if out else RESULTS / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"benchmark": name, **line, **collect_environment(),
                               "load": round(os.getloadavg()[0], 2)}) + "\n")


def into_readme(readme: Path, name: str, text: str) -> None:
    """Puts what NAME.py tells between its two marks."""
    begin, end = f"<!-- {name}: python tests/benchmarks/{name}.py --readme writes this -->", f"<!-- {name}: end -->"
    before, rest = readme.read_text().split(begin)
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}")


def picture(chance: np.random.RandomState, height: int, width: int) -> np.ndarray:
    """uint8 [height, width, 3]: noise of all scales, the coarser the stronger, as in photographs; some hard edges."""
    total = np.zeros((height, width, 3), np.float32)
    cells = 4
    while cells <= min(height, width):
        coarse = chance.rand(max(2, cells * height // width), cells, 3).astype(np.float32) - 0.5
        for channel in range(3):
            plane = Image.fromarray(coarse[..., channel]).resize((width, height), Image.Resampling.BICUBIC)
            total[..., channel] += np.asarray(plane) * (300 / cells ** 0.2)
        cells *= 2
    pixels = (total + 128).clip(0, 255)
    for _ in range(8):
        top, left = chance.randint(0, height), chance.randint(0, width)
        pixels[top:top + height // 6, left:left + width // 6] *= 0.3 + 0.7 * chance.rand(3).astype(np.float32)
    return pixels.astype(np.uint8)


def scene(count: int, classes: int) -> tuple[list, list]:
    """Pictures of 640 x 480 as uint8 tensors, and targets with 3 to 12 objects each."""
    import torch
    chance = np.random.RandomState(0)
    images = [torch.from_numpy(np.ascontiguousarray(picture(chance, 480, 640).transpose(2, 0, 1))) for _ in range(count)]
    targets = []
    for number in chance.randint(3, 13, count):
        first = chance.rand(number, 2) * [560, 400]
        boxes = np.concatenate([first, first + 16 + chance.rand(number, 2) * 64], axis=1).astype(np.float32)
        targets.append({"boxes": torch.from_numpy(boxes), "labels": torch.from_numpy(chance.randint(1, classes + 1, number))})
    return images, targets


def photographs(folder: Path, count: int, height: int, width: int, quality: int = 90) -> list[Path]:
    """JPEGs drawn from a seed, of about as many bytes a pixel as COCO's."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(np.random.RandomState(number), height, width)).save(path, quality=quality)
    return paths


def annotation_file(path: Path, images: int, boxes: int, classes: int, height: int, width: int) -> None:
    """Annotations as instances_train2017.json holds them, with outlines, drawn from a seed; of COCO's numbers, it has
    COCO's size. Images are named by their numbers, 000000000000.jpg, and all of one size."""
    chance = np.random.RandomState(0)
    of = chance.randint(0, images, boxes).tolist()
    label = chance.randint(1, classes + 1, boxes).tolist()
    corner = (chance.rand(boxes, 2) * 0.7 * [width, height]).round(2).tolist()
    side = ((0.05 + 0.2 * chance.rand(boxes, 2)) * [width, height]).round(2).tolist()
    points = (chance.rand(100_000) * 640).round(2).astype(str).tolist()
    first, many = chance.randint(0, 99_000, boxes).tolist(), (2 * chance.randint(4, 40, boxes)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"info": {"description": "drawn"}, "licenses": [], "images": [')
        for n in range(images):
            file.write(", " * (n > 0) + f'{{"license": 3, "file_name": "{n:012d}.jpg", "coco_url": "http://images.cocodataset.'
                       f'org/train2017/{n:012d}.jpg", "height": {height}, "width": {width}, "date_captured": "2013-11-14 '
                       f'11:18:45", "flickr_url": "http://farm9.staticflickr.com/8186/{n:010d}_4e622c8349_z.jpg", "id": {n}}}')
        file.write('], "annotations": [')
        for n in range(boxes):
            (x, y), (w, h) = corner[n], side[n]
            outline = ", ".join(points[first[n]:first[n] + many[n]])
            file.write(", " * (n > 0) + f'{{"segmentation": [[{outline}]], "area": {0.7 * w * h:.4f}, "iscrowd": 0, "image_id": '
                       f'{of[n]}, "bbox": [{x}, {y}, {w}, {h}], "category_id": {label[n]}, "id": {n + 1}}}')
        file.write('], "categories": [' + ", ".join(f'{{"supercategory": "thing", "id": {c}, "name": "class {c}"}}'
                                                    for c in range(1, classes + 1)) + ']}')
