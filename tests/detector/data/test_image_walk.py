"""The images below a folder: through links, without hidden files, and with a word about folders that cannot be read."""

import os
from pathlib import Path

import pytest

from detector.data.image_walk import describe_heic, image_files, list_images
from detector.errors import BadInput


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(source, **options) -> list[str]:
    return [os.path.relpath(path, source) for path in list_images(str(source), **options).paths]


def test_hidden_files_and_folders_are_left_out(tmp_path):
    touch(tmp_path, "a.jpg", "._a.jpg", ".ipynb_checkpoints/b.jpg", "c/.d.png", "c/e.png")
    assert names(tmp_path) == ["a.jpg", "c/e.png"]


def test_heic_files_are_named_unless_an_image_is_their_copy(tmp_path):
    touch(tmp_path, "a.HEIC", "a.jpg", "sub/b.heif", "c.heic")
    listing = list_images(str(tmp_path))
    assert [os.path.relpath(path, tmp_path) for path in listing.heic] == ["c.heic", "sub/b.heif"]
    assert describe_heic(listing.heic) == f"2 files are HEIC, which is not read; first: {tmp_path}/c.heic. Save as JPEG"
    with pytest.raises(BadInput, match="no image in .*1 file is HEIC, which is not read; first: .*b.heif. Save as JPEG"):
        list_images(str(tmp_path / "sub"))


def test_a_hidden_folder_that_is_the_source_is_read(tmp_path):
    touch(tmp_path, ".photos/a.jpg")
    assert names(tmp_path / ".photos") == ["a.jpg"]


def test_links_are_followed_and_circles_end(tmp_path):
    touch(tmp_path, "store/b.jpg", "photos/a.jpg", "photos/deep/c.jpg")
    (tmp_path / "photos" / "camera2").symlink_to("../store")
    (tmp_path / "photos" / "deep" / "up").symlink_to("..")
    (tmp_path / "store" / "back").symlink_to(tmp_path / "photos")
    (tmp_path / "photos" / "itself").symlink_to("itself")
    assert names(tmp_path / "photos") == ["a.jpg", "camera2/b.jpg", "deep/c.jpg"]


def test_a_folder_that_is_linked_and_below_the_source_is_listed_once_in_its_own_place(tmp_path):
    touch(tmp_path, "b/x.jpg")
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "c").symlink_to("b")
    assert names(tmp_path) == ["b/x.jpg"]


def test_linked_images_count_also_where_they_link_to_nothing_and_pipes_do_not(tmp_path):
    touch(tmp_path, "store/a.jpg", "photos/x.txt")
    (tmp_path / "photos" / "a.jpg").symlink_to("../store/a.jpg")
    (tmp_path / "photos" / "gone.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "photos" / "pipe.jpg")
    assert names(tmp_path / "photos") == ["a.jpg", "gone.jpg"]


def deny(monkeypatch, folder: Path) -> None:
    """Makes os.scandir fail for a folder as for a user without permission; root may read everything."""
    scandir = os.scandir

    def denied(path):
        if Path(path) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)
    monkeypatch.setattr(os, "scandir", denied)


def test_a_folder_that_may_not_be_read_is_named_and_the_others_are_read(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg", "secret/b.jpg", "z/c.jpg")
    deny(monkeypatch, tmp_path / "secret")
    listing = list_images(str(tmp_path))
    assert [Path(path).name for path in listing.paths] == ["a.jpg", "c.jpg"]
    assert len(listing.unreadable) == 1 and f"cannot read folder {tmp_path}/secret: Permission denied" in listing.unreadable[0]
    with pytest.raises(BadInput, match="secret: Permission denied"):
        image_files(str(tmp_path))


def test_a_source_that_may_not_be_read_is_bad_input_and_not_called_empty(tmp_path, monkeypatch):
    touch(tmp_path, "a.jpg")
    deny(monkeypatch, tmp_path)
    with pytest.raises(BadInput, match="cannot read folder .*: Permission denied"):
        list_images(str(tmp_path))


def test_folders_can_be_left_out(tmp_path):
    touch(tmp_path, "a.jpg", "out/a.jpg", "out/deep/a.jpg", "other/out.txt", "other/b.jpg")
    listing = list_images(str(tmp_path), lambda folder, names: folder.endswith("/out"))
    assert [os.path.relpath(path, tmp_path) for path in listing.paths] == ["a.jpg", "other/b.jpg"]
    assert listing.skipped == [str(tmp_path / "out")]


@pytest.mark.parametrize("source, message", [("none", "no such image or folder"), ("empty", "no image in .* no file name ends in")])
def test_a_missing_or_empty_source_is_bad_input(tmp_path, source, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=message):
        image_files(str(tmp_path / source))


def test_images_of_less_usual_endings_are_listed(tmp_path):
    touch(tmp_path, "a.jfif", "b.JPE", "c.avif", "d.jp2", "e.ppm", "f.pgm", "g.mpo", "h.heic", "i.gz")
    assert names(tmp_path) == ["a.jfif", "b.JPE", "c.avif", "d.jp2", "e.ppm", "f.pgm", "g.mpo"]


def test_names_that_are_not_utf_8_are_listed(tmp_path):
    name = os.fsdecode(b"Stra\xdfe.jpg")
    (tmp_path / name).touch()
    assert names(tmp_path) == [name]
