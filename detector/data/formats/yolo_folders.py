"""Finds what belongs to a split of a YOLO data set: its images, and the label file of each."""

import itertools
import os
import re
from collections.abc import Iterator

from detector.data.formats.image_folders import simplify
from detector.data.formats.listing import forget_folders, list_folder
from detector.data.formats.split_names import same_splits
from detector.data.formats.yolo_data_file import DataFile, data_file, find_split
from detector.data.image_io import IMAGE_EXTENSIONS, image_files
from detector.data.text_files import list_names, read_lines
from detector.errors import BadInput, shorten

LABELS_OF = {"images": "labels", "JPEGImages": "labels"}  # folder of the images -> folder of their label files
ALL = "all"         # the split of a data set whose images are not divided


def split_names(root: str) -> list[str]:
    """Returns the splits of a YOLO data set: keys of data.yaml, lists of images, or folders with images and labels.

    Call `forget_folders` before.
    """
    here, keys = list_folder(root), list(data_file(root).splits)
    lists = [name[:-4] for name in here.files.get(".txt", []) if _lists_labelled_images(root, name)]
    folders = [name for name in here.folders if name not in LABELS_OF and _has_labels(os.path.join(root, name))]
    divided = [name for images, labels in LABELS_OF.items() for name in list_folder(os.path.join(root, images)).folders
               if _has_texts(os.path.join(root, labels, name))]
    if keys:  # and folders that data.yaml does not name
        entries = sum(data_file(root).splits.values(), [])
        known = {os.path.basename(entry.rstrip("/")) for entry in entries}
        return [*keys, *(name for name in divided if name not in known)]
    return lists or [*dict.fromkeys([*folders, *divided])] or ([ALL] if _has_labels(root) else [])


def _has_labels(folder: str) -> bool:
    """Returns whether a folder holds label files beside its images, or in a folder labels/ beside images/."""
    here = list_folder(folder)
    texts = {simplify(name[:-4]) for name in here.files.get(".txt", [])}
    beside = bool(texts) and any(simplify(os.path.splitext(name)[0]) in texts for ending in IMAGE_EXTENSIONS
                                 for name in here.files.get(ending, []))
    return beside or (bool(set(here.folders) & set(LABELS_OF)) and _has_texts(os.path.join(folder, "labels")))


def _has_texts(folder: str) -> bool:
    """Returns whether there are text files in a folder, or in one of its folders."""
    return any(".txt" in list_folder(os.path.join(folder, name)).files for name in ("", *list_folder(folder).folders))


def _lists_labelled_images(root: str, name: str) -> bool:
    """Returns whether a text file at the root names images, of which one of the first has a label file."""
    path, labels = os.path.join(root, name), LabelFiles(root, name[:-4])
    if not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(4096).decode("utf-8", "replace").splitlines()[:20]
        if not start or not start[0].strip().lower().endswith(IMAGE_EXTENSIONS):
            return False
        return any(labels.find(image) for image in itertools.islice(_listed(path, root), 20))
    except (OSError, BadInput):
        return False


def image_sources(root: str, split: str) -> list[str]:
    """Returns the folders of images and the lists of images that make up a split.

    Raises:
        BadInput: there is no such split, or a folder that data.yaml names for it is missing.
    """
    data, split = find_split(root, split)
    names = same_splits(split)
    for name in (split, *names) if split in names else (split,):
        if name in data.splits:
            return [_find(root, data, entry, name) for entry in data.splits[name]]
        if os.path.isdir(os.path.join(root, name)) and _lists_labelled_images(root, f"{name}.txt"):
            return [os.path.join(root, f"{name}.txt")]  # the folder may hold the images of other splits, too
        for candidate in (name, f"{name}.txt", os.path.join("images", name), os.path.join("JPEGImages", name)):
            path = os.path.join(root, candidate)
            if os.path.isdir(path) or path.endswith(".txt") and os.path.isfile(path):
                return [path]
    if split == ALL:
        return [next((path for path in (os.path.join(root, name) for name in LABELS_OF) if os.path.isdir(path)), root)]
    forget_folders()
    splits = split_names(root)
    hint = f"Splits: {', '.join(splits)}" if splits else \
        "data.root holds data.yaml with train: and val:, or images/ and labels/"
    raise BadInput(f"no YOLO split {split!r} in {root}: neither a key of data.yaml nor a folder of images. {hint}")


def _find(root: str, data: DataFile, entry: str, split: str) -> str:
    """Returns the path of a folder or list that data.yaml names.

    Such files often keep paths of another machine, and Roboflow's start with ../ although the folders are beside the
    file: the longest end of the path that exists below the file's folder counts then.
    """
    folder, entry = os.path.dirname(data.path), entry.replace("\\", "/")
    base = os.path.expanduser(data.base.replace("\\", "/"))
    candidates = [os.path.join(base, entry)] if os.path.isabs(base) or os.path.isabs(entry) else []
    candidates += [os.path.join(place, base, entry) for place in (folder, root) if not os.path.isabs(base)]
    candidates += [os.path.join(folder, entry)]
    parts = [part for part in re.sub(r"^[A-Za-z]:", "", entry).split("/") if part not in ("", ".", "..")]
    shortest = 2 if len(parts) > 1 and parts[-1] in LABELS_OF else 1
    candidates += [os.path.join(folder, *parts[start:]) for start in range(len(parts) - shortest + 1)]
    for path in candidates:
        if os.path.exists(path):
            return os.path.normpath(path)
    if re.match("[a-z]+://", entry):
        raise BadInput(f"{data.path}: {split}: {entry} is an address, from which nothing is fetched. Fetch and "
                       "unpack it, and write the folder of the images into the file")
    raise BadInput(f"{data.path}: {split}: {entry} is neither there nor below {folder}. Correct the path in the file, "
                   f"or name a folder below data.root as data.{'train' if split == 'train' else 'val'}")


def images_of(root: str, split: str, images: str = "") -> list[str]:
    """Returns the paths of a split's images: those below its folders, sorted, or in the order of its lists.

    Args:
        images: `data.images`, a folder that holds the images in place of the one that the layout has.

    Raises:
        BadInput: there is no such split, or no image in it.
    """
    if images:
        return _images_in(os.path.join(root, images), root, find_split(root, split)[1])
    paths = []
    for source in image_sources(root, split):
        if os.path.isfile(source):
            paths += list(_listed(source, root))
            continue
        folder = os.path.join(source, "images")
        paths += image_files(folder if os.path.isdir(folder) else source)
    if not paths:
        raise BadInput(f"{shorten(image_sources(root, split))} lists no image. Write the path of an image on each line")
    return paths


def _images_in(folder: str, root: str, split: str) -> list[str]:
    """Returns the images of a split below `folder`: in a folder of the split's name, or those with a label file."""
    own = os.path.join(folder, split)
    if os.path.isdir(own):
        return image_files(own)
    labels = next((path for path in (os.path.join(root, "labels", split), os.path.join(root, split, "labels"))
                   if os.path.isdir(path)), "")
    stems = {simplify(os.path.splitext(name)[0]) for name in list_names(labels)} if labels else None
    paths = [path for path in image_files(folder)
             if stems is None or simplify(os.path.splitext(os.path.basename(path))[0]) in stems]
    if not paths:
        raise BadInput(f"no image in {folder} has the name of a label file in {labels}. Set data.images to the folder "
                       "of the images, or data.train or data.val to another split")
    return paths


def _listed(path: str, root: str) -> Iterator[str]:
    """Yields the images that a list names, relative to the list or the root, also by the end of a longer path."""
    folder, missing = os.path.dirname(path), []
    for line in read_lines(path):
        entry = line.strip("\"'").replace("\\", "/")
        parts = [part for part in re.sub(r"^[A-Za-z]:", "", entry).split("/") if part not in ("", ".")]
        candidates = [os.path.join(folder, entry), os.path.join(root, entry)]
        candidates += [os.path.join(place, *parts[start:]) for start in range(len(parts)) for place in (folder, root)]
        image = next((candidate for candidate in candidates if os.path.isfile(candidate)), None)
        if image is None:
            missing.append(entry)
        else:
            yield os.path.normpath(image)
    if missing:
        raise BadInput(f"{path} lists images that are neither there nor below {folder}: {shorten(missing)}. Add them, "
                       "or remove these lines")


class LabelFiles:
    """Looks up label files by image; each folder is listed once, which on a network file system is what takes time."""

    def __init__(self, root: str, split: str) -> None:
        # Folders of label files without the images' sub-folders -> the folders of images whose own they may be instead.
        self.flat = {os.path.join(root, "labels", split): (*(os.path.join(root, name, split) for name in LABELS_OF),
                                                           os.path.join(root, split)),
                     os.path.join(root, split, "labels"): (*(os.path.join(root, split, name) for name in LABELS_OF),
                                                           os.path.join(root, split)),
                     os.path.join(root, "labels"): (*(os.path.join(root, name) for name in LABELS_OF), root)}
        self.places: dict[str, list[str]] = {}
        self.names: dict[str, frozenset[str]] = {}
        self.texts: dict[str, dict[str, list[str]]] = {}
        self.stems: dict[str, dict[str, list[str]]] = {}
        self.owners: dict[tuple[str, str], list[str]] = {}

    def find(self, image: str) -> str:
        """Returns the label file of an image: in labels/ in place of images/, or beside the image; empty: none.

        A file in a folder without the images' sub-folders counts unless an image of that name is in the folder itself.
        Where no name fits exactly, the only one counts that differs in case or in how accents are encoded.
        """
        folder, name = os.path.split(image)
        stem = os.path.splitext(name)[0]
        own = self._places(folder)
        for place in own:  # nearly always
            if f"{stem}.txt" in self._names(place):
                return os.path.join(place, f"{stem}.txt")
        key = simplify(stem)
        flat = [place for place in self.flat if key in self._texts(place)
                and not any(key in self._image_stems(owner) for owner in self._owners(place, folder))]
        for place in flat:
            if f"{stem}.txt" in self._names(place):
                return os.path.join(place, f"{stem}.txt")
        for place in [*own, *flat] if len(self._image_stems(folder).get(key, [])) < 2 else ():
            similar = self._texts(place).get(key, [])
            if len(similar) == 1:
                return os.path.join(place, similar[0])
        return ""

    def without_image(self, images: list[str], used: list[str]) -> list[str]:
        """Returns the text files that no image belongs to, in the folders of these images and of their label files."""
        files = [os.path.join(place, name)
                 for folder in sorted({os.path.dirname(image) for image in images}) for place in self._places(folder)
                 for key, names in self._texts(place).items() if key not in self._image_stems(folder) for name in names]
        return sorted({*files} - {*used})

    def new_path(self, image: str) -> str:
        """Returns where a label file that does not exist yet belongs: where others are, else in the first place."""
        folder, name = os.path.split(image)
        places = [*self._places(folder)]
        places += [place for place in self.flat if not any(map(self._image_stems, self._owners(place, folder)))]
        used = [place for place in places if any(name.endswith(".txt") for name in self._names(place))]
        place = used[0] if used else places[0]
        return os.path.join(place, f"{os.path.splitext(name)[0]}.txt")

    def _places(self, folder: str) -> list[str]:
        """Returns the folders that hold label files of the images in this folder alone."""
        if folder not in self.places:
            self.places[folder] = [*dict.fromkeys(self._own_places(folder))]
        return self.places[folder]

    def _own_places(self, folder: str) -> Iterator[str]:
        parts = folder.split(os.sep)
        for position in range(len(parts) - 1, -1, -1):
            if parts[position] in LABELS_OF:
                yield os.sep.join([*parts[:position], LABELS_OF[parts[position]], *parts[position + 1:]])
                break
        yield folder
        for place, (*_, base) in self.flat.items():
            if os.path.join(folder, "").startswith(os.path.join(base, "")):
                yield os.path.join(place, folder[len(os.path.join(base, "")):]).rstrip(os.sep)

    def _owners(self, place: str, folder: str) -> list[str]:
        """Returns the folders of images that a folder of label files belongs to, other than `folder`."""
        if (place, folder) not in self.owners:
            self.owners[place, folder] = [owner for owner in self.flat[place]
                                          if os.path.realpath(owner) != os.path.realpath(folder)]
        return self.owners[place, folder]

    def _image_stems(self, folder: str) -> dict[str, list[str]]:
        """Returns the stems of the images in a folder, by `simplify`."""
        if folder not in self.stems:
            names = [name for name in self._names(folder) if name.lower().endswith(IMAGE_EXTENSIONS)]
            self.stems[folder] = _by_simple_form({stem: stem for stem, _ in map(os.path.splitext, names)})
        return self.stems[folder]

    def _texts(self, folder: str) -> dict[str, list[str]]:
        """Returns the names of the text files in a folder, by `simplify` of their stems."""
        if folder not in self.texts:
            names = [name for name in self._names(folder) if name.lower().endswith(".txt")]
            self.texts[folder] = _by_simple_form({name: name[:-4] for name in names})
        return self.texts[folder]

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self.names:
            self.names[folder] = frozenset(list_names(folder)) if os.path.isdir(folder) else frozenset()
        return self.names[folder]


def _by_simple_form(stems: dict[str, str]) -> dict[str, list[str]]:
    """Returns names grouped by the simplified form of their stems."""
    groups: dict[str, list[str]] = {}
    for name, stem in stems.items():
        groups.setdefault(simplify(stem), []).append(name)
    return groups
