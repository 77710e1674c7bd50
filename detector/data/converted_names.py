"""The names of splits and images in the layout that `convert` writes, which every layout and file system can hold."""

import itertools
import os
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence

from detector.data.image_walk import USUAL_EXTENSIONS
from detector.data.layout_writers import RESERVED
from detector.data.pillow_decoder import open_with_pillow
from detector.structures import Dataset

ENDINGS = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif",
           "PPM": ".ppm", "JPEG2000": ".jp2", "AVIF": ".avif"}
GENERIC_STEMS = ("_annotations.coco", "annotations", "labels", "instances", "coco", "data")  # say nothing of the split
# In file names: what lists and XML cannot hold, and bytes that are no text.
FORBIDDEN = re.compile(r"[\s\"'\\/:*?<>|\x00-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def split_names(splits: Sequence[str]) -> list[str]:
    """Returns a name for each split that every layout can hold, such as VOC2007_train for VOC2007/train."""
    names: list[str] = []
    for split in splits:
        folder, name = os.path.split(split)
        split = name if folder.lower().endswith((".yaml", ".yml")) else split
        if split.lower().endswith(".json"):
            stem = os.path.splitext(name)[0].removeprefix("instances_")
            split = os.path.basename(folder) if stem in GENERIC_STEMS and folder else stem
        name = FORBIDDEN.sub("_", split).strip("._") or "split"
        name = f"{name}_split" if name.lower() in RESERVED else name
        names.append(_unused(name, names))
    return names


def _unused(name: str, used: Collection[str], key: Callable[[str], str] = str) -> str:
    """Returns the name, or the first of NAME_2, NAME_3, ... whose key is not among those in use."""
    numbered = (f"{name}_{number}" for number in itertools.count(2))
    return next(candidate for candidate in itertools.chain([name], numbered) if key(candidate) not in used)


def file_names(parts: list[Dataset], root: str) -> list[list[str]]:
    """Returns the file name in the new layout of each image of each split.

    An image that several splits annotate alike has one name; one that they annotate otherwise has a name in each.

    Args:
        root: folder of the data set.
    """
    entries = _entries(parts)
    names = _name_entries([entry for part in entries for entry in part], root)
    return [[names[entry] for entry in part] for part in entries]


def _entries(parts: list[Dataset]) -> list[list[tuple[str, int]]]:
    """Returns (path, number) of the images of each split; the number differs where splits annotate one otherwise."""
    variants: dict[str, list[bytes]] = {}
    entries: list[list[tuple[str, int]]] = []
    for part in parts:
        entries.append([])
        for index in range(len(part)):
            rows, path = part.rows(index), part.path(index)
            content = b"".join(getattr(part, name)[rows].tobytes() for name in ("boxes", "labels", "flags"))
            known = variants.setdefault(path, [])
            if content not in known:
                known.append(content)
            entries[-1].append((path, known.index(content)))
    return entries


def _name_entries(entries: list[tuple[str, int]], root: str) -> dict[tuple[str, int], str]:
    """Returns the file name of each entry: stems differ, and every layout can hold them.

    An image keeps its name if it can; where a name would occur again, those of its folders are set before it.
    """
    names: dict[tuple[str, int], str] = {}
    used: set[str] = set()
    for path, variant in dict.fromkeys(entries):
        base, ending = os.path.splitext(os.path.basename(path))
        below = os.path.splitext(os.path.relpath(path, root))[0].replace("../", "")
        stem = _safe(base) if _key(_safe(base)) not in used else _unused(_safe(below), used, _key)
        used.add(_key(stem))
        names[path, variant] = stem + (ending if ending.lower() in USUAL_EXTENSIONS else _ending(path))
    return names


def _safe(stem: str) -> str:
    stem = FORBIDDEN.sub("_", stem)[-200:]
    return f"_{stem[1:]}" if stem.startswith(".") else stem


def _key(stem: str) -> str:
    """Returns what file systems may take for the same name: without case and composition of letters."""
    return unicodedata.normalize("NFC", stem).casefold()


def _ending(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return ENDINGS.get(open_with_pillow(file, path).format or "", ".jpg")
    except Exception:  # the decoders raise errors of many types; convert.py names images that cannot be used
        return ".jpg"
