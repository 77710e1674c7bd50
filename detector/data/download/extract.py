"""Archives onto the disk: nothing outside the folder, nothing but files, nothing half-written under its own name."""

import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Iterator

from tqdm import tqdm

from detector.errors import BadInput


class NotTheArchive(BadInput):
    """Damaged, or not what it should be: to be fetched again."""


BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def is_archive(name: str) -> bool:
    return name.endswith((".zip", ".tar", ".tgz", ".tar.gz"))


def unpack(archive: Path, folder: Path) -> None:
    """Every file of the archive below `folder`; files that are there are replaced.

    They are unpacked beside and then moved, so a damaged archive leaves nothing. Raises NotTheArchive for one that is
    damaged or that names a place outside the folder, BadInput where the disk is full.
    """
    beside = folder / f".{archive.name}.unpacking"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with tqdm(desc=f"unpacking {archive.name}", unit="file", disable=None, leave=False) as bar:
            for name, content in members(archive):
                target = beside / inside(name, archive)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, open(target, "wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                bar.update()
        move(beside, folder)
    except BROKEN as error:
        raise NotTheArchive(f"{archive} is damaged: {str(error) or type(error).__name__}") from error
    except OSError as error:
        raise BadInput(f"cannot unpack {archive} into {folder}: {error.strerror or error}. Make room and start again"
                       ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Name and content of every regular file, in the order of the archive; links and devices are refused."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, opened.open(entry)
        return
    if archive.name.endswith(".tar") and not ends_properly(archive):
        raise tarfile.ReadError("its end is missing")
    with tarfile.open(archive) as opened:
        for entry in opened:
            if entry.isreg():
                yield entry.name, opened.extractfile(entry)
            elif not entry.isdir():
                raise NotTheArchive(f"{archive} holds {entry.name}, which is no file but a link or a device: it is not "
                                    "unpacked")
        while opened.fileobj.read(1 << 20):
            pass  # gzip tells that a file is damaged when it has been read to its end


def ends_properly(archive: Path) -> bool:
    """Does a tar end with its two empty blocks? Without them it was cut, which tarfile only tells inside of a file."""
    with open(archive, "rb") as file:
        file.seek(max(0, archive.stat().st_size - 1024))
        return file.read() == bytes(1024)


def inside(name: str, archive: Path) -> PurePosixPath:
    """The name, if it stays below the folder. Raises BadInput where it does not."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise NotTheArchive(f"{archive} wants to write to {name!r}, outside its folder: it is not unpacked")
    return path


def move(source: Path, target: Path) -> None:
    """Everything below `source` to the same place below `target`; whole folders at once where there are none yet."""
    if not source.is_dir():
        return  # an archive without a file
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        there = target / entry.name
        if entry.is_dir() and there.is_dir():
            move(Path(entry.path), there)
        else:
            there.parent.mkdir(parents=True, exist_ok=True)
            os.replace(entry.path, there)
