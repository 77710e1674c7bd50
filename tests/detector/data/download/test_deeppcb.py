"""DeepPCB from a local server, verified, and label files of the real repository as COCO."""

import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from loopback import serve
from PIL import Image

from detector.config.schema import Data
from detector.data.cache import read_cached
from detector.data.download import deeppcb
from detector.data.download import get as get_module
from detector.data.download.catalog import CATALOG, CatalogEntry, RemoteFile
from detector.errors import BadInput
from tests.conftest import shared_data


def photograph(grey: int) -> bytes:
    content = io.BytesIO()
    Image.new("L", (64, 48), grey).save(content, "JPEG")
    return content.getvalue()


FILES = {
    "PCBData/trainval.txt": b"group1/1/0001.jpg group1/1_not/0001.txt\ngroup1/1/0002.jpg group1/1_not/0002.txt\n",
    "PCBData/test.txt": b"group2/2/0003.jpg group2/2_not/0003.txt\n",
    "PCBData/group1/1_not/0001.txt": b"10 20 30 45 1\n40 2 63 47 6\n", "PCBData/group1/1_not/0002.txt": b"",
    "PCBData/group2/2_not/0003.txt": b"1 2 3 4 5",
    **{f"PCBData/group{group}/{group}/000{number}_{kind}.jpg": photograph(grey)
       for grey, (group, number, kind) in enumerate([(1, 1, "test"), (1, 2, "test"), (2, 3, "test"), (1, 1, "temp")])},
    "README.md": b"DeepPCB"}


@pytest.fixture
def archive() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        for name, inside in FILES.items():
            opened.writestr(f"DeepPCB-0123abc/{name}", inside)
    return content.getvalue()


def git_tree_by_git(folder: Path) -> str:
    """Returns the id that git itself gives to PCBData."""
    for name, inside in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(inside)
    git = ["git", "-C", str(folder), "-c", "core.autocrlf=false"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    return subprocess.run([*git, "write-tree", "--prefix=PCBData/"], check=True, capture_output=True, text=True).stdout.strip()


def get(server, root: Path, monkeypatch, tree: str) -> None:
    monkeypatch.setitem(get_module.PREPARATIONS, "deeppcb", lambda folder: deeppcb.convert_deeppcb(folder, tree))
    entry = CatalogEntry("", "", "deeppcb", "", (RemoteFile(f"{server.url}/0123abc.zip", 0),),
                         {**CATALOG["deeppcb"].expected, "images": 3})
    get_module.download_entry("deeppcb", entry, root, wait_s=0)


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_archive_becomes_a_coco_data_set_and_every_byte_is_that_of_the_commit(archive, tmp_path, monkeypatch):
    tree = git_tree_by_git(tmp_path / "repository")
    with serve({"/0123abc.zip": archive}) as server:
        get(server, tmp_path, monkeypatch, tree)
        get(server, tmp_path, monkeypatch, "not checked again")
        assert len(server.requests) == 1
    data = Data(format="coco", cache=str(tmp_path / "cache"))
    train, test = (read_cached(data, str(tmp_path / "deeppcb"), split) for split in ("train", "test"))
    assert list(train.classes) == ["open", "short", "mousebite", "spur", "copper", "pin-hole"]
    assert train.boxes.tolist() == [[10, 20, 30, 45], [40, 2, 63, 47]] and train.labels.tolist() == [1, 6]
    assert train.sizes.tolist() == [[48, 64]] * 2 and test.boxes.tolist() == [[1, 2, 3, 4]] and test.labels.tolist() == [5]
    assert (tmp_path / "deeppcb" / "images" / "0003_test.jpg").read_bytes() == photograph(2)


def test_a_file_that_is_not_the_commits_is_an_error_and_nothing_is_converted(archive, tmp_path, monkeypatch):
    with serve({"/0123abc.zip": archive}) as server:
        with pytest.raises(BadInput, match="does not hold the files of DeepPCB's commit.*start again"):
            get(server, tmp_path, monkeypatch, "0" * 40)
    assert not (tmp_path / "deeppcb" / "annotations").exists() and not (tmp_path / "deeppcb" / "images").exists()


# Lines of PCBData's lists, with the label file that each names, of commit 08e98c4 (MIT licence).
TRAIN_LINE, TRAIN_LABELS = "group20085/20085/20085000.jpg group20085/20085_not/20085000.txt", """\
409 394 435 422 3
275 383 319 417 3
8 163 36 191 4
244 151 270 182 5
338 519 364 543 6
476 460 502 481 4
"""
TEST_LINE, TEST_LABELS = "group20085/20085/20085291.jpg group20085/20085_not/20085291.txt", """\
263 63 299 90 1
201 266 251 294 2
296 350 322 376 3
419 333 448 361 4
341 236 370 267 5
260 165 291 192 6
139 327 166 356 3
324 367 350 410 2
403 53 437 87 1
"""


@pytest.mark.parametrize("split, line, labels", [("train", TRAIN_LINE, TRAIN_LABELS), ("test", TEST_LINE, TEST_LABELS)])
def test_label_files_of_the_repository_give_the_boxes_of_the_coco_files(split, line, labels, tmp_path):
    folder = shared_data("deeppcb")
    expected = json.loads((folder / "annotations" / f"instances_{split}.json").read_text())
    name = Path(line.split()[0]).name.replace(".jpg", "_test.jpg")
    (tmp_path / "labels.txt").write_text(labels)
    content = deeppcb.coco_content([folder / "images" / name], [tmp_path / "labels.txt"])
    assert content["images"] == expected["images"][:1]  # both lines are the first of their list
    assert content["annotations"] == [one for one in expected["annotations"] if one["image_id"] == 1]
    assert content["categories"] == expected["categories"]
