"""DeepPCB: lays the files of its public repository out as COCO. (Tang et al. 2019, arXiv 1902.06197)

The repository holds PCBData/{trainval,test}.txt, which name an image and its label file on each line; the photograph
with defects is NUMBER_test.jpg beside that name, and a label is `x1 y1 x2 y2 class`, pixels.
"""

import hashlib
import json
import shutil
from pathlib import Path

from PIL import Image

from detector.errors import BadInput
from detector.run.files import write_whole

CLASSES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")  # in the order of their numbers, from 1
LISTS = {"train": "trainval.txt", "test": "test.txt"}
# Of PCBData in the commit that catalog.py names, as a clone of the repository gives it: git rev-parse 08e98c4:PCBData
GIT_TREE = "a4fd38d194f6abd89f903f00f287d7718a5d6fbf"


def convert_deeppcb(folder: Path, git_tree: str = GIT_TREE) -> None:
    """Writes annotations/instances_{train,test}.json and images/ beside an unpacked archive of the repository.

    Args:
        folder: holds the archive's only folder, DeepPCB-COMMIT.
        git_tree: expected git tree id of PCBData.

    Raises:
        BadInput: PCBData is missing or is not the expected tree, that is, a file differs from the commit's.
    """
    source = next(iter(sorted(folder.glob("DeepPCB-*/PCBData"))), folder / "PCBData")
    if not source.is_dir() or git_tree_id(source).hex() != git_tree:
        raise BadInput(f"{source} does not hold the files of DeepPCB's commit (git tree {git_tree}). Remove {folder} "
                       "and the folder downloads beside it, and start again")
    (folder / "images").mkdir(exist_ok=True)
    for split, name in LISTS.items():
        pairs = [line.split() for line in (source / name).read_text().splitlines()]
        photographs = [source / image.replace(".jpg", "_test.jpg") for image, _ in pairs]
        for photograph in photographs:
            shutil.copyfile(photograph, folder / "images" / photograph.name)
        content = coco_content(photographs, [source / labels for _, labels in pairs])
        (folder / "annotations").mkdir(exist_ok=True)
        write_whole(folder / "annotations" / f"instances_{split}.json", json.dumps(content))


def git_tree_id(folder: Path) -> bytes:
    """Returns the id that git gives a folder of plain files: SHA-1 over the names and contents of all files below it.

    (Git, "Git Internals - Git Objects"; all files are expected to have mode 100644.)
    """
    entries = []
    for path in folder.iterdir():
        if path.is_dir():
            entries.append((path.name + "/", b"40000 ", git_tree_id(path)))  # git sorts a folder by name and slash
        else:
            entries.append((path.name, b"100644 ", git_object_id(b"blob", path.read_bytes())))
    return git_object_id(b"tree", b"".join(mode + name.rstrip("/").encode() + b"\0" + identifier
                                           for name, mode, identifier in sorted(entries)))


def git_object_id(kind: bytes, content: bytes) -> bytes:
    return hashlib.sha1(b"%s %d\0" % (kind, len(content)) + content, usedforsecurity=False).digest()


def coco_content(photographs: list[Path], label_files: list[Path]) -> dict[str, list]:
    """Returns the content of a COCO annotation file; images and objects have numbers from 1 in the lists' order."""
    images, annotations = [], []
    for number, (photograph, label_file) in enumerate(zip(photographs, label_files), start=1):
        with Image.open(photograph) as image:
            width, height = image.size
        images.append({"id": number, "file_name": photograph.name, "width": width, "height": height})
        for line in label_file.read_text().splitlines():
            left, top, right, bottom, label = map(int, line.split())
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": label,
                                "bbox": [left, top, right - left, bottom - top],
                                "area": (right - left) * (bottom - top), "iscrowd": 0})
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}
