"""Images and categories of a COCO file: each id once, with the mistakes and oddities of their lists."""

import re
import reprlib
from dataclasses import dataclass

import numpy as np

from detector.data.formats.coco_ids import IdTable, index_ids, int64_ids, text_id
from detector.errors import shorten

NAME_KEYS = ("file_name", "coco_url")  # of an image; LVIS has the second one only
NO_PARENT = "none"                     # the supercategory of a category without one


@dataclass(frozen=True)
class Entries:
    """The images or categories of a file."""

    entries: list[dict]
    ids: IdTable         # id as written -> position in `entries`
    integers: list[int]  # the id of each entry: as in the file, or 1, 2, ... if those are no distinct integers


def list_entries(items: list, kind: str, mistakes: list[str], warnings: list[str]) -> Entries:
    """Returns the images or categories of a file, categories sorted by id, images in the order of the file.

    Args:
        kind: image or category.
        mistakes, warnings: sentences are added to them.
    """
    keys = ("name",) if kind == "category" else (*NAME_KEYS, "height", "width")
    positions: dict[str, int] = {}
    entries, wrong, repeated = [], [], []
    for number, entry in enumerate(items):
        text = text_id(entry.get("id")) if isinstance(entry, dict) else None
        if not isinstance(entry, dict):
            wrong.append(f"{kind} number {number} is not a JSON object")
        elif text is None:
            wrong.append(f"{kind} number {number} has id {reprlib.repr(entry.get('id'))}")
        elif text not in positions:
            positions[text] = len(entries)
            entries.append(entry)
        elif any(entry.get(key) != entries[positions[text]].get(key) for key in keys):
            wrong.append(f"{kind} id {text} occurs twice")
        else:
            repeated.append(text)
    add_mistake(wrong, f"each {kind} needs an id of its own, a number or a text", mistakes)
    if repeated:
        warnings.append(f"{len(repeated)} entries of {kind} ids are repeated and count once: {shorten(repeated)}")
    return number_entries(entries, {"category": "categories"}.get(kind, f"{kind}s"), warnings)


def number_entries(entries: list[dict], kinds: str, warnings: list[str]) -> Entries:
    """Returns the entries with an integer for each id; see `list_entries`. `kinds`: images or categories."""
    ids = [entry["id"] for entry in entries]
    integers = int64_ids(ids)
    if integers is None:
        example = next((value for value in ids if int64_ids([value]) is None), ids[0])
        warnings.append(f"the ids of {kinds} are not distinct integers of 64 bits (such as {reprlib.repr(example)}): "
                        f"they are numbered 1 to {len(ids)} in the order of the file")
        integers = list(range(1, len(ids) + 1))
    elif kinds == "categories":
        order = sorted(range(len(ids)), key=integers.__getitem__)
        entries, integers = [entries[i] for i in order], [integers[i] for i in order]
        ids = [entry["id"] for entry in entries]
    return Entries(entries, index_ids(ids, list(range(len(ids)))), integers)


def image_names(images: list[dict], mistakes: list[str]) -> list[str]:
    """Returns the path or URL of each image, as in the file."""
    names, wrong = [], []
    for image in images:
        names.append(image_name(image))
        if not names[-1]:
            name = next((image[key] for key in NAME_KEYS if image.get(key) not in (None, "")), None)
            problem = "no file_name" if name is None else f"file_name {reprlib.repr(name)}"
            wrong.append(f"image {text_id(image['id'])} has {problem}")
    add_mistake(wrong, "each image needs a file_name, the path of its file", mistakes)
    return names


def image_name(image: dict) -> str:
    """Returns the path or URL of an image, as in the file; "" if it has none that can be the name of a file."""
    name = next((image[key] for key in NAME_KEYS if image.get(key) not in (None, "")), None)
    return name if isinstance(name, str) and "\0" not in name and is_encodable(name) else ""


def is_encodable(name: str) -> bool:
    """Returns whether a name can be a file's: no lone surrogates but those that stand for bytes that are no UTF-8."""
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def category_names(categories: list[dict], mistakes: list[str]) -> list[str]:
    """Returns the name of each category as text."""
    names, wrong = [], []
    for category in categories:
        name = category.get("name")
        text = str(name).strip() if isinstance(name, (str, int, float)) else ""
        if not text or re.search("[\ud800-\udfff]", text):
            problem = "no name" if name in (None, "") else f"name {reprlib.repr(name)}"
            wrong.append(f"category {text_id(category['id'])} has {problem}")
        names.append(text)
    add_mistake(wrong, "each category needs a name, the name of the class", mistakes)
    return names


def unused_categories(categories: list[dict], names: list[str], used: np.ndarray, mistakes: list[str],
                      warnings: list[str]) -> list[int]:
    """Returns the positions of the categories that are no classes.

    These are categories without an object of two kinds: the parent of other categories (Roboflow writes one with id 0),
    and one with the name of another category.

    Args:
        used: bool [C], whether the file has an object of the category.
    """
    above = [str(category.get("supercategory") or NO_PARENT).strip() for category in categories]
    has_children = set(above) - {NO_PARENT}
    parents = {i for i, name in enumerate(names)
               if not used[i] and above[i].lower() == NO_PARENT and name in has_children}
    unused, of_name = set(parents), {}
    for i in range(len(names)):
        if i not in parents:
            of_name.setdefault(names[i], []).append(i)
    for name, positions in of_name.items():
        kept = [i for i in positions if used[i]] or positions[:1]
        unused.update(set(positions) - set(kept))
        if len(kept) > 1:
            ids = " and ".join(str(text_id(categories[i]["id"])) for i in kept)
            mistakes.append(f"category name {name} occurs twice, as id {ids}, each with objects: rename one of them, "
                            "or give their annotations the same category_id")
    for i in sorted(unused):
        reason = "it is only the parent of other categories" if i in parents else "another category has this name"
        warnings.append(f"category {names[i]} (id {text_id(categories[i]['id'])}) has no object and was left out: "
                        f"{reason}")
    return sorted(unused)


def add_mistake(examples: list[str], remedy: str, mistakes: list[str]) -> None:
    """Adds one mistake with its first examples, if there are any."""
    if examples:
        mistakes.append(f"{shorten(examples, separator='; ')}: {remedy}")
