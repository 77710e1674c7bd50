"""Files that belong together by their names: the image of an annotation file, and the files that a list names."""

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from detector.data.image_walk import IMAGE_EXTENSIONS, USUAL_EXTENSIONS
from detector.data.text_files import cannot_read, list_names, read_lines
from detector.errors import BadInput

ANNOTATION_EXTENSIONS = (".xml", ".json")
QUOTED = re.compile(r"([\"'])(.+)\1(?:\s+([-+]?\d+))?")
# PaddleDetection's lists: `JPEGImages/a.jpg Annotations/a.xml`
IMAGE_AND_ANNOTATION = re.compile(rf".+(?:{'|'.join(map(re.escape, IMAGE_EXTENSIONS))})\s+(\S.*\.(?:xml|json))", re.I)


@dataclass(frozen=True)
class FileIndex:
    """Finds files below a folder by stem, whatever the case of their ending and the Unicode form of their name.

    A stem is a path below the folder without ending, such as `camera1/a`. Hidden files are left out;
    links are followed. Each sub-folder is listed once, when it is first needed.
    """

    root: str                 # of the data set
    folder: str               # below `root`, or absolute
    endings: tuple[str, ...]  # of the files, in lower case
    listings: dict[str, tuple[str, dict]] = field(default_factory=dict)  # sub-folder -> its path, {stem: names}
    below: dict[str, list[str]] = field(default_factory=dict)  # name without ending -> paths, of `image_in_subfolder`

    def find(self, stem: str) -> list[str]:
        """Returns the paths of the files with this stem, below the root or absolute, sorted; [] if there is none.

        Raises:
            BadInput: the folder exists and may not be read.
        """
        parent, base = os.path.split(stem)
        folder, listing = self._list(parent)
        names = listing.get(normal_name(base), [])
        exact = [name for name in names if os.path.splitext(name)[0] == base]
        return [os.path.join(folder, name) for name in exact or names]

    def find_file(self, name: str) -> str:
        """Returns the path of a file by its name, which may differ in the case of the ending; "" if there is none."""
        stem, ending = os.path.splitext(name)
        paths = [path for path in self.find(stem) if os.path.splitext(path)[1].lower() == ending.lower()]
        return next((path for path in paths if path.endswith(ending)), paths[0] if paths else "")

    def stems(self, recursive: bool = True) -> list[str]:
        """Returns the stems of all files, sorted, with those of sub-folders if `recursive` is set."""
        stems, pending, visited = [], [""], set()
        while pending:
            parent = pending.pop()
            folder, listing = self._list(parent)
            path = os.path.join(self.root, folder)
            if os.path.realpath(path) in visited:  # a link to a folder above
                continue
            visited.add(os.path.realpath(path))
            stems += {os.path.join(parent, os.path.splitext(name)[0]) for names in listing.values() for name in names}
            if recursive and os.path.isdir(path):
                pending += [os.path.join(parent, name) for name in list_names(path)
                            if not name.lower().endswith((*self.endings, *IMAGE_EXTENSIONS))
                            and os.path.isdir(os.path.join(path, name))]
        return sorted(stems)

    def _list(self, parent: str) -> tuple[str, dict[str, list[str]]]:
        if parent not in self.listings:
            forms = dict.fromkeys([parent, *(unicodedata.normalize(form, parent) for form in ("NFC", "NFD"))])
            folders = [os.path.join(self.folder, form) if form else self.folder for form in forms]
            folder = next((path for path in folders if is_there(os.path.join(self.root, path))), folders[0])
            path, listing = os.path.join(self.root, folder), {}
            for name in list_names(path) if os.path.isdir(path) else []:
                if name.lower().endswith(self.endings):
                    listing.setdefault(normal_name(os.path.splitext(name)[0]), []).append(name)
            self.listings[parent] = folder, listing
        return self.listings[parent]


def normal_name(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def is_there(path: str) -> bool:
    """Returns whether a file or folder exists. Raises BadInput if a folder above it may not be searched."""
    try:
        os.stat(path)
    except PermissionError as error:
        folder = os.path.dirname(path)
        while not os.path.exists(folder) and folder != os.path.dirname(folder):
            folder = os.path.dirname(folder)
        raise cannot_read(folder or os.curdir, error, "folder") from error
    except (OSError, ValueError):
        return False
    return True


def find_image(images: FileIndex, stem: str, file_name: str = "") -> str:
    """Returns the path of the image that belongs to an annotation file; "" if there is none.

    Of several images with the stem of the annotation file, the one that the annotation itself names is taken, else the
    one that ends in .jpg, because a PNG beside a JPEG often is its mask, else the one of USUAL_EXTENSIONS.

    Args:
        stem: of the annotation file.
        file_name: of the image, as the annotation has it; may be a path of another machine, or wrong.

    Raises:
        BadInput: there are several images, and none of these rules applies.
    """
    return choose_image(images.find(stem), stem, file_name)


def choose_image(candidates: list[str], stem: str, file_name: str) -> str:
    if len(candidates) < 2:
        return candidates[0] if candidates else ""
    named = normal_name(os.path.basename(file_name.replace("\\", "/")))
    jpegs = [path for path in candidates if path.lower().endswith(".jpg")]
    choices = [[path for path in candidates if normal_name(os.path.basename(path)) == named],
               [path for path in candidates if normal_name(os.path.basename(path)).lower() == named.lower()],
               jpegs, [path for path in jpegs if path.endswith(".jpg")],
               [path for path in candidates if path.lower().endswith(USUAL_EXTENSIONS)]]
    for choice in choices:
        if len(choice) == 1:
            return choice[0]
    names = {os.path.basename(path) for path in candidates}
    remedy = ", or write the file name of the right one into the annotation file" if len(names) > 1 else ""
    raise BadInput(f"several images are called {stem}: {', '.join(candidates)}. Move all but one elsewhere{remedy}")


def find_named_image(images: FileIndex, annotations: FileIndex, file_name: str) -> str:
    """Returns the path of an image that only its annotation names, not by the stem; "" if there is none.

    An image that has an annotation file of its own is not taken: then the name is out of date.
    """
    name = file_name.strip().replace("\\", "/")
    for candidate in dict.fromkeys([name.removeprefix("./"), os.path.basename(name)]):
        path = images.find_file(candidate) if candidate and not os.path.isabs(candidate) else ""
        if path and not annotations.find(os.path.splitext(candidate)[0]):
            return path
    return ""


def read_listed_stems(path: str, annotations: FileIndex, folders: Iterable[str], numbered: bool = False) -> list[str]:
    """Returns the stems of annotation files that a list names, in its order; a name that is repeated stays so.

    A line is a stem or a file name, plain or in quotes, with or without ending and folder, also as a full path. Lists
    of a single class, such as aeroplane_train.txt, have 1, 0 or -1 after each name; images with -1 do not show the
    class and are left out. Other numbers are ignored.

    Args:
        folders: names of folders that a path may contain before the stem, such as JPEGImages.
        numbered: every line ends with a number, also where the annotation file is missing.

    Raises:
        BadInput: the list cannot be read, or names no image.
    """
    stems, left_out = [], 0
    is_class_list = numbered or "_" in os.path.basename(path)
    for line in read_lines(path):
        if annotations.find(line):  # nearly always
            stems.append(line)
            continue
        entry, number = _split_line(line, annotations, folders, is_class_list)
        if number == "-1":
            left_out += 1
        else:
            stem = _stem_of(entry, annotations, folders)
            without_comma = _stem_of(entry.rstrip(",; "), annotations, folders)
            stems.append(stem if annotations.find(stem) or not annotations.find(without_comma) else without_comma)
    if left_out and not stems:
        raise BadInput(f"{path} marks all of its {left_out} images with -1, which means that they do not show the "
                       "class: no image is left. Remove the numbers, or name another split")
    if not stems:
        raise BadInput(f"{path} lists no image. Write the name of an image on each line, or name another split")
    return stems


def _split_line(line: str, annotations: FileIndex, folders: Iterable[str], is_class_list: bool) -> tuple[str, str]:
    """Returns the name in a line of a list and the number behind it, "" if there is none."""
    quoted = QUOTED.fullmatch(line)
    if quoted:
        return quoted[2].replace('\\"', '"'), quoted[3] or ""
    pair = IMAGE_AND_ANNOTATION.fullmatch(line)
    if pair:
        return pair[1], ""
    numbered = re.fullmatch(r"(.+?)\s+([-+]?\d+)", line)
    if not numbered:
        return line, ""
    name, number = numbered.groups()
    has_file = any(annotations.find(stem) for stem in _stems_of(line, folders))  # in other spellings
    is_numbered = is_class_list or any(annotations.find(stem) for stem in _stems_of(name, folders))
    return (name, number) if is_numbered and not has_file else (line, "")


def _stem_of(entry: str, annotations: FileIndex, folders: Iterable[str]) -> str:
    """Returns the stem that a list means by an entry: of an existing annotation file, if there is one."""
    stems = list(_stems_of(entry, folders))
    return next((stem for stem in stems if annotations.find(stem)), stems[-1] if stems else entry)


def _stems_of(entry: str, folders: Iterable[str]) -> Iterator[str]:
    """Yields what an entry of a list may mean, the most literal first; the last one is the usual meaning."""
    path = re.sub(r"[\\/]+", "/", entry).removeprefix("./")
    tails = [path]
    parts = path.split("/")
    lower_folders = {name.lower() for name in folders}
    tails += ["/".join(parts[index + 1:]) for index, part in enumerate(parts[:-1]) if part.lower() in lower_folders]
    if os.path.isabs(path) or re.match(r"[A-Za-z]:/", path):
        tails.append(parts[-1])
    for tail in filter(None, dict.fromkeys(tails)):
        yield tail
        if tail.lower().endswith((*IMAGE_EXTENSIONS, *ANNOTATION_EXTENSIONS)):
            yield os.path.splitext(tail)[0]
