"""Writes the annotations of a COCO file in place: unchanged annotations, and all else in the file, keep their bytes."""

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from detector.annotation.layouts import Box, rounded
from detector.annotation.texts import JsonArray, json_like, read_exactly, split_array
from detector.data.formats import coco
from detector.data.formats.coco_ids import IdTable, index_ids, integer_id
from detector.data.formats.coordinates import box_around_rotated
from detector.data.formats.segmentation_boxes import segmentation_box
from detector.data.text_files import read_bytes
from detector.errors import BadInput
from detector.run.files import replace_file

SEEN = "annotated"  # of an image without objects: somebody has looked at it
MARK = re.compile(rf'\s*,\s*"{SEEN}"\s*:\s*(?:true|false)|(?<=^\{{)\s*"{SEEN}"\s*:\s*(?:true|false)\s*,')


@dataclass
class CocoFiles:
    """One JSON file for all images. It is read again when another program has changed it."""

    paths: list[str]  # the one file
    grid: float = 0.1
    array: JsonArray = field(init=False)    # the annotations
    owners: list[int | None] = field(init=False)  # index of the image of each annotation
    image_ids: list = field(default_factory=list)  # as the file lists them; pages know images by their place in it
    largest_id: int = 0                     # of all annotations that there were, so that undo brings back no taken id
    stamp: tuple = ()                       # of the file that was read
    new_names: dict[str, int] = field(default_factory=dict)  # classes that the file does not have yet -> id

    @property
    def path(self) -> str:
        return self.paths[0]

    def read(self) -> None:
        """Reads the file if it has changed. Raises BadInput."""
        stamp = self._stamp()
        if stamp == self.stamp:
            return
        mistakes: list[str] = []
        content = coco.parse_file(self.path, mistakes)
        if mistakes:
            raise BadInput(f"{self.path}: {mistakes[0]}")
        image_ids = [entry["id"] for entry in content.images.entries]
        if self.image_ids and image_ids != self.image_ids:
            raise BadInput(f"another program has changed the list of images in {self.path}: start annotate again")
        data = read_bytes(self.path)
        self.encoding = "utf-8" if json.detect_encoding(data) == "utf-8-sig" else json.detect_encoding(data)
        self._take(read_exactly(self.path, data, self.encoding), content.images.ids)
        self.image_ids = image_ids
        self.seen = [entry.get(SEEN) is True for entry in content.images.entries]
        categories = content.categories
        self.category_ids = [entry["id"] for entry in categories.entries]
        self.category_names = [str(entry["name"]).strip() for entry in categories.entries]
        self.categories = categories.ids
        used = content.used_categories().tolist()
        by_use = sorted(zip(used, self.category_names, self.category_ids), key=lambda row: row[0])
        self.id_of = {name: identifier for _, name, identifier in by_use}
        self.stamp, self.new_names = stamp, {}

    def _stamp(self) -> tuple:
        status = os.stat(self.path)
        return status.st_ino, status.st_size, status.st_mtime_ns

    def _take(self, text: str, ids: IdTable) -> None:
        self.ids, self.array = ids, split_array(text, "annotations")
        entries = [json.loads(element) for element in self.array.elements]
        self.owners = [ids.find(entry.get("image_id")) for entry in entries]
        self._index()
        self.largest_id = max(self.largest_id, largest_integer(entry.get("id") for entry in entries))

    def _index(self) -> None:
        self.places: dict[int | None, list[int]] = {}  # of the annotations of each image
        for place, owner in enumerate(self.owners):
            self.places.setdefault(owner, []).append(place)

    def texts(self, index: int) -> list[str] | None:
        self.read()
        texts = [self.array.elements[place] for place in self.places.get(index, [])]
        return texts if texts or self.seen[index] else None

    def parse(self, index: int, text: str) -> tuple[str, Box]:
        entry = json.loads(text)
        x, y, width, height = written_box(entry)
        attributes = entry.get("attributes")
        rotation = attributes.get("rotation") if isinstance(attributes, dict) else None
        box = box_around_rotated([x, y, x + width, y + height], rotation)
        position = self.categories.find(entry["category_id"])
        if position is None:
            raise ValueError(f"the file lists no category {entry['category_id']!r}")
        return self.category_names[position], box

    def edit(self, index: int, text: str, name: str, box: Box) -> str:
        bbox = [*box[:2], round(box[2] - box[0], 2), round(box[3] - box[1], 2)]
        if name not in self.id_of:
            self.id_of[name] = self.new_names[name] = largest_integer(self.category_ids) + 1
            self.category_ids.append(self.id_of[name])
            self.category_names.append(name)
            self.categories = index_ids(self.category_ids, [*range(len(self.category_ids))])
        if not text:
            self.largest_id += 1
            new = {"id": self.largest_id, "image_id": self.image_ids[index], "category_id": self.id_of[name],
                   "bbox": bbox, "area": round(bbox[2] * bbox[3], 2), "iscrowd": 0}
            return json_like(new, next(iter(self.array.elements), ""))
        entry, (old_name, old) = json.loads(text), self.parse(index, text)
        if name != old_name:
            entry["category_id"] = self.id_of[name]
        if list(box) != rounded(old):
            area = math.prod(written_box(entry)[2:])
            was_mask_area = math.isfinite(sum(old)) and abs(float(entry.get("area") or 0) - area) >= 1
            entry["bbox"] = bbox
            if isinstance(entry.get("attributes"), dict):
                entry["attributes"].pop("rotation", None)  # of CVAT: the new box is drawn as it is
            if "area" in entry and not was_mask_area:
                entry["area"] = round(bbox[2] * bbox[3], 2)
        return json_like(entry, text)

    def write(self, index: int, texts: list[str] | None) -> None:
        try:
            self._replace(index, texts or [])
            text = self.array.join()
            if self.new_names or self.seen[index] != (texts == []):
                text = self._with_mark(self._with_categories(text), index, texts == [])
                self._take(text, self.ids)
            replace_file(Path(self.path), text.encode(self.encoding))
            self.seen[index], self.new_names = texts == [], {}
            self.stamp = self._stamp()
        except BaseException:
            self.stamp = ()  # the file is as before, and is read again
            raise

    def _replace(self, index: int, texts: list[str]) -> None:
        """Replaces the annotations of an image; those that stay keep their places in the file."""
        places = self.places.get(index, [])
        for place, text in zip(places, texts):
            self.array.elements[place] = text
        for place in reversed(places[len(texts):]):
            self.array.remove(place)
            del self.owners[place]
        behind = places[-1] + 1 if places else len(self.owners)
        for text in reversed(texts[len(places):]):
            self.array.insert(behind, text)
            self.owners.insert(behind, index)
        self._index()

    def _with_categories(self, text: str) -> str:
        array = split_array(text, "categories")
        for name, number in self.new_names.items():
            array.insert(len(array.elements), json_like({"id": number, "name": name}, array.elements[0]
                                                        if array.elements else ""))
        return array.join()

    def _with_mark(self, text: str, index: int, is_seen: bool) -> str:
        array = split_array(text, "images")
        for position, element in enumerate(array.elements):
            if self.ids.find(json.loads(element).get("id")) == index:
                element = MARK.sub("", element)
                end = len(element[:-1].rstrip())
                array.elements[position] = f'{element[:end]}, "{SEEN}": true{element[end:]}' if is_seen else element
        return array.join()


def written_box(entry: dict) -> list[float]:
    """Returns x, y, width, height of an annotation as they stand in the file, or of its segmentation."""
    return [float(value) for value in entry.get("bbox") or segmentation_box(entry.get("segmentation")) or ()]


def largest_integer(ids: Iterable) -> int:
    """Returns the largest integer that one of these ids stands for, as a number or as a text; 0 if all are smaller."""
    return max([0, *(integer_id(value) or 0 for value in ids)])
