"""Not a test: writes small data sets of several layouts, whose images all differ."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from detector.config.schema import Data

XML = ("<annotation><size><width>100</width><height>50</height></size><object><name>cat</name><bndbox><xmin>2</xmin>"
       "<ymin>3</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>")
LINE = "0 0.5 0.5 0.2 0.4\n"  # in an image of 100x50 pixels: 40, 15, 60, 35


def options(root: Path, **more) -> Data:
    """Returns the section `data` of a config, without a cache."""
    return Data(**{"root": str(root), "cache": "", **more})


def image(path: Path, size: tuple[int, int] = (100, 50), seed: str = "") -> Path:
    """Writes a grey image of this width and height, with pixels that follow from its path or from `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 100, np.uint8)
    marks = (seed or str(path)).encode()[-pixels.size:]
    pixels.reshape(-1)[:len(marks)] = np.frombuffer(marks, np.uint8)
    Image.fromarray(pixels).save(path, {".png": "PNG", ".bmp": "BMP"}.get(path.suffix.lower(), "JPEG"))
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def coco(root: Path, file: str, folder: str, count: int = 4, objects=(), classes=("cat",)) -> None:
    """Writes `count` images into a folder, and an annotation file; objects: (image from 0, class from 1, xywh)."""
    names = [f"{folder.replace('/', '_')}_{number}.png" for number in range(count)]
    for name in names:
        image(root / folder / name)
    objects = objects or [(number, 1, [10, 10, 20, 20]) for number in range(count)]
    text(root / file, json.dumps({
        "images": [{"id": number, "file_name": name, "width": 100, "height": 50} for number, name in enumerate(names, 1)],
        "annotations": [{"id": number, "image_id": index + 1, "category_id": label, "bbox": box, **dict(*more)}
                        for number, (index, label, box, *more) in enumerate(objects, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)]}))


def voc(root: Path, lists: dict[str, list[str]]) -> None:
    for name, stems in lists.items():
        text(root / "ImageSets" / "Main" / f"{name}.txt", "\n".join(stems))
        for stem in stems:
            image(root / "JPEGImages" / f"{stem}.jpg")
            text(root / "Annotations" / f"{stem}.xml", XML)


def yolo(root: Path, splits=("train", "val"), names: str = "[cat]") -> None:
    """Writes data.yaml, images/SPLIT and labels/SPLIT with one image each."""
    for split in splits:
        image(root / "images" / split / f"{split}.jpg")
        text(root / "labels" / split / f"{split}.txt", LINE)
    text(root / "data.yaml", "".join(f"{split}: images/{split}\n" for split in splits) + f"names: {names}\n")


def per_image_json(root: Path, stems=("a", "b")) -> None:
    for stem in stems:
        image(root / "images" / f"{stem}.jpg")
        text(root / "labels" / f"{stem}.json", '{"labels": ["cat"], "boxes": [[1, 2, 30, 40]]}')


def visual_genome(root: Path) -> None:
    for split in ("train", "val", "test"):
        number = {"train": 1, "val": 2, "test": 3}[split]
        image(root / "VG_100K" / f"{number}.jpg")
        text(root / "xml" / f"{number}.xml", XML)
        text(root / f"{split}.txt", f"VG_100K/{number}.jpg xml/{number}.xml\n")
    text(root / "100" / "objects_vocab.txt", "cat,kitten\ndog\n")


def imagenet_det(root: Path) -> None:
    for split in ("train", "val"):
        image(root / "Data" / "DET" / split / f"{split}_1.JPEG")
        text(root / "Annotations" / "DET" / split / f"{split}_1.xml", XML.replace("cat", "n02121808"))
        text(root / "ImageSets" / "DET" / f"{split}.txt", f"{split}_1 1\n")
