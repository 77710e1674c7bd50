"""Finds the images that an annotation file lists: in which folder, and under which part of the names in the file."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass
from urllib.parse import unquote

from detector.data.text_files import cannot_read
from detector.errors import count_of, shorten

DEPTH, MAX_FOLDERS = 2, 500  # of the search for a folder of images, below the folder of the data set
EXAMPLES = 3                 # names in a warning
LIKELY = re.compile(r"image|img|pic|photo|frame|jpe?g|png|data", re.IGNORECASE)  # in the name of a folder of images
DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class ImageFiles:
    """Where the images of an annotation file are."""

    paths: list[str]           # of each image, relative to the data set's root, or absolute
    missing: list[int]         # indices of the images that do not exist; their paths are where they are expected
    missing_text: str          # sentence about them, with the folders that were searched and a remedy; "" without any
    warnings: tuple[str, ...]  # how names or folders differ from what the file says


class Listings:
    """The names in folders below a root, each folder listed once; hidden names included."""

    def __init__(self, root: str):
        self.root = root
        self.names: dict[str, frozenset[str]] = {}
        self.similar: dict[str, dict[str, str]] = {}
        self.errors: dict[str, PermissionError] = {}  # of folders that may not be listed

    def of(self, folder: str) -> frozenset[str]:
        """Returns the names in a folder; none if it does not exist, is no folder, or may not be listed."""
        folder = folder.rstrip("/") or folder
        if folder not in self.names:
            self.names[folder] = frozenset()
            try:
                self.names[folder] = frozenset(os.listdir(os.path.join(self.root, folder) or "."))
            except PermissionError as error:
                self.errors[folder] = error
            except (OSError, ValueError):
                pass
        return self.names[folder]

    def error(self, folder: str) -> PermissionError | None:
        """Returns why a folder cannot be listed, if that is not allowed."""
        return self.errors.get(folder.rstrip("/") or folder)

    def existing(self, folder: str, names: set[str]) -> Set[str]:
        """Returns those of the names that are in a folder, also in one that may be entered but not listed."""
        listed = self.of(folder)
        if self.error(folder):
            return {name for name in names if os.path.exists(os.path.join(self.root, folder, name))}
        return listed.intersection(names)

    def similar_names(self, folder: str) -> dict[str, str]:
        """Returns the names in a folder by `simplify`; "" for several names that are simplified to the same."""
        if folder not in self.similar:
            self.similar[folder] = {}
            for name in self.of(folder):
                key = simplify(name)
                self.similar[folder][key] = "" if key in self.similar[folder] else name
        return self.similar[folder]

    def similar_name(self, folder: str, name: str) -> str:
        """Returns the only name in a folder that differs from `name` in case or in how accents are encoded, or ""."""
        return name if name in self.of(folder) else self.similar_names(folder).get(simplify(name), "")

    def similar_path(self, folder: str, path: str) -> str:
        """Returns `path` as it stands below `folder`, each part by `similar_name`; "" if it does not."""
        parts: list[str] = []
        for part in path.split("/"):
            name = part if part in (".", "..") else self.similar_name(os.path.join(folder, *parts), part)
            if not name:
                return ""
            parts.append(name)
        return "/".join(parts)


def simplify(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def find_images(root: str, names: list[str], folders: list[str], other_folders: Callable[[], list[str]]) -> ImageFiles:
    """Finds the folder in which most images of an annotation file exist, and the path of each image.

    Names count as they stand; else with / for backslashes and without a leading slash or drive; else without their
    first folders, as the names of another machine or a URL need; else as names that differ in case or in how accents
    are encoded. If none of `folders` has an image, the only other folder that has most of them is taken, if its name
    is that of a folder of images; any other one is named in the warning.

    Args:
        root: the data set's folder.
        names: of each image, as in the annotation file.
        folders: that may hold the images, relative to `root` or absolute; the first one is expected to.
        other_folders: returns more folders to look in.

    Raises:
        BadInput: images are missing, and a folder that should hold them may not be read.
    """
    listings, warnings, remedy = Listings(root), [], "data.images to the folder that holds them"
    folders = list(dict.fromkeys(os.path.normpath(folder) if folder not in ("", ".") else "" for folder in folders))
    folder, variant, count = best_folder(listings, names, folders)
    if not count and names:
        for expected in folders:
            if error := listings.error(expected):
                raise cannot_read(os.path.join(root, expected), error, "folder of images")
        others = [other for other in other_folders() if other not in folders]
        matching = folders_with_most(listings, names, others)
        folders += others
        if len(matching) == 1 and LIKELY.search(matching[0][0]):
            folder, variant = matching[0]
            warnings.append(f"the images were found in {os.path.join(root, folder)}; data.images names another folder")
        elif matching:
            options = " or ".join(f"data.images={other}" for other, _ in matching)
            remedy = f"{options}: images with these names are there"
    return match_names(listings, names, variant, folder, folders, warnings, remedy)


def folders_with_most(listings: Listings, names: list[str], folders: list[str]) -> list[tuple[str, list[str]]]:
    """Returns the folder that has most of the images, if any has, with the variant of the names; of equal ones two."""
    matching: list[tuple[str, list[str]]] = []
    count = len(set(names)) // 2 + 1
    while folders and len(matching) < 2:
        folder, variant, images = best_folder(listings, names, folders)
        if images < count:
            break
        matching.append((folder, variant))
        path, count = os.path.realpath(os.path.join(listings.root, folder)), images
        folders = [other for other in folders if os.path.realpath(os.path.join(listings.root, other)) != path]
    return matching


def name_variants(names: list[str]) -> Iterator[list[str]]:
    """Returns the names as they stand, then cleaned, then without their first folders; then the decoded names likewise.

    A variant in which different images would share a name is left out.
    """
    yield names
    variant, decoded = names, [decode_name(name) for name in names]
    for spelled in (names, decoded) if decoded != names else (names,):
        parts = [clean(name) for name in spelled]
        for first in range(max(map(len, parts), default=0)):
            before, variant = variant, ["/".join(of_name[min(first, len(of_name) - 1):]) for of_name in parts]
            if variant != before and len(set(variant)) == len(set(names)):
                yield variant


def decode_name(name: str) -> str:
    """Returns a name without escapes of a URL, such as %20; the path of Label Studio's /data/local-files/?d=PATH."""
    return unquote(name.partition("?d=")[2] or name)


def clean(name: str) -> list[str]:
    """Returns the parts of a path or URL, with / for backslashes and without drive, host or leading slashes."""
    text = name.strip()
    if "://" in text:
        text = unquote(text.partition("://")[2].partition("?")[0].partition("/")[2])
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    while len(parts) > 1 and (parts[0] == ".." or DRIVE.fullmatch(parts[0])):
        parts = parts[1:]
    return parts or [name]


def best_folder(listings: Listings, names: list[str], folders: list[str]) -> tuple[str, list[str], int]:
    """Returns the folder and the variant of the names with most images, and their number; of equal ones the first.

    Names that differ in case or in how accents are encoded count only if no other image exists.
    """
    best = folders[0], names, 0
    for count_images, simplified in ((count_exact, False), (count_similar, True)):
        for variant in name_variants(names):
            groups = group_by_folder([simplify(name) for name in variant] if simplified else variant)
            total = sum(map(len, groups.values()))
            for folder in folders:
                count = count_images(listings, folder, groups)
                if count > best[2]:
                    best = folder, variant, count
                if count == total and count:
                    return best
        if best[2]:
            break
    return best


def group_by_folder(names: list[str]) -> dict[str, set[str]]:
    """Returns the names in each folder of relative paths."""
    groups: dict[str, set[str]] = {}
    for name in names:
        folder, _, base = name.rpartition("/")
        groups.setdefault(folder or ("/" if name.startswith("/") else ""), set()).add(base)
    return groups


def count_exact(listings: Listings, folder: str, groups: dict[str, set[str]]) -> int:
    return sum(len(listings.existing(os.path.join(folder, below), names)) for below, names in groups.items()
               if is_listed(listings, folder, below))


def count_similar(listings: Listings, folder: str, groups: dict[str, set[str]]) -> int:
    count = 0
    for below, names in groups.items():
        path = listings.similar_path(folder, below) if below else ""
        if path or not below:
            count += len(names & listings.similar_names(os.path.join(folder, path)).keys())
    return count


def is_listed(listings: Listings, folder: str, below: str) -> bool:
    """Returns False if the first part of `below` is not in `folder`: its folders then need not be asked for."""
    first = below.partition("/")[0]
    return not first or first in (".", "..") or bool(listings.existing(folder, {first}))


def folders_below(root: str, search_in: list[str]) -> list[str]:
    """Returns the folders below `search_in`, relative to `root`: DEPTH levels, sorted, without hidden ones."""
    level, result = list(dict.fromkeys(search_in)), []
    for _ in range(DEPTH):
        level = [os.path.join(folder, name) for folder in level for name in sub_folders(os.path.join(root, folder))]
        result += level
        if len(result) >= MAX_FOLDERS:
            break
    return result[:MAX_FOLDERS]


def sub_folders(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder or ".") as entries:
            yield from sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return


def match_names(listings: Listings, names: list[str], variant: list[str], folder: str, folders: list[str],
                warnings: list[str], remedy: str) -> ImageFiles:
    """Returns the path of each image in `folder`, with a warning where it is not what the file says.

    Raises:
        BadInput: an image would be in a folder that may not be read.
    """
    present = {below: listings.existing(os.path.join(folder, below), bases)
               for below, bases in group_by_folder(variant).items()}
    paths, missing, renamed = [], [], []
    for index, name in enumerate(variant):
        below, _, base = name.rpartition("/")
        if base not in present[below or ("/" if name.startswith("/") else "")]:
            similar = "" if name.startswith("/") else listings.similar_path(folder, name)
            error = listings.error(os.path.join(folder, below))
            if error and not similar:
                raise cannot_read(os.path.join(listings.root, folder, below), error, "folder of images") from error
            if similar:
                name = similar
            else:
                missing.append(index)
        paths.append(os.path.join(folder, name))
        if name != names[index]:
            renamed.append(index)
    missing_names = set(missing)
    renamed = [index for index in renamed if index not in missing_names]
    if renamed:
        first = "; ".join(f"{names[index]!r} is {paths[index]}" for index in renamed[:EXAMPLES])
        warnings.append(count_of(len(renamed), "image has", "images have")
                        + f" another name than in the annotation file; first: {first}")
    text = f"{describe_missing(listings, names, variant, missing, folder, folders)}. Add them, or set {remedy}" \
        if missing else ""
    return ImageFiles(paths, missing, text, tuple([*warnings, text] if text else warnings))


def describe_missing(listings: Listings, names: list[str], variant: list[str], missing: list[int], folder: str,
                     folders: list[str]) -> str:
    """Returns a sentence about the missing images: how many, the first ones, where they were looked for."""
    def example(index: int) -> str:
        stem = os.path.splitext(os.path.basename(variant[index]))[0]
        below = os.path.join(folder, os.path.dirname(variant[index]))
        near = sorted(name for name in listings.of(below) if simplify(os.path.splitext(name)[0]) == simplify(stem))
        return names[index] + (f" (there is {near[0]})" if near else "")
    examples = ", ".join(example(index) for index in missing[:EXAMPLES])
    where = os.path.join(listings.root, folder)
    if len(missing) == len(names):
        searched = [folder, *(name for name in folders if name != folder and listings.of(name))]
        where = shorten([os.path.normpath(os.path.join(listings.root, name)) for name in searched], 10)
    verb = "do" if len(missing) > 1 else "does"
    return f"{len(missing)} of {len(names)} images {verb} not exist in {where}; first: {examples}"
