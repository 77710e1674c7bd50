"""Folders of empty files with their FileIndex, for tests."""

from pathlib import Path

from detector.data.formats.file_index import FileIndex
from detector.data.image_walk import IMAGE_EXTENSIONS


def index(root: Path, *names: str, endings: tuple = IMAGE_EXTENSIONS, folder: str = "f") -> FileIndex:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_bytes(b"")
    return FileIndex(str(root), folder, endings)
