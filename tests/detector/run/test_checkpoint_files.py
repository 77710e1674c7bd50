"""The files in checkpoints/: whole or not at all, the newest good one found again, no code in a file is run."""

import errno
import os
import pickle
import shutil
import stat
import struct
from pathlib import Path

import pytest
import torch

from detector.errors import BadInput
from detector.run import checkpoint_files
from detector.run.checkpoint_files import (
    FORMAT,
    best_path,
    checkpoint_path,
    keep_newest,
    last_checkpoint_step,
    mark_best,
    newest_readable,
    read_checkpoint,
    remove_partial_files,
    step_files,
    whole_beside,
    write_checkpoint,
)


def saved(folder: Path, *steps: int) -> list[Path]:
    """Writes a small checkpoint for each step."""
    return [write_checkpoint(folder, {"format": FORMAT, "step": step, "model": {"weight": torch.full((3,), float(step))},
                                      "config": {"optim": {"lr": 0.5}}}) for step in steps]


def newest_names(folder: Path) -> tuple[Path | None, list[str]]:
    path, content, notes = newest_readable(folder)
    assert (content is None) == (path is None) and (path is None or content["step"] == read_checkpoint(path)["step"])
    return path, notes


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_a_checkpoint_is_named_by_its_step_and_read_as_it_was_written(tmp_path):
    path, = saved(tmp_path, 7)
    assert path == checkpoint_path(tmp_path, 7) and path.name == "step-00000007.pt" and files(tmp_path) == {path.name}
    content = read_checkpoint(path)
    assert content["step"] == 7 and content["model"]["weight"].tolist() == [7.0] * 3
    assert content["config"] == {"optim": {"lr": 0.5}}


def test_a_config_of_an_older_version_is_read_with_the_names_of_today(tmp_path):
    path = write_checkpoint(tmp_path, {"format": FORMAT, "step": 1, "config": {"optim": {"rate": 0.5}}})
    assert read_checkpoint(path)["config"] == {"optim": {"lr": 0.5}}


def test_a_checkpoint_gets_its_name_after_what_has_to_come_before(tmp_path):
    seen = []
    write_checkpoint(tmp_path, {"format": FORMAT, "step": 1}, lambda: seen.append(files(tmp_path)))
    assert seen == [{"step-00000001.part"}] and files(tmp_path) == {"step-00000001.pt"}


def full_disk(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def half_a_file(content, file):
    file.write(b"half")
    raise RuntimeError("[enforce fail at inline_container.cc] PytorchStreamWriter failed writing file")


def half_a_file_on_a_full_disk(content, file):
    file.write(b"half")
    full_disk()


@pytest.mark.parametrize("where, failing", [
    ("torch.save", half_a_file), ("torch.save", half_a_file_on_a_full_disk), ("os.fsync", full_disk),
    ("os.replace", full_disk)])
def test_whole_or_not_at_all(where, failing, tmp_path, monkeypatch):
    before, = saved(tmp_path, 1)
    with monkeypatch.context() as patched:
        patched.setattr(where, failing)
        with pytest.raises(BadInput, match="cannot write checkpoint .*step-00000002.pt.*MiB free.*untouched"):
            saved(tmp_path, 2)
    assert files(tmp_path) == {before.name}
    assert newest_names(tmp_path) == (before, [])
    saved(tmp_path, 2)  # there is room again
    assert newest_readable(tmp_path)[0].name == "step-00000002.pt"


def test_a_disk_that_cannot_flush_a_folder_takes_checkpoints(tmp_path, monkeypatch):
    """Some network disks answer fsync of a folder with EINVAL."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        original(descriptor)
    monkeypatch.setattr("os.fsync", fsync)
    assert saved(tmp_path, 1)[0].is_file() and newest_names(tmp_path)[1] == []


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path):
    (tmp_path / "run").write_text("a file where a folder should be")
    with pytest.raises(BadInput, match="cannot write checkpoint"):
        saved(tmp_path / "run", 1)


def test_a_write_that_was_cut_off_leaves_nothing_that_counts(tmp_path, monkeypatch):
    """Ctrl-C twice, or a machine that goes down: the half file has another name."""
    before, = saved(tmp_path, 1)

    def cut_off(content, file):
        file.write(b"half")
        raise KeyboardInterrupt
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", cut_off)
        with pytest.raises(KeyboardInterrupt):
            saved(tmp_path, 2)
    assert newest_names(tmp_path) == (before, [])
    saved(tmp_path, 2)
    assert files(tmp_path) == {"step-00000001.pt", "step-00000002.pt"}


class Evil:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how.startswith("cut"):
        path.write_bytes({"cut to nothing": b"", "cut to half": content[:len(content) // 2],
                          "cut by one byte": content[:-1]}[how])
    elif how == "one bit":
        at = content.index(struct.pack("<f", 2.0))  # in a weight, which torch.load would pass over
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1:])
    elif how == "one byte more":
        path.write_bytes(content + b"\0")
    elif how == "text":
        path.write_text("no checkpoint")
    elif how == "evil":
        path.write_bytes(pickle.dumps(Evil(path.with_name("made")), protocol=2))
    else:
        torch.save({"another format": {"format": 0, "step": 3}, "another dict": {"a": 1}, "a list": [1, 2]}[how], path)


SPOILED = ["one bit", "one byte more", "cut to nothing", "cut to half", "cut by one byte", "text", "evil", "another format", "another dict",
           "a list"]


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_file_is_named_and_the_one_before_is_used(how, tmp_path):
    good, bad = saved(tmp_path, 1, 2)
    spoil(bad, how)
    path, notes = newest_names(tmp_path)
    assert path == good and len(notes) == 1 and str(bad) in notes[0] and "it is skipped" in notes[0]
    with pytest.raises(BadInput, match="step-00000002.pt"):
        read_checkpoint(bad)
    assert not bad.with_name("made").exists()  # a file is data: nothing in it was run


def test_where_none_is_good_or_none_is_there_none_is_found(tmp_path):
    assert newest_names(tmp_path) == (None, []) and step_files(tmp_path) == [] and last_checkpoint_step(tmp_path) == 0
    for path in saved(tmp_path, 1, 2):
        spoil(path, "text")
    path, notes = newest_names(tmp_path)
    assert path is None and ["step-00000002.pt" in notes[0], "step-00000001.pt" in notes[1]] == [True, True]
    with pytest.raises(BadInput, match="no such checkpoint: .*step-00000009.pt"):
        read_checkpoint(tmp_path / "checkpoints" / "step-00000009.pt")


def test_values_that_are_not_finite_are_passed_over_and_named(tmp_path):
    good, = saved(tmp_path, 1)
    write_checkpoint(tmp_path, {"format": FORMAT, "step": 2, "config": {}, "model": {
        "a.weight": torch.ones(3), "b.weight": torch.tensor([1.0, float("nan")])}})
    huge = write_checkpoint(tmp_path, {"format": FORMAT, "step": 3, "config": {}, "moments": {
        "a": {"square": torch.full((3,), 3e38)}, "b": {"square": torch.tensor([float("inf")])}}})
    path, notes = newest_names(tmp_path)
    assert path == good and "step-00000003.pt" in notes[0] and "in moments/b/square:" in notes[0]
    assert "not finite, in model/b.weight:" in notes[1]
    assert read_checkpoint(huge)["step"] == 3  # who asks for it by name gets it


def test_the_best_is_taken_where_no_other_is_whole(tmp_path):
    first, = saved(tmp_path, 1)
    mark_best(tmp_path, first)
    first.unlink()
    for path in saved(tmp_path, 2, 3):
        spoil(path, "cut to half")
    path, notes = newest_names(tmp_path)
    assert path.name == "best.pt" and len(notes) == 2


def test_a_damaged_best_is_kept_aside_and_replaced_by_the_step_file_of_the_same_step(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", full_disk)  # so that best.pt is a copy
    second, third = saved(tmp_path, 2, 3)
    mark_best(tmp_path, second)
    best = tmp_path / "checkpoints" / "best.pt"
    evaluations = [(2, 0.5), (3, 0.4)]
    assert checkpoint_files.restore_best(tmp_path, 3, evaluations) == []
    spoil(best, "one bit")
    note, = checkpoint_files.restore_best(tmp_path, 3, evaluations)
    assert str(best) in note and "best.pt.damaged" in note and second.name in note and read_checkpoint(best)["step"] == 2
    spoil(best, "one bit")
    second.unlink()
    note, = checkpoint_files.restore_best(tmp_path, 3, evaluations)
    assert "next evaluation" in note and not best.exists() and best.with_name("best.pt.damaged").exists()
    assert third.exists()


def test_what_is_whole_beside_a_damaged_one_is_known(tmp_path):
    first, second, third = saved(tmp_path, 1, 2, 3)
    shutil.copyfile(first, best_path(tmp_path))
    spoil(second, "cut by one byte")
    assert whole_beside(second) == [third, first, best_path(tmp_path)]
    assert whole_beside(best_path(tmp_path)) == [third, first] and whole_beside(tmp_path / "other.pt") == []


def test_the_newest_stay_and_other_files_are_left_alone(tmp_path):
    saved(tmp_path, 1, 2, 10, 300)
    strangers = {"best.pt", "step-1.pt.bak", "step-x.pt", "notes.txt", "step-00000400.part"}
    for name in strangers:
        (tmp_path / "checkpoints" / name).touch()
    keep_newest(tmp_path, 2)
    assert files(tmp_path) == {"step-00000300.pt", "step-00000010.pt"} | strangers and last_checkpoint_step(tmp_path) == 300
    keep_newest(tmp_path, 5)
    assert len(step_files(tmp_path)) == 2
    remove_partial_files(tmp_path)
    assert strangers - files(tmp_path) == {"step-00000400.part"}


def test_a_spoiled_file_never_pushes_out_the_last_good_one(tmp_path):
    """A run that resumed before a spoiled file saves at lower steps than that file has."""
    spoiled, = saved(tmp_path, 100)
    spoil(spoiled, "cut to half")
    good, = saved(tmp_path, 60)
    keep_newest(tmp_path, 1)
    assert newest_readable(tmp_path)[0] == good


@pytest.mark.parametrize("links", [True, False])
def test_best_is_a_file_of_its_own(links, tmp_path, monkeypatch):
    if not links:  # as on some network disks
        monkeypatch.setattr(os, "link", full_disk)
    first, second = saved(tmp_path, 1, 2)
    mark_best(tmp_path, first)
    keep_newest(tmp_path, 1)
    assert files(tmp_path) == {"best.pt", second.name}
    best = tmp_path / "checkpoints" / "best.pt"
    assert read_checkpoint(best)["step"] == 1
    mark_best(tmp_path, second)
    assert read_checkpoint(best)["step"] == 2 and files(tmp_path) == {"best.pt", second.name}


def test_a_run_of_which_only_best_is_left_resumes_from_it(tmp_path):
    first, second = saved(tmp_path, 1, 2)
    mark_best(tmp_path, first)
    for path in (first, second):
        path.unlink()
    assert newest_names(tmp_path) == (best_path(tmp_path), [])
    checkpoint_files.restore_best(tmp_path, 1, [(1, 0.5)])
    assert files(tmp_path) == {"best.pt"}


def test_a_best_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    first, second = saved(tmp_path, 1, 2)
    mark_best(tmp_path, first)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError):
        mark_best(tmp_path, second)
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 1


@pytest.mark.parametrize("kept, resumed, evaluations, left", [
    ([3, 6], 6, [(3, 0.5), (6, 0.4)], 9),            # best.pt is of step 3 or so, whose file is gone: it stays
    ([3, 6], 6, [(3, 0.5), (6, 0.4), (9, 0.6)], 3),  # step 9 is given up, and 3 is the best again
    ([6], 6, [(3, 0.5), (6, 0.4), (9, 0.6)], None),  # but gone
    ([3], 3, [(9, 0.6)], None), ([3], 3, [], 9)])
def test_best_is_never_of_a_branch_that_was_given_up(kept, resumed, evaluations, left, tmp_path):
    later, = saved(tmp_path, 9)
    mark_best(tmp_path, later)
    later.unlink()
    saved(tmp_path, *kept)
    checkpoint_files.restore_best(tmp_path, resumed, evaluations)
    best = tmp_path / "checkpoints" / "best.pt"
    assert (read_checkpoint(best)["step"] if best.exists() else None) == left


def test_a_folder_with_the_name_of_a_checkpoint_is_passed_over(tmp_path):
    saved(tmp_path, 1, 2)
    checkpoint_path(tmp_path, 8).mkdir()
    keep_newest(tmp_path, 1)
    assert step_files(tmp_path) == [checkpoint_path(tmp_path, 2)] and last_checkpoint_step(tmp_path) == 2
