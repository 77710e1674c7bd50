"""Finds the label file of each image of a YOLO data set."""

import os
from collections.abc import Iterator

from detector.data.formats.image_folders import simplify
from detector.data.image_walk import IMAGE_EXTENSIONS
from detector.data.text_files import list_names

LABELS_OF = {"images": "labels", "JPEGImages": "labels"}  # folder of the images -> folder of their label files


class LabelFiles:
    """Looks up label files by image; each folder is listed once, which on a network file system is what takes time."""

    def __init__(self, root: str, *splits: str) -> None:
        """Takes the names that the folders of a split may have."""
        # Folders of label files without the images' sub-folders -> the folders of images whose own they may be instead.
        self.flat: dict[str, tuple[str, ...]] = {}
        for split in splits:
            own, sides = os.path.join(root, split), [os.path.join(root, name, split) for name in LABELS_OF]
            self.flat[os.path.join(root, "labels", split)] = (*sides, own)
            self.flat[os.path.join(own, "labels")] = (*(os.path.join(own, name) for name in LABELS_OF), own)
        self.flat[os.path.join(root, "labels")] = (*(os.path.join(root, name) for name in LABELS_OF), root)
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
