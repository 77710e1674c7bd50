"""The labels of all images of a folder: read and written one image at a time, each with a version."""

import hashlib
import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from detector.annotation.layouts import AnnotationFiles, rounded
from detector.data.image_io import image_size, read_image
from detector.errors import BadInput
from detector.run.folder_lock import folder_lock

MAX_OBJECTS = 20_000  # of an image
UNLABELLED, LABELLED, EMPTY = "unlabelled", "labelled", "empty"


@dataclass(frozen=True)
class Labels:
    """The labels of one image. `version` tells other contents apart; `is_labelled` is False until somebody saves."""

    version: str
    is_labelled: bool
    objects: list[dict]  # {"key": digest of its text in the file, "name", "box": [x1, y1, x2, y2]}

    @property
    def state(self) -> str:
        return LABELLED if self.objects else EMPTY if self.is_labelled else UNLABELLED


class Conflict(Exception):
    """The labels of an image have changed since a page read them."""


@dataclass
class LabelSet:
    """Images and their annotation files.

    classes: that pages offer. sizes: annotated height and width of each image; None: that of the file.
    """

    layout: str
    root: str
    split: str
    images: list[str]         # paths
    files: AnnotationFiles
    classes: list[str]
    sizes: Sequence[Sequence[int]] | None = None
    inside: str = ""  # the folder, with a slash at its end, that no image may lie outside of; "": any place
    indices: Sequence[int] = ()  # of the images that pages may ask for
    text_of_key: dict[str, str] = field(default_factory=dict)  # of objects that pages have seen, by key
    serial: int = 0
    changes: dict[int, int] = field(default_factory=dict)  # index of an image -> the serial number of its last change
    states: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        self.indices = self.indices or range(len(self.images))
        self.base = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in self.images])

    def size(self, index: int) -> tuple[int, int]:
        """Returns height and width of an image as it is annotated. Raises BadInput."""
        if self.sizes is None:
            return image_size(self.images[index])
        height, width = self.sizes[index]
        return int(height), int(width)

    def image_path(self, index: int) -> str:
        """Returns the path of an image. Raises BadInput if it now is a link out of `inside`."""
        path = self.images[index]
        if not os.path.realpath(path).startswith(self.inside):
            raise BadInput(f"{self.name(index)} lies outside {self.root}")
        return path

    def read_image(self, index: int) -> Tensor:
        """Returns the pixels of an image, uint8 [3, H, W], as a training reads them. Raises BadInput."""
        size = None if self.sizes is None else self.size(index)
        return read_image(self.image_path(index), size, remedy="Replace it")

    def name(self, index: int) -> str:
        """Returns the name of an image as pages show it, below the folder that all images are in."""
        return os.path.relpath(self.images[index], self.base)

    def load(self, index: int) -> Labels:
        """Returns the labels of an image as they are in its file. Raises BadInput."""
        with self.lock:
            texts = self.files.texts(index)
            objects = []
            for text in texts or []:
                try:
                    name, box = self.files.parse(index, text)
                except (ValueError, KeyError, TypeError) as error:
                    raise BadInput(f"{self.name(index)}: an object cannot be read: {error}") from error
                key = _digest(text.strip())
                self.text_of_key.setdefault(key, text)
                objects.append({"key": key, "name": name, "box": rounded(box)})
            labels = Labels(_digest(str(texts is None), *(entry["key"] for entry in objects)), texts is not None,
                            objects)
            if self.states.get(index) != labels.state:
                self.states[index] = labels.state
                self.touch(index)
            return labels

    def touch(self, index: int) -> None:
        """Gives an image a new serial number, so that pages fetch its state with their next poll."""
        with self.lock:
            self.serial += 1
            self.changes[index] = self.serial

    def save(self, index: int, version: str, is_labelled: bool, objects: list[dict]) -> Labels:
        """Writes the labels of an image and returns them as they are in the file.

        Objects that have the class and box of the text that their key stands for keep this text.

        Raises:
            Conflict: the file has other labels than those of this version. It is not changed.
            BadInput: an object has an unknown class, or a box without area or outside the image. Nothing is written.
            OSError: the file cannot be written. It is as before.
        """
        with self.lock, folder_lock(Path(self.root)):
            old = self.load(index)
            if old.version != version:
                raise Conflict
            if is_labelled == old.is_labelled and objects == old.objects:
                return old
            texts = [self._text(index, entry) for entry in objects] if is_labelled else None
            self.files.write(index, texts)
            self.touch(index)
            return self.load(index)

    def _text(self, index: int, entry: dict) -> str:
        text, name, box = self.text_of_key.get(entry["key"], ""), entry["name"], entry["box"]
        if text:
            known_name, known_box = self.files.parse(index, text)
            if name == known_name and box == rounded(known_box):
                return text
        if name not in self.classes:
            raise BadInput(f"unknown class {name!r}: one of {', '.join(self.classes)}")
        self._check_box(index, box)
        return self.files.edit(index, text, name, box)

    def _check_box(self, index: int, box: list[float]) -> None:
        height, width = self.size(index)
        x1, y1, x2, y2 = box
        if not (all(map(math.isfinite, box)) and 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise BadInput(f"the box {box} has no area, or lies outside the image of {width}x{height} pixels")


def check_objects(objects: object) -> list[dict]:
    """Returns objects from a page with nothing but key, name and box in them. Raises BadInput for other values."""
    if not isinstance(objects, list) or len(objects) > MAX_OBJECTS:
        raise BadInput(f"objects is no list of at most {MAX_OBJECTS} objects")
    checked = []
    for entry in objects:
        if not isinstance(entry, dict) or not isinstance(entry.get("key"), str) or \
                not isinstance(entry.get("name"), str) or not isinstance(entry.get("box"), list) or \
                len(entry["box"]) != 4 or not all(type(value) in (int, float) for value in entry["box"]):
            raise BadInput("an object needs a key, a name and a box of four numbers")
        checked.append({"key": entry["key"], "name": entry["name"], "box": [float(value) for value in entry["box"]]})
    return checked


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:20]
