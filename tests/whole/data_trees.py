"""Not a test: a few drawn images in the original layouts of VOC, COCO, Visual Genome and ImageNet DET."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

from detector.data.formats.voc import CLASSES as VOC

SIZES = ((64, 48), (48, 64), (64, 64), (96, 40), (40, 96), (60, 50))  # width, height; two with an aspect ratio beyond 2


def draw(path: Path, number: int) -> tuple[int, int, list[int]]:
    """Draws one image; returns width, height and x1, y1, x2, y2 (inclusive, from 0) of its only object."""
    width, height = SIZES[number % len(SIZES)]
    box = [width // 4, height // 4, width * 3 // 4, height * 3 // 4]
    image = Image.new("RGB", (width, height), (40 * number % 256, 90, 120))
    ImageDraw.Draw(image).rectangle(box, fill=(240, 30 * number % 256, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return width, height, box


def xml(name: str, width: int, height: int, box: list[int], first: int) -> str:
    """Returns an annotation with one object; coordinates count from `first`."""
    corners = "".join(f"<{key}>{value + first}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    return (f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size><object><name>{name}"
            f"</name><difficult>{int(width == height)}</difficult><bndbox>{corners}</bndbox></object></annotation>")


def voc(root: Path) -> Path:
    for year, splits in (("2007", {"trainval": range(8), "test": range(8, 11)}), ("2012", {"trainval": range(4)})):
        tree = root / f"VOC{year}"
        for split, numbers in splits.items():
            for number in numbers:
                stem = f"{year}_{number:06d}"
                width, height, box = draw(tree / "JPEGImages" / f"{stem}.jpg", number)
                note = tree / "Annotations" / f"{stem}.xml"
                note.parent.mkdir(exist_ok=True)
                note.write_text(xml(VOC[number % 20], width, height, box, 1))
            split_file = tree / "ImageSets" / "Main" / f"{split}.txt"
            split_file.parent.mkdir(parents=True, exist_ok=True)
            split_file.write_text("".join(f"{year}_{number:06d}\n" for number in numbers))
    return root


def coco(root: Path) -> Path:
    return coco_tree(root, {"train2014": ("train2014/COCO_train2014_{:012d}.jpg", range(1, 7)),
              "valminusminival2014": ("val2014/COCO_val2014_{:012d}.jpg", range(7, 9)),
              "minival2014": ("val2014/COCO_val2014_{:012d}.jpg", range(9, 12)),
              "train2017": ("train2017/{:012d}.jpg", range(1, 9)), "val2017": ("val2017/{:012d}.jpg", range(9, 12))})


def deeppcb(root: Path) -> Path:
    return coco_tree(root, {"train": ("images/{:08d}_test.jpg", range(1, 9)), "test": ("images/{:08d}_test.jpg", range(9, 12))})


def coco_tree(root: Path, splits: dict[str, tuple[str, range]]) -> Path:
    (root / "annotations").mkdir(parents=True)
    for split, (pattern, numbers) in splits.items():
        images, notes = [], []
        for number in numbers:
            path = pattern.format(number)
            width, height, (x1, y1, x2, y2) = draw(root / path, number)
            images.append({"id": number, "file_name": path.split("/")[1], "width": width, "height": height})
            notes.append({"id": number, "image_id": number, "category_id": 1 + 2 * (number % 3), "iscrowd": int(number == 3),
                          "bbox": [x1, y1, x2 - x1 + 1, y2 - y1 + 1], "area": (x2 - x1 + 1) * (y2 - y1 + 1)})
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps({
            "images": images, "annotations": notes,
            "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}, {"id": 5, "name": "airplane"}]}))
    return root


def visual_genome(root: Path) -> Path:
    entries, sizes = [], []
    for number in range(1, 12):
        width, height, (x1, y1, x2, y2) = draw(root / f"VG_100K{'_2' * (number % 2)}" / f"{number}.jpg", number)
        sizes.append({"image_id": number, "width": width, "height": height})
        entries.append({"image_id": number, "objects": [{"names": [f"class {number % 4}"], "x": x1, "y": y1,
                                                         "w": x2 - x1 + 1, "h": y2 - y1 + 1}]})
    (root / "objects.json").write_text(json.dumps(entries))
    (root / "image_data.json").write_text(json.dumps(sizes))
    (root / "2500").mkdir()
    (root / "2500" / "objects_vocab.txt").write_text("".join(f"class {number}\n" for number in range(6)))
    for split, numbers in (("train", range(1, 9)), ("val", range(9, 10)), ("test", range(10, 12))):
        (root / f"{split}.txt").write_text("".join(f"VG_100K{'_2' * (n % 2)}/{n}.jpg xml/{n}.xml\n" for n in numbers))
    return root


def imagenet_det(root: Path) -> Path:
    names = {"n02672831": "accordion", "n02691156": "airplane"}
    for split, numbers in (("train", range(8)), ("val", range(8, 11))):
        stems = [f"ILSVRC2014_train_0000/ILSVRC2014_train_{n:08d}" if split == "train" else f"ILSVRC2012_val_{n:08d}"
                 for n in numbers]
        for number, stem in zip(numbers, stems):
            width, height, box = draw(root / "Data" / "DET" / split / f"{stem}.JPEG", number)
            note = root / "Annotations" / "DET" / split / f"{stem}.xml"
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(xml(list(names)[number % 2], width, height, box, 0))
        split_file = root / "ImageSets" / "DET" / f"{split}.txt"
        split_file.parent.mkdir(parents=True, exist_ok=True)
        split_file.write_text("".join(f"{stem} {n}\n" for n, stem in enumerate(stems, start=1)))
    (root / "devkit" / "data").mkdir(parents=True)
    (root / "devkit" / "data" / "map_det.txt").write_text(
        "".join(f"{wnid} {n} {name}\n" for n, (wnid, name) in enumerate(names.items(), start=1)))
    return root
