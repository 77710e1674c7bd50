"""`data list` and `data get`: which data sets there are, what of them is here, and how the rest comes here."""

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import Iterator

from detector.data.download.catalog import SOURCES, VOCABULARY, Source
from detector.data.download.extract import NotTheArchive, is_archive, unpack
from detector.data.download.fetch import download, size_of
from detector.data.formats.visual_genome import write_vocabulary
from detector.errors import BadInput

DOWNLOADS = "downloads"  # below --root: archives on their way, and a receipt for each that is unpacked
SLACK = 1.05             # blocks of small files take more than their bytes; packed photographs are as large as not


def listing(root: str) -> str:
    """One paragraph for each data set: what it is, whether it is here, how large, its licence and its config."""
    return "\n\n".join(paragraph(name, source, Path(root)) for name, source in SOURCES.items())


def paragraph(name: str, source: Source, root: Path) -> str:
    folder, wrong = root / source.folder, problems(source, root)
    done = sum(receipt(root, remote.name).exists() for remote in source.files)
    state = "here" if not wrong else "missing" if len(wrong) == len(source.expected) and not done else "in part"
    lines = [f"{name}: {state}", source.about]
    if state == "in part":
        lines += [f"lacks {problem}" for problem in wrong]
    size = sum(remote.megabytes for remote in source.files)
    lines += [f"goes to {folder.resolve()}" + (f", {size / 1000:.1f} GB to download" if size else ""),
              f"licence: {source.licence}", source.use.replace("ROOT", str(root))]
    if state != "here":
        lines += [f"get it: fleet-rcnn data get {name} --root {root}" if source.files else
                  source.by_hand.replace("FOLDER", str(folder))]
    return "\n  ".join(lines)


def problems(source: Source, root: Path) -> list[str]:
    """What is expected below the folder and is not there, one phrase each."""
    found = []
    for path, count in source.expected.items():
        place = root / source.folder / path
        if not place.exists():
            found.append(str(place))
        elif count and (have := amount(place)) != count:
            found.append(f"{count - have} of {count} {'files in' if place.is_dir() else 'lines of'} {place}")
    return found


def amount(place: Path) -> int:
    """Files of a folder, or lines of a text."""
    if place.is_dir():
        return sum(1 for entry in os.scandir(place) if entry.is_file())
    with open(place, "rb") as file:
        return sum(1 for _ in file)


def get(name: str, root: str, keep: bool = False) -> None:
    """Downloads, verifies, unpacks and checks one data set below `root`. What is there is left as it is; what was cut
    goes on. `keep`: archives stay in downloads/. Raises BadInput where something is not as it should be."""
    if name not in SOURCES:
        raise BadInput(f"no such data set: {name}. There are: {', '.join(SOURCES)}")
    fetch_all(name, SOURCES[name], Path(root), keep)


def fetch_all(name: str, source: Source, root: Path, keep: bool = False, wait_s: float = 1.0) -> None:
    folder = root / source.folder
    if not problems(source, root):
        print(f"{name} is complete in {folder}")
        return
    if not source.files:
        raise BadInput(f"{name} cannot be downloaded without an account. "
                       + source.by_hand.replace("FOLDER", str(folder)))
    missing = [remote for remote in source.files if not receipt(root, remote.name).exists()]
    check_space(missing, root)
    with alone(root):
        for remote in missing:
            archive = root / DOWNLOADS / remote.name
            print(f"{remote.url}" + ("" if remote.checksum else " (no checksum is published for it)"), flush=True)
            if not archive.exists():
                download(remote.url, archive, remote.checksum, wait_s)
            take(archive, folder, keep)
            receipt(root, remote.name).touch()
    if name == "visual_genome" and problems(source, root):
        write_vocabulary(folder, VOCABULARY, folder / str(VOCABULARY) / "objects_vocab.txt")
    if wrong := problems(source, root):
        raise BadInput(f"{name} was unpacked, but is not whole: it lacks {'; '.join(wrong)}. Remove "
                       f"{root / DOWNLOADS} and start again")
    print(f"{name} is complete in {folder}\n  {source.use.replace('ROOT', str(root))}")


def take(archive: Path, folder: Path, keep: bool) -> None:
    """Unpacks the archive, or copies the plain file; a damaged one is removed, so that it is fetched again."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_archive(archive.name):
        shutil.copyfile(archive, folder / f"{archive.name}.part")
        os.replace(folder / f"{archive.name}.part", folder / archive.name)
    else:
        try:
            unpack(archive, folder)
        except NotTheArchive as error:
            archive.unlink()
            raise BadInput(f"{error}. It has been removed; start again to fetch it anew") from error
    if not keep:
        archive.unlink()


def receipt(root: Path, name: str) -> Path:
    """The file that says: this archive is unpacked."""
    return root / DOWNLOADS / f"{name}.unpacked"


def check_space(missing: list, root: Path) -> None:
    """Raises BadInput before anything is fetched, where the disk will be too small: everything unpacked, and beside
    it the largest archive."""
    sizes = [remote.megabytes * 10 ** 6 for remote in missing]
    here = sum(size_of(root / DOWNLOADS / f"{remote.name}{end}") for remote in missing for end in ("", ".part"))
    needed = int(SLACK * (sum(sizes) + max(sizes, default=0))) - here
    place = next(folder for folder in [root.resolve(), *root.resolve().parents] if folder.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise BadInput(f"{root}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free. Make room, or name "
                       "another disk with --root")


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Raises BadInput where another start is already at it: two would write the same file."""
    (root / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    with open(root / DOWNLOADS / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"another `data get` works in {root / DOWNLOADS}; wait for it, or end it") from error
        yield
