"""`convert`: writes a data set of any layout in another one; images are linked, or copied."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from detector.config.parsing import did_you_mean
from detector.config.schema import Data
from detector.data.classes import relabel
from detector.data.converted_names import file_names, split_names
from detector.data.formats.detect import AUTO, detect_layout
from detector.data.image_io import image_size
from detector.data.layout_writers import WRITERS, Split, Writer, yaml_text
from detector.data.read import describe, read_splits
from detector.errors import BadInput, combine_mistakes, count_of
from detector.structures import CROWD, DIFFICULT, Dataset

THREADS = 8  # that link or copy images; most of the time they wait for the disk
FLAG_NAMES = {CROWD: "crowd regions", DIFFICULT: "difficult objects"}
PLAIN = re.compile(r"(?!(yes|no|on|off|true|false|null|y|n)$)[a-z/][\w./-]*", re.ASCII | re.IGNORECASE)  # in YAML


def convert(source: str, target: str, out: str, source_format: str = AUTO, splits: Sequence[str] = (),
            images: str = "", copy: bool = False) -> str:
    """Writes a data set in another layout; returns a description, with a config and a command to train on it.

    Everything is written into a folder beside `out`, which is renamed when it is complete.

    Args:
        source: a folder, or an annotation file.
        target: a key of WRITERS.
        out: a folder that does not exist yet, or is empty.
        splits: as `data.train` would name them; empty: all.
        images: as `data.images`.
        copy: copy the images; else they are hard links, or symbolic links where the disk is another one.

    Raises:
        BadInput: `out` has files, the source cannot be read, or images are missing or cannot be held by the layout.
    """
    if target not in WRITERS:
        raise BadInput(f"--to {target}{did_you_mean(target, WRITERS)}: one of {', '.join(WRITERS)}")
    if os.path.lexists(out) and (not os.path.isdir(out) or os.listdir(out)):
        raise BadInput(f"{out} exists already: name a folder that does not exist yet, or is empty")
    data, found_splits = detect_layout(Data(root=source, format=source_format, images=images, cache=""), tuple(splits))
    parts = _read(data, found_splits)
    writer, names = WRITERS[target], split_names(found_splits)
    written = [Split(*split) for split in zip(names, parts, file_names(parts, data.root))]
    _check_images(written, writer)

    def fill(folder: str) -> None:
        writer.write(folder, written)
        for split in written:
            _write_images(split, os.path.join(folder, writer.images.format(split.name)), copy)
    _write_whole(out, fill)
    lines = [f"{out}: {target} from {data.format}, {describe(replace(split.dataset, name=split.name))}"
             for split in written]
    lines += [warning for part in parts for warning in part.warnings] + _losses(written, writer, target)
    return "\n".join([*lines, "Train on it: write mine.yaml with", f"  data: {_options(out, target, written, writer)}",
                      "  model: {backbone: resnet50_fpn, weights: coco}", "and run", "  fleet-rcnn train mine.yaml"])


def _read(data: Data, splits: tuple[str, ...]) -> list[Dataset]:
    """Returns the splits with one list of classes: those of the first, then those that only others have."""
    parts = [read_splits(data, (split,)) for split in splits]
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    twice = [name for name in classes if name.strip() != name and name.strip() in classes]
    if twice:
        raise BadInput(f"classes that differ in surrounding spaces alone: {', '.join(map(repr, twice))}. Rename them")
    return [relabel(part, classes, strict=True) for part in parts]


def _check_images(splits: list[Split], writer: Writer) -> None:
    """Raises BadInput for missing images and, where a layout states no sizes, those of another than the annotated."""
    def mistake(image: tuple[str, list[int]]) -> str:
        path, (height, width) = image
        if not os.path.isfile(path):
            return f"no such image file: {path}"
        if writer.has_sizes:
            return ""
        try:
            size = image_size(path)
        except BadInput as error:
            return str(error)
        return "" if size == (height, width) else \
            f"{path} is {size[1]}x{size[0]} pixels as viewers show it, but annotated as {width}x{height}, and this " \
            "layout states no size. Correct the annotations, remove the image's EXIF orientation, or convert --to coco"
    images = {split.dataset.path(index): split.dataset.sizes[index].tolist()
              for split in splits for index in range(len(split.dataset))}
    with ThreadPoolExecutor(THREADS) as pool:
        mistakes = [text for text in pool.map(mistake, images.items()) if text]
    if mistakes:
        raise combine_mistakes("images that cannot be converted", mistakes)


def _write_images(split: Split, folder: str, copy: bool) -> None:
    os.makedirs(folder, exist_ok=True)

    def write(index: int) -> None:
        path = os.path.join(folder, split.files[index])
        if not os.path.lexists(path):  # an image of several splits, in a layout with one folder
            link_or_copy(os.path.realpath(split.dataset.path(index)), path, copy)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, range(len(split.files))))


def link_or_copy(source: str, path: str, copy: bool) -> None:
    """Makes `path` a copy of a file, or else a hard link to it; a symbolic one where that is impossible."""
    if copy:
        shutil.copyfile(source, path)
        return
    try:
        os.link(source, path)
    except OSError:
        os.symlink(source, path)


def _write_whole(out: str, fill: Callable[[str], None]) -> None:
    """Fills a temporary folder and renames it to `out`; removes it if that fails."""
    parent = os.path.dirname(os.path.abspath(out))
    try:
        os.makedirs(parent, exist_ok=True)
        temporary = tempfile.mkdtemp(dir=parent, prefix=f"{os.path.basename(os.path.abspath(out))}.part-")
    except OSError as error:
        raise BadInput(f"cannot write into {parent}: {error.strerror}. Name another folder") from error
    try:
        os.chmod(temporary, 0o755)
        fill(temporary)
        os.rename(temporary, out)  # also replaces an empty folder
    except OSError as error:
        raise BadInput(f"cannot write {out}: {error.strerror} ({error.filename}). Make room, or name another folder") \
            from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _losses(splits: list[Split], writer: Writer, target: str) -> list[str]:
    """Returns a sentence for each flag that the layout cannot hold, and one for classes without a place."""
    lines = []
    for flag, name in FLAG_NAMES.items():
        count = sum(int((split.dataset.flags & flag > 0).sum()) for split in splits)
        if count and not writer.flags & flag:
            become = "difficult objects" if writer.flags & DIFFICULT else "ordinary objects"
            lines.append(f"{count} {name} became {become}: the layout {target} cannot mark them")
    if not writer.has_classes:
        missing = set(splits[0].dataset.classes) - set(_classes_with_objects(splits))
        if missing:
            lines.append(count_of(len(missing), "class has no object", "classes have no object")
                         + f", and no place in the layout {target}: "
                         + ", ".join(sorted(missing)[:10]))
    return lines


def _classes_with_objects(splits: list[Split]) -> list[str]:
    """Returns the classes that have an object in one of these splits, in the order of the data set."""
    labels = {label for split in splits for label in np.unique(split.dataset.labels).tolist()}
    return [name for label, name in enumerate(splits[0].dataset.classes, start=1) if label in labels]


def _options(out: str, target: str, splits: list[Split], writer: Writer) -> str:
    """Returns the section `data` of a config that trains on what was written, in YAML."""
    names = [split.name for split in splits]
    train = next((name for name in ("train", "trainval", *names) if name in names), names[0])
    others = [name for name in names if name != train]
    val = next((name for name in ("val", "valid", "validation", "test", *others) if name in others), "0.2")
    options = {"root": out, "format": target, "train": train}
    learned, used = (_classes_with_objects([split for split in splits if split.name in read])
                     for read in ((train,), (train, val)))
    options = {key: value if PLAIN.fullmatch(value) else yaml_text(value) for key, value in options.items()}
    options["val"] = val if val == "0.2" or PLAIN.fullmatch(val) else yaml_text(val)
    if not writer.has_classes and used != sorted(learned):  # in the order of the source, also those that only val has
        options["classes"] = f"[{', '.join(map(yaml_text, used))}]"
    return "{" + ", ".join(f"{key}: {value}" for key, value in options.items()) + "}"
