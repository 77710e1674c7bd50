"""The names in a folder, listed once for all layouts that look at it."""

import functools
import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Listing:
    """Names in a folder, without hidden ones; none where it is missing or cannot be listed."""

    files: dict[str, list[str]] = field(default_factory=dict)  # by ending in lower case, such as ".txt"; sorted
    folders: tuple[str, ...] = ()                              # sorted

    def names(self) -> list[str]:
        """Returns all names, sorted."""
        return sorted([*self.folders, *(name for names in self.files.values() for name in names)])


def list_folder(folder: str) -> Listing:
    """Returns what lies in a folder. Call `forget_folders` before a search, because folders change."""
    return _list_folder(os.path.normpath(folder))


@functools.lru_cache(maxsize=1000)
def _list_folder(folder: str) -> Listing:
    files: dict[str, list[str]] = {}
    folders = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                if _is_folder(entry):
                    folders.append(entry.name)
                else:
                    _, dot, ending = entry.name.rpartition(".")
                    files.setdefault(f"{dot}{ending}".lower() if dot else "", []).append(entry.name)
    except OSError:
        return Listing()
    for names in files.values():
        names.sort()
    return Listing(files, tuple(sorted(folders)))


def _is_folder(entry: os.DirEntry) -> bool:
    """Returns whether an entry is a folder or a link to one; a link that cannot be followed is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


forget_folders = _list_folder.cache_clear
