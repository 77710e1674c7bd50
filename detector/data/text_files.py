"""Files and folders of a data set: read whole, decoded, listed; one clear error where that is impossible."""

import codecs
import os
import stat
from typing import BinaryIO

from detector.errors import BadInput

# A byte order mark -> the encoding that it announces. UTF-32 comes first: its mark begins like that of UTF-16.
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
                    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def cannot_read(path: str, error: OSError, kind: str) -> BadInput:
    """Returns the error for a file or folder that cannot be read, which tells a missing one from a forbidden one.

    Args:
        kind: of the file, for the message, such as "annotation file".
    """
    if isinstance(error, FileNotFoundError):
        return BadInput(f"no such {kind}: {path}")
    remedy = "Let this user read it (chmod u+r, for a folder u+rx), or name a copy" \
        if isinstance(error, PermissionError) else "Restore it, or name a copy"
    return BadInput(f"cannot read {kind} {path}: {error.strerror or type(error).__name__}. {remedy}")


def check_reachable(path: str, kind: str) -> None:
    """Raises BadInput if nobody can tell what is at a path, as in a folder that may not be entered; not if it is free.

    Args:
        kind: as of `cannot_read`.
    """
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        pass
    except OSError as error:
        raise cannot_read(path, error, kind) from error


def open_binary(path: str) -> BinaryIO:
    """Opens a file for reading; of a named pipe that nobody writes to, reading gives nothing instead of waiting."""
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def read_bytes(path: str, kind: str = "annotation file") -> bytes:
    """Returns the content of a file; of a named pipe that nobody writes to, none.

    Raises:
        BadInput: the file is missing, is a folder, or may not be read.
    """
    try:
        with open_binary(path) as file:
            if stat.S_ISFIFO(os.fstat(file.fileno()).st_mode):
                os.set_blocking(file.fileno(), True)
            return file.read()
    except OSError as error:
        raise cannot_read(path, error, kind) from error
    except ValueError as error:  # a path with a zero byte
        raise BadInput(f"no such {kind}: {path!r}") from error


def printable(path: str) -> str:
    """Returns a path as text that any file and terminal can hold: a byte that is not UTF-8, 0xNN, becomes \\udcNN."""
    return path.encode("utf-8", "backslashreplace").decode("utf-8")


def decode(content: bytes, path: str) -> str:
    """Returns a text file's content as text: in UTF-8, or in the encoding that its byte order mark announces.

    Raises:
        BadInput: the bytes are not text in that encoding.
    """
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not text in {encoding.upper()}: byte {content[error.start]:#04x} at position "
                       f"{error.start}. Save it as UTF-8") from error


def read_text(path: str, kind: str = "annotation file") -> str:
    """Returns the content of a text file, see `read_bytes` and `decode`."""
    return decode(read_bytes(path, kind), path)


def read_lines(path: str, kind: str = "list") -> list[str]:
    """Returns the lines of a text file without surrounding white space; empty lines are left out."""
    return [line.strip() for line in read_text(path, kind).splitlines() if line.strip()]


def list_names(folder: str) -> list[str]:
    """Returns the sorted names in a folder, without hidden ones such as `._a.jpg` and `.ipynb_checkpoints`.

    Raises:
        BadInput: the folder is missing, or may not be read.
    """
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise cannot_read(folder, error, "folder") from error
