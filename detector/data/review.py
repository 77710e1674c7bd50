"""Facts to know before training: nothing to learn, missing images, classes without objects, images in both splits.

Pure functions of data sets and options, except `missing_images` and `equal_images`, which look at files.
"""

import contextlib
import os
from dataclasses import dataclass

import numpy as np

from detector.config.schema import Config, Data
from detector.data.formats.image_folders import simplify
from detector.data.image_io import read_image
from detector.data.read import drop_ignored
from detector.data.split import group_equal_files
from detector.data.text_files import list_names
from detector.errors import BadInput, shorten
from detector.structures import CROWD, DIFFICULT, Dataset

MAX_NAMES = 10  # of classes or images in one sentence
KINDS = {"crowd regions": (CROWD, "data.train_on_crowd"), "difficult objects": (DIFFICULT, "data.train_on_difficult")}


@dataclass(frozen=True)
class Review:
    """The result of a review of a run's data: reasons not to start, and facts to know. One sentence each."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]


def ignored_objects(dataset: Dataset, config: Data) -> dict[str, int]:
    """Returns how many objects of each of KINDS no loss is computed on; kinds without any are left out."""
    counts = {kind: int(((dataset.flags & flag) > 0).sum()) for kind, (flag, option) in KINDS.items()
              if not getattr(config, option.removeprefix("data."))}
    return {kind: count for kind, count in counts.items() if count}


def describe_ignored(dataset: Dataset, config: Data) -> str:
    """Returns ", of which N crowd regions are not trained on", or "" where all objects are."""
    ignored = ignored_objects(dataset, config)
    return ", of which " + " and ".join(f"{count} {kind}" for kind, count in ignored.items()) + " are not trained on" \
        if ignored else ""


def nothing_to_learn(dataset: Dataset, config: Data) -> list[str]:
    """Returns a sentence with cause and remedy where no object is left to train on; [] where there is one.

    Args:
        dataset: the training images with all of their objects, labelled by the classes of the model.
    """
    if len(drop_ignored(dataset, config).boxes):
        return []
    subject = f"nothing to learn: {dataset.name} below {dataset.root} has {len(dataset)} images"
    ignored = ignored_objects(dataset, config)
    if ignored:
        settings = " and ".join(f"{KINDS[kind][1]}=true" for kind in ignored)
        counts = " and ".join(f"{count} {kind}" for kind, count in ignored.items())
        return [f"{subject}, and all of their {len(dataset.boxes)} objects are left out of training: {counts}. Set "
                f"{settings}, or fix these flags in the annotations"]
    reasons = [warning for warning in dataset.warnings if "left out" in warning]
    if reasons:
        return [f"{subject} and no object: {'; '.join(reasons[:MAX_NAMES])}. Fix the annotations, or data.classes"]
    return [f"{subject} and no object. Add annotations, or name the annotated split or file in data.train"]


def nothing_readable(dataset: Dataset) -> list[str]:
    """Returns a sentence where no image can be read, and grey ones would be trained on alone; [] where one can."""
    error = ""
    for index in range(len(dataset)):
        try:
            read_image(dataset.path(index))
            return []
        except BadInput as caught:
            error = error or str(caught)
    return [f"nothing to learn: none of the {len(dataset)} images of {dataset.name} can be read; first: {error}"]


def missing_images(dataset: Dataset) -> list[str]:
    """Returns the paths of images that do not exist. Each folder is listed once; a link counts wherever it points."""
    paths = [dataset.path(index) for index in range(len(dataset))]
    names: dict[str, set[str]] = {}
    for folder in {os.path.dirname(path) for path in paths}:
        with contextlib.suppress(BadInput):  # it cannot be listed: each of its images is looked for
            names[folder] = set(list_names(folder))
    return [path for path in paths
            if os.path.basename(path) not in names.get(os.path.dirname(path), ()) and is_missing(path)]


def is_missing(path: str) -> bool:
    """Returns whether there is no such file; False where its folder may not be searched."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        pass
    return False


def review_classes(train: Dataset, val: Dataset | None, config: Config) -> list[str]:
    """Returns a sentence for each way in which the classes of both data sets differ, with the names.

    Both are labelled by the same classes. Objects with flags do not count in val, because AP leaves them out.
    """
    learned = objects_of_class(drop_ignored(train, config.data))
    counts = np.zeros_like(learned) if val is None else objects_of_class(val, val.flags == 0)
    notes = similar_classes(train.classes)
    if val is not None and not counts.any():
        notes.append(f"{val.name}: no object that counts in an evaluation; AP cannot be computed")
    elif val is not None:
        counts_as_0 = config.evaluate.metric == "visual_genome"
        effect = "such classes count as 0" if counts_as_0 else "AP is the mean of the others"
        notes += note_absent(val, (counts == 0) & (learned > 0), "no object", effect)
        notes += note_absent(train, (learned == 0) & (counts > 0), "no object to train on", f"{val.name} has some")
    return notes + note_absent(train, (learned == 0) & (counts == 0), "no object to train on",
                               "the detector cannot learn such classes")


def similar_classes(names: tuple[str, ...]) -> list[str]:
    """Returns a sentence for each group of class names that differ only in case or in how accents are encoded."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(simplify(name), []).append(name)
    return [f"the classes {', '.join(map(repr, group))} differ only in case or in how accents are encoded, and are "
            "learned as different ones. If they are one class, rename them in the annotations"
            for group in groups.values() if len(group) > 1]


def objects_of_class(dataset: Dataset, mask: np.ndarray | slice = slice(None)) -> np.ndarray:
    """Returns the number of objects of each class, int64 [C]; `mask` (bool [N]): of these objects only."""
    return np.bincount(dataset.labels[mask], minlength=len(dataset.classes) + 1)[1:]


def note_absent(dataset: Dataset, mask: np.ndarray, text: str, effect: str) -> list[str]:
    """Returns a sentence with the names of the classes where `mask` (bool [C]) is true; [] without any."""
    names = [name for name, is_absent in zip(dataset.classes, mask) if is_absent]
    noun = "class" if len(names) == 1 else "classes"
    return [f"{dataset.name}: {text} of {noun} {shorten(names, MAX_NAMES)}; {effect}"] if names else []


def shared_paths(train: Dataset, val: Dataset) -> list[str]:
    """Returns the paths of the images that both data sets name."""
    absolute = {os.path.abspath(val.path(index)) for index in range(len(val))}
    return [path for path in map(train.path, range(len(train))) if os.path.abspath(path) in absolute]


def note_shared(train: Dataset, val: Dataset, shared: list[str], how: str) -> list[str]:
    """Returns a sentence about images of val that are trained on; [] without any.

    Args:
        how: "by path" or "by content".
    """
    if not shared:
        return []
    return [f"{len(shared)} of {len(val)} images of {val.name} are also in {train.name} ({how}): "
            f"{shorten(shared, MAX_NAMES)}. AP is then higher than on new images; remove them from one of the two"]


def equal_images(train: Dataset, val: Dataset) -> list[str]:
    """Returns "path in val = path in train" for each image of val whose file equals another file of train.

    Images that both data sets name by path, and files that cannot be read, are left out. Reads the sizes of all files,
    and the content of those of equal size.
    """
    trained, validated = ([os.path.abspath(data.path(index)) for index in range(len(data))] for data in (train, val))
    both = set(trained) & set(validated)
    names = [path for path in dict.fromkeys([*trained, *validated]) if path not in both]
    trained_paths, pairs = set(trained), []
    for group in group_equal_files(names, ""):
        twin = next((names[index] for index in group if names[index] in trained_paths), None)
        pairs += [f"{names[index]} = {twin}" for index in group if twin and names[index] not in trained_paths]
    return pairs
