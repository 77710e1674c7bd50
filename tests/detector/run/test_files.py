"""Small files of a run folder: whole or not at all, and read without an error whatever they hold."""

import errno
import json
import math
import os
import time

import pytest

from detector.errors import BadInput
from detector.run.files import (
    append_json_line,
    read_json,
    read_json_lines,
    to_json,
    write_json,
    write_text,
    write_whole,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "results.json"
    write_whole(path, "first")
    assert path.read_text() == "first" and os.listdir(path.parent) == ["results.json"]

    def fail(*args):
        raise OSError("disk full")
    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, step, fail)
            with pytest.raises(OSError):
                write_whole(path, "second")
        assert path.read_text() == "first" and os.listdir(path.parent) == ["results.json"]
    path.chmod(0o604)
    write_whole(path, "third")
    assert path.read_text() == "third" and os.listdir(path.parent) == ["results.json"]
    assert path.stat().st_mode & 0o777 == 0o604, "it keeps its permissions"


def test_a_file_of_several_writers_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "stopped"
    write_text(path, "first")
    write_json(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(path.parent) == ["stopped"]

    sources = []

    def fail(source, target):
        sources.append(source)
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(BadInput, match="cannot write .*stopped: No space left on device. Make room, or set run.folder"):
        write_text(path, "second")
    with pytest.raises(BadInput):
        write_text(path, "third")
    assert sources[0] != sources[1], "each writer has a partial file of its own, also with equal process ids"
    assert json.loads(path.read_text()) == {"a": 1} and os.listdir(path.parent) == ["stopped"]


def test_a_disk_that_allows_no_chmod_takes_files_all_the_same(tmp_path, monkeypatch):
    def refuse(*_arguments, **_options) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")
    monkeypatch.setattr("os.chmod", refuse)
    for text in ("first", "second"):
        write_whole(tmp_path / "status.json", text)
        assert (tmp_path / "status.json").read_text() == text


def test_lines_are_appended_with_their_time(tmp_path):
    path = tmp_path / "slurm" / "jobs.jsonl"
    assert read_json_lines(path) == []
    before = time.time()
    append_json_line(path, job="7")
    append_json_line(path, job="8", nodes="n1")
    first, second = read_json_lines(path)
    assert before <= first.pop("at") <= second.pop("at") <= time.time()
    assert (first, second) == ({"job": "7"}, {"job": "8", "nodes": "n1"})
    with pytest.raises(BadInput, match="cannot write"):
        append_json_line(path / "below a file", job="9")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_json_file_that_is_missing_or_of_another_kind_reads_as_empty(content, tmp_path):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    assert read_json(tmp_path / "x.json") == {}


def test_numbers_that_are_not_finite_are_null(tmp_path):
    value = {"a": [1.5, math.nan, (math.inf, -math.inf)], "b": {"c": math.nan, "d": "NaN"}, "e": True, "f": None}
    expected = {"a": [1.5, None, [None, None]], "b": {"c": None, "d": "NaN"}, "e": True, "f": None}
    write_json(tmp_path / "x.json", value)
    assert json.loads(to_json(value)) == expected == read_json(tmp_path / "x.json")
    append_json_line(tmp_path / "x.jsonl", **value)
    assert read_json_lines(tmp_path / "x.jsonl")[0]["a"] == expected["a"]


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n{"a"\n\0\0\n[7]\n{"b": \xff}\n{"a": 2}\n{"a": 3')
    assert read_json_lines(tmp_path / "x.jsonl") == [{"a": 1}, {"a": 2}]
