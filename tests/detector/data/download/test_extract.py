"""Unpacking archives of every kind; damaged or malicious ones leave nothing behind."""

import io
import tarfile
import zipfile

import pytest

from detector.data.download.extract import CorruptArchive, is_archive, unpack
from detector.errors import BadInput

FILES = {"a.txt": b"a", "VOC/Images/1.jpg": b"\xff\xd8" * 5000, "VOC/Images/2.jpg": b"", "VOC/list.txt": b"1\n2\n"}
KINDS = ["a.zip", "a.tar", "a.tgz", "a.tar.gz"]


def pack(path, files, special=()):
    """Writes an archive of these files; `special`: TarInfo objects without content."""
    if path.name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("VOC/", b"")
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        folder = tarfile.TarInfo("VOC")
        folder.type = tarfile.DIRTYPE
        for entry in (folder, *special):
            archive.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def files_in(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_unpacked_into_what_is_there(tmp_path, kind):
    target = tmp_path / "target"
    (target / "VOC" / "Images").mkdir(parents=True)
    (target / "VOC" / "Images" / "0.jpg").write_bytes(b"mine")
    (target / "VOC" / "list.txt").write_bytes(b"older")
    unpack(pack(tmp_path / kind, FILES), target)
    assert files_in(target) == {**FILES, "VOC/Images/0.jpg": b"mine"}
    assert not list(target.glob(".*")), "no temporary folder is left"


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_without_a_file(tmp_path, kind):
    (tmp_path / "target").mkdir()
    unpack(pack(tmp_path / kind, {}), tmp_path / "target")
    assert files_in(tmp_path / "target") == {}


def test_files_of_an_interrupted_start_are_not_mixed_in(tmp_path):
    left = tmp_path / "target" / ".a.zip.unpacking"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"")
    unpack(pack(tmp_path / "a.zip", FILES), tmp_path / "target")
    assert files_in(tmp_path / "target") == FILES


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["../outside", "VOC/../../outside", "/outside", "..\\outside", "C:\\outside", ".."])
def test_a_path_that_leads_outside_is_refused_and_nothing_is_written(tmp_path, kind, name):
    target = tmp_path / "inner" / "target"
    target.mkdir(parents=True)
    archive = pack(tmp_path / kind, {"VOC/1.jpg": b"1", name: b"evil"})
    with pytest.raises(CorruptArchive, match="outside the target folder"):
        unpack(archive, target)
    assert files_in(tmp_path) == {kind: archive.read_bytes()}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    (tmp_path / "target").mkdir()
    entry = tarfile.TarInfo("VOC/link")
    entry.type, entry.linkname = kind, "../../../etc/passwd"
    with pytest.raises(CorruptArchive, match="link or a device"):
        unpack(pack(tmp_path / "a.tar", FILES, [entry]), tmp_path / "target")
    assert files_in(tmp_path / "target") == {}


@pytest.mark.parametrize("kind, fraction", [(kind, fraction) for kind in KINDS for fraction in (0, 0.1, 0.5, 0.9, 0.999)
                                         if kind != "a.tar" or fraction < 0.9])  # after that, a tar is padding
def test_a_truncated_archive_is_damaged_wherever_it_was_cut(tmp_path, kind, fraction):
    (tmp_path / "target").mkdir()
    archive = pack(tmp_path / kind, FILES)
    content = archive.read_bytes()
    archive.write_bytes(content[:int(len(content) * fraction)])
    with pytest.raises(CorruptArchive, match="is damaged: ."):
        unpack(archive, tmp_path / "target")
    assert files_in(tmp_path / "target") == {}


def test_a_tar_that_was_cut_between_two_files_is_damaged(tmp_path):
    (tmp_path / "target").mkdir()
    archive = pack(tmp_path / "a.tar", FILES)
    archive.write_bytes(archive.read_bytes()[:1536])  # the folder's header, a.txt's header and its only block
    with pytest.raises(CorruptArchive, match="its end is missing"):
        unpack(archive, tmp_path / "target")


@pytest.mark.parametrize("kind", ["a.zip", "a.tgz"])
def test_a_flipped_bit_is_noticed(tmp_path, kind):
    (tmp_path / "target").mkdir()
    archive = pack(tmp_path / kind, {"a.jpg": bytes(range(256)) * 100})
    content = bytearray(archive.read_bytes())
    content[len(content) // 3] ^= 16
    archive.write_bytes(content)
    with pytest.raises(CorruptArchive, match="damaged"):
        unpack(archive, tmp_path / "target")


def test_a_full_disk_is_no_damage(tmp_path, monkeypatch):
    (tmp_path / "target").mkdir()
    archive = pack(tmp_path / "a.zip", FILES)

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(BadInput, match="No space left on device. Free some space") as caught:
        unpack(archive, tmp_path / "target")
    assert not isinstance(caught.value, CorruptArchive) and files_in(tmp_path / "target") == {}


def test_archives_are_recognized_by_name():
    assert all(map(is_archive, KINDS)) and not any(map(is_archive, ["train.txt", "zip", "a.json", "a.tar.bz2"]))
