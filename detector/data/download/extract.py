"""Extracts archives: only regular files, only below the target folder, and all of them or none."""

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


class CorruptArchive(BadInput):
    """The archive is damaged or has unsafe contents; it must be downloaded again."""


CORRUPT_ERRORS = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def is_archive(name: str) -> bool:
    return name.endswith((".zip", ".tar", ".tgz", ".tar.gz"))


def unpack(archive: Path, folder: Path) -> None:
    """Extracts all files of an archive into `folder`; existing files are replaced.

    Files are extracted into a temporary folder and moved at the end, so that a damaged archive leaves nothing behind.

    Raises:
        CorruptArchive: the archive is damaged, or names a path outside the folder.
        BadInput: the files cannot be written, for example to a full disk.
    """
    temporary = folder / f".{archive.name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with tqdm(desc=f"unpacking {archive.name}", unit="file", disable=None, leave=False) as bar:
            for name, content in members(archive):
                target = temporary / checked_path(name, archive)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, open(target, "wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
                bar.update()
        merge_folder(temporary, folder)
    except CORRUPT_ERRORS as error:
        raise CorruptArchive(f"{archive} is damaged: {str(error) or type(error).__name__}") from error
    except OSError as error:
        raise BadInput(f"cannot unpack {archive} into {folder}: {error.strerror or error}. Free some space and start "
                       "again") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yields name and content of every regular file in the order of the archive. Raises CorruptArchive for a link or
    device."""
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                if not entry.is_dir():
                    yield entry.filename, opened.open(entry)
        return
    if archive.name.endswith(".tar") and not has_end_blocks(archive):
        raise tarfile.ReadError("its end is missing")
    with tarfile.open(archive) as opened:
        for entry in opened:
            if entry.isreg():
                yield entry.name, opened.extractfile(entry)
            elif not entry.isdir():
                raise CorruptArchive(f"{archive} was not unpacked: {entry.name} is no file but a link or a device")
        while opened.fileobj.read(1 << 20):
            pass  # gzip checks its checksum at the end of the stream only


def has_end_blocks(archive: Path) -> bool:
    """Returns whether a tar ends with its two empty blocks; tarfile itself misses a cut between two files."""
    with open(archive, "rb") as file:
        file.seek(max(0, archive.stat().st_size - 1024))
        return file.read() == bytes(1024)


def checked_path(name: str, archive: Path) -> PurePosixPath:
    """Returns the relative path of a member. Raises CorruptArchive if the path leaves the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts or ":" in path.parts[0]:
        raise CorruptArchive(f"{archive} was not unpacked: its member {name!r} lies outside the target folder")
    return path


def merge_folder(source: Path, target: Path) -> None:
    """Moves everything in `source` into `target`; a folder that `target` does not have yet is moved as a whole."""
    if not source.is_dir():
        return  # the archive was empty
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        destination = target / entry.name
        if entry.is_dir() and destination.is_dir():
            merge_folder(Path(entry.path), destination)
        else:
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.replace(entry.path, destination)
