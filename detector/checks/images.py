"""Checks of image files: every one is read as in training; each kind of problem names all of them, with one remedy."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from detector.checks.problems import CheckReport, Problem, join_examples, parse_problem
from detector.checks.progress import show_progress
from detector.config.schema import Data
from detector.data.image_io import exif_orientation, is_blank, read_image
from detector.data.review import missing_images
from detector.errors import BadInput
from detector.structures import Dataset

MISSING, FORBIDDEN, UNUSABLE = "are missing", "may not be read", "cannot be used"
REMEDIES = {MISSING: "Add them, name their folder in data.images, or remove their annotations",
            FORBIDDEN: "Let this user read them (chmod u+r, for folders u+rx)",
            UNUSABLE: "Fix or remove them, or set data.unreadable_images=grey"}
TURNED, BLANK = "turned by EXIF", "blank"
NOTES = {TURNED: "are turned by their EXIF orientation in a way that their size does not show. Their boxes are read as "
                 "drawn on the turned image, as viewers show it; look at some of them with `fleet-rcnn view`",
         BLANK: "are blank: all of their pixels are equal or nearly black; look at some of them with `fleet-rcnn view`"}


@dataclass(frozen=True)
class ImageResult:
    """The result of one image: a problem, a key of REMEDIES, and its cause; or else keys of NOTES."""

    problem: str = ""
    cause: str = ""
    notes: tuple[str, ...] = ()


def check_images(dataset: Dataset, config: Data, report: CheckReport) -> None:
    """Reads every image as training does, and reports those that cannot be used or are worth a look."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases the GIL
        results = list(show_progress(pool.map(lambda index: check_image(dataset, index), range(len(dataset))),
                                     len(dataset), dataset.name, "image"))
    report_unusable(dataset, results, config, report)
    facts = report.facts[dataset.name]
    for note, text in NOTES.items():
        paths = [dataset.path(index) for index, result in enumerate(results) if note in result.notes]
        facts[f"images {note}"] = paths
        if paths:
            report.notes.append(f"{agree(len(paths), dataset.name, text)}: {join_examples(paths)}")


def check_image_files(dataset: Dataset, config: Data, report: CheckReport) -> None:
    """Looks whether every image exists, and reads none."""
    missing = set(missing_images(dataset))
    results = [ImageResult(MISSING, path) if path in missing else ImageResult()
               for path in map(dataset.path, range(len(dataset)))]
    report_unusable(dataset, results, config, report)


def report_unusable(dataset: Dataset, results: list[ImageResult], config: Data, report: CheckReport) -> None:
    """Reports all images of one kind of problem as one, with all paths as facts.

    With data.unreadable_images=grey they are notes, as training goes on, unless no image can be used.
    """
    is_refused = config.unreadable_images == "refuse" or all(result.problem for result in results)
    facts = report.facts.setdefault(dataset.name, {})
    for problem, remedy in REMEDIES.items():
        causes = [result.cause for result in results if result.problem == problem]
        facts[f"images that {problem}"] = causes
        if causes and is_refused:
            report.problems.append(
                Problem(agree(len(causes), dataset.name, problem), join_examples(causes), remedy))
        elif causes:
            report.notes.append(agree(len(causes), dataset.name, f"{problem} and count as grey, without objects")
                                + f" (data.unreadable_images=grey): {join_examples(causes)}")


def agree(count: int, name: str, text: str) -> str:
    """Returns a number of images of a data set with what is said of them in the plural: "1 image of train is blank"."""
    if count != 1:
        return f"{count} images of {name} {text}"
    for plural, singular in (("are ", "is "), (" and count as ", " and counts as "), ("Their boxes", "Its boxes"),
                             ("their ", "its "), ("some of them", "it")):
        text = text.replace(plural, singular)
    return f"1 image of {name} {text}"


def check_image(dataset: Dataset, index: int) -> ImageResult:
    """Reads one image as training does."""
    path, (height, width) = dataset.path(index), map(int, dataset.sizes[index])
    try:
        image = read_image(path, (height, width))
    except Exception as error:  # of any kind: the other images are still to be checked
        return unreadable(path, error)
    checks: dict[str, Callable[[], bool]] = {
        TURNED: lambda: is_ambiguous(exif_orientation(path), height == width), BLANK: lambda: is_blank(image)}
    return ImageResult(notes=tuple(name for name, holds in checks.items() if holds()))


def unreadable(path: str, error: Exception) -> ImageResult:
    """Returns why an image cannot be used: the file is missing, may not be read, or is no such image."""
    try:
        with open(path, "rb"):
            pass
    except (FileNotFoundError, NotADirectoryError):
        return ImageResult(MISSING, path)
    except PermissionError as denied:
        return ImageResult(FORBIDDEN, f"cannot read {path}: {denied.strerror}")
    except (OSError, ValueError):  # told by `error`
        pass
    if isinstance(error, BadInput):
        return ImageResult(UNUSABLE, parse_problem(str(error), "").cause)
    return ImageResult(UNUSABLE, f"{path}: {type(error).__name__}: {error}")


def is_ambiguous(orientation: int, is_square: bool) -> bool:
    """Returns whether EXIF mirrors or turns an image without swapping its width and height.

    These are orientations 2 to 4, and 5 to 8 of a square image. In all other cases the annotated width and height
    show whether the annotations were made before or after turning.
    """
    return orientation in (2, 3, 4) or orientation in (5, 6, 7, 8) and is_square
