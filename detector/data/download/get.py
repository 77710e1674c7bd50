"""`data list` and `data get`: shows which data sets are complete, and downloads the rest."""

import contextlib
import fcntl
import os
import shutil
import textwrap
from pathlib import Path
from typing import Callable, Iterator

from detector.data.download.catalog import CATALOG, VOCABULARY_SIZE, CatalogEntry, RemoteFile
from detector.data.download.deeppcb import convert_deeppcb
from detector.data.download.extract import CorruptArchive, is_archive, unpack
from detector.data.download.fetch import download, file_size
from detector.data.formats.visual_genome import write_vocabulary
from detector.errors import BadInput

DOWNLOADS = "downloads"  # below --root: archives during their download, and a receipt for each unpacked one
COLUMNS = 80             # of `data list`; only paths and commands are longer
DISK_MARGIN = 1.05       # small files take whole blocks of the disk; packed JPEGs are as large as unpacked ones


def write_genome_vocabulary(folder: Path) -> None:
    """Writes the class names of the published Visual Genome row."""
    write_vocabulary(folder, VOCABULARY_SIZE, folder / str(VOCABULARY_SIZE) / "objects_vocab.txt")


# What follows the unpacking of a data set: function of the folder that holds its files.
PREPARATIONS: dict[str, Callable[[Path], None]] = {
    "visual_genome": write_genome_vocabulary, "deeppcb": convert_deeppcb}


def list_datasets(root: str) -> str:
    """Returns one paragraph for each data set: its state below `root`, size, licence and configuration."""
    return "\n\n".join(describe_entry(name, entry, Path(root)) for name, entry in CATALOG.items())


def describe_entry(name: str, entry: CatalogEntry, root: Path) -> str:
    """Returns the paragraph of one data set."""
    folder, missing = root / entry.folder, missing_parts(entry, root)
    unpacked = any(receipt(root, remote.name).exists() for remote in entry.files)
    if not missing:
        state = "complete"
    else:
        state = "missing" if len(missing) == len(entry.expected) and not unpacked else "incomplete"
    lines = [f"{name}: {state}", fold(entry.description)]
    if state == "incomplete":
        lines += [f"lacks {part}" for part in missing]
    size = sum(remote.megabytes for remote in entry.files)
    lines += [f"folder: {folder.resolve()}" + (f", {size / 1000:.1f} GB to download" if size else ""),
              fold(f"licence: {entry.licence}"), fold(entry.config_line.replace("ROOT", str(root)))]
    if missing and entry.files:
        lines.append(f"to download it: fleet-rcnn data get {name} --root {root}")
    elif missing:
        lines.append(fold(entry.instructions.replace("FOLDER", str(folder))))
    return "\n  ".join(lines)


def fold(text: str) -> str:
    """Returns a text, for an indent of 2, in lines of at most COLUMNS: also YAML, which stays the same."""
    return "\n".join(textwrap.wrap(text, COLUMNS - 2, subsequent_indent="    ", break_long_words=False,
                                   break_on_hyphens=False))


def missing_parts(entry: CatalogEntry, root: Path) -> list[str]:
    """Returns a phrase for each expected file or folder that is missing or has another number of lines or files."""
    missing = []
    for relative, expected in entry.expected.items():
        path = root / entry.folder / relative
        if not path.exists():
            missing.append(str(path))
        elif expected and (count := count_entries(path)) != expected:
            missing.append(f"{expected - count} of {expected} {'files in' if path.is_dir() else 'lines of'} {path}")
    return missing


def count_entries(path: Path) -> int:
    """Returns the number of files in a folder, or of lines in a text file."""
    if path.is_dir():
        return sum(1 for entry in os.scandir(path) if entry.is_file())
    with open(path, "rb") as file:
        return sum(1 for _ in file)


def download_dataset(name: str, root: str, keep: bool = False) -> None:
    """Downloads, verifies, unpacks and checks one data set below `root`.

    Complete files are left as they are, and an interrupted download is resumed.

    Args:
        keep: keep the archives in ROOT/downloads.

    Raises:
        BadInput: unknown name, a data set that needs an account, too little disk space, a failed download or a damaged
            archive.
    """
    if name not in CATALOG:
        raise BadInput(f"no such data set: {name}. Data sets: {', '.join(CATALOG)}")
    download_entry(name, CATALOG[name], Path(root), keep)


def download_entry(name: str, entry: CatalogEntry, root: Path, keep: bool = False, wait_s: float = 1.0) -> None:
    """As `download_dataset`; `wait_s` is the time before the second try of a failed download."""
    folder = root / entry.folder
    if not missing_parts(entry, root):
        print(f"{name} is complete in {folder}")
        return
    if not entry.files:
        raise BadInput(f"{name} cannot be downloaded without an account. "
                       + entry.instructions.replace("FOLDER", str(folder)))
    pending = [remote for remote in entry.files if not receipt(root, remote.name).exists()]
    check_space(pending, root)
    with exclusive_lock(root):
        for remote in pending:
            archive = root / DOWNLOADS / remote.name
            print(f"{remote.url}" + ("" if remote.checksum else " (no checksum is published for it)"), flush=True)
            if not archive.exists():
                download(remote.url, archive, remote.checksum, wait_s)
            install(archive, folder, keep)
            receipt(root, remote.name).touch()
    if name in PREPARATIONS and missing_parts(entry, root):
        PREPARATIONS[name](folder)
    if missing := missing_parts(entry, root):
        raise BadInput(f"{name} was unpacked, but is incomplete: it lacks {'; '.join(missing)}. Remove "
                       f"{root / DOWNLOADS} and start again")
    print(f"{name} is complete in {folder}\n  {fold(entry.config_line.replace('ROOT', str(root)))}")


def install(archive: Path, folder: Path, keep: bool) -> None:
    """Unpacks an archive, or copies a plain file, into `folder`; a damaged archive is removed and raises BadInput."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_archive(archive.name):
        shutil.copyfile(archive, folder / f"{archive.name}.part")
        os.replace(folder / f"{archive.name}.part", folder / archive.name)
    else:
        try:
            unpack(archive, folder)
        except CorruptArchive as error:
            archive.unlink()
            raise BadInput(f"{error}. The archive has been removed; start again to download a new copy") from error
    if not keep:
        archive.unlink()


def receipt(root: Path, name: str) -> Path:
    """Returns the empty file whose existence means that the archive has been unpacked."""
    return root / DOWNLOADS / f"{name}.unpacked"


def check_space(pending: list[RemoteFile], root: Path) -> None:
    """Raises BadInput if the disk cannot hold all unpacked files and, beside them, the largest archive."""
    sizes = [remote.megabytes * 10 ** 6 for remote in pending]
    downloaded = sum(file_size(root / DOWNLOADS / f"{remote.name}{suffix}")
                     for remote in pending for suffix in ("", ".part"))
    needed = int(DISK_MARGIN * (sum(sizes) + max(sizes, default=0))) - downloaded
    existing = next(folder for folder in [root.resolve(), *root.resolve().parents] if folder.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise BadInput(f"{root}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free. Free some space, or "
                       "select another disk with --root")


@contextlib.contextmanager
def exclusive_lock(root: Path) -> Iterator[None]:
    """Raises BadInput if another process downloads to the same folder, because both would write the same files."""
    (root / DOWNLOADS).mkdir(parents=True, exist_ok=True)
    with open(root / DOWNLOADS / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadInput(f"another `data get` is running in {root / DOWNLOADS}; wait for it, or stop it") from error
        yield
