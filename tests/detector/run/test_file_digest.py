"""A sealed file: every flipped bit, every cut and every appended byte is found, and torch.load reads the file as before."""

import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from detector.run import file_digest
from detector.run.file_digest import COMMENT_BYTES, END_RECORD_BYTES, Damaged, SealedWriter, verify_file


def seal(path: Path, content) -> Path:
    with open(path, "wb") as file:
        writer = SealedWriter(file)
        torch.save(content, writer)
        writer.seal()
    return path


@pytest.fixture
def content() -> dict:
    return {"weights": torch.arange(1500.0), "step": 7, "names": ["a", "b"], "nested": {"moments": torch.ones(3, 5)}}


def is_damaged(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        verify_file(path)
    except Damaged:
        return True
    return False


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]


def test_a_sealed_file_is_that_of_torch_save_with_a_comment(content, tmp_path):
    path = seal(tmp_path / "a.pt", content)
    verify_file(path)
    plain = io.BytesIO()
    torch.save(content, plain)
    assert path.read_bytes()[:-COMMENT_BYTES - 2] == plain.getvalue()[:-2]
    for mmap in (False, True):
        again = torch.load(path, weights_only=True, mmap=mmap)
        assert torch.equal(again["weights"], content["weights"]) and again["names"] == content["names"]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and archive.comment.startswith(file_digest.SEAL)


def test_every_flipped_bit_is_found(content, tmp_path):
    """Of every 50th byte, and of all bytes of the headers, the directory and the digest."""
    data = seal(tmp_path / "a.pt", content).read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [member.header_offset for member in archive.infolist()]
        directory = archive.start_dir
    places = {*range(0, len(data), 50), *range(directory, len(data)), len(data) - 1,
              *(offset + at for offset in members for at in range(64))}
    for at in sorted(places):
        assert is_damaged(tmp_path / "b.pt", flipped(data, at, at % 8)), at
    for at in range(len(data) - COMMENT_BYTES - END_RECORD_BYTES, len(data)):
        assert all(is_damaged(tmp_path / "b.pt", flipped(data, at, bit)) for bit in range(8)), at


def test_every_cut_and_every_appended_byte_is_found(content, tmp_path):
    data = seal(tmp_path / "a.pt", content).read_bytes()
    for length in {*range(0, len(data), 50), *range(len(data) - 200, len(data))}:
        assert is_damaged(tmp_path / "b.pt", data[:length]), length
    for extra in (b"\0", b"a" * 30, data, bytes(22), data[-COMMENT_BYTES:]):
        assert is_damaged(tmp_path / "b.pt", data + extra)
    assert is_damaged(tmp_path / "b.pt", data[:3000] + bytes(512) + data[3512:])  # a sector of zeros


def test_a_file_of_an_older_version_is_verified_by_the_checksums_of_its_parts(content, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(content, path)
    verify_file(path)
    data = path.read_bytes()
    at = data.index(torch.arange(1500.0).numpy().tobytes()) + 3000
    assert is_damaged(path, flipped(data, at, 3)) and is_damaged(path, data[:-1])


def test_without_xxhash_files_are_those_of_torch_save_and_sealed_ones_are_verified_by_their_parts(
        content, tmp_path, monkeypatch):
    data = seal(tmp_path / "sealed.pt", content).read_bytes()
    assert file_digest.fallback_message() == ""
    monkeypatch.setattr(file_digest, "xxhash", None)
    assert "pip install xxhash" in file_digest.fallback_message()
    verify_file(tmp_path / "sealed.pt")
    at = data.index(torch.arange(1500.0).numpy().tobytes()) + 3000
    assert is_damaged(tmp_path / "a.pt", flipped(data, at, 3)) and is_damaged(tmp_path / "a.pt", data[:-1])
    verify_file(seal(tmp_path / "plain.pt", content))
    assert zipfile.ZipFile(tmp_path / "plain.pt").comment == b""


@pytest.mark.parametrize("chunks", [[1], [2], [7, 1, 1, 30], [64], [1000]])
def test_the_digest_does_not_depend_on_how_a_file_is_written(chunks, tmp_path, monkeypatch):
    monkeypatch.setattr(file_digest, "PART", 64)
    monkeypatch.setattr(file_digest, "BLOCK", 10)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("a", os.urandom(300))
    data, written = archive.getvalue(), 0
    with open(tmp_path / "a.pt", "wb") as file:
        writer = SealedWriter(file)
        while written < len(data):
            for count in chunks:
                writer.write(data[written:written + count])
                written += count
        writer.seal()
    verify_file(tmp_path / "a.pt")
    assert (tmp_path / "a.pt").read_bytes()[:-COMMENT_BYTES - 2] == data[:-2]


@pytest.mark.parametrize("data, words", [(b"", "does not start as"), (b"text", "does not start as"), (b"PK\3\4", "do not end")])
def test_other_files_are_named_as_such(data, words, tmp_path):
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(Damaged, match=words):
        verify_file(tmp_path / "a.pt")
