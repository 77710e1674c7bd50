"""Background checkpoints hold the state at the time of the call, and appear complete, after metrics.jsonl, one at a time."""

import threading
import time

import pytest
import torch

from detector.errors import BadInput
from detector.run import checkpoint_files
from detector.training.async_checkpoint import AsyncCheckpoint, copy_to_host


def content(step: int, value: float = 1.0) -> dict:
    return {"format": checkpoint_files.FORMAT, "step": step, "model": {"w": torch.full((3,), value)}, "classes": ["cat"],
            "config": {}}


def saver_of(tmp_path, keep: int = 2, flush_metrics=lambda: None) -> AsyncCheckpoint:
    return AsyncCheckpoint(tmp_path, keep, flush_metrics, 0)


class Gate:
    """Stands in for a slow disk: the write waits until it is opened."""

    def __init__(self):
        self.opened, self.reached = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(20)


def test_the_state_at_the_time_of_the_call_is_written(tmp_path):
    disk = Gate()
    saver, now = saver_of(tmp_path, flush_metrics=disk), content(1, 1.0)
    assert saver.start(now)
    now["model"]["w"].fill_(9)
    disk.opened.set()
    saver.wait()
    path, = checkpoint_files.step_files(tmp_path)
    assert path.name == "step-00000001.pt" and checkpoint_files.read_checkpoint(path)["model"]["w"].tolist() == [1, 1, 1]
    assert saver.saved_in_s > 0 and saver.step == 1 and not saver.is_writing()


def test_the_call_does_not_wait_for_the_disk_and_only_one_write_runs(tmp_path):
    disk = Gate()
    saver = saver_of(tmp_path, flush_metrics=disk)
    started_at = time.monotonic()
    assert saver.start(content(1)) and time.monotonic() - started_at < 5
    assert disk.reached.wait(20) and saver.is_writing()
    assert not saver.start(content(2)) and saver.step == 1
    assert checkpoint_files.step_files(tmp_path) == []  # not before metrics.jsonl is flushed
    disk.opened.set()
    saver.wait()
    assert saver.start(content(3))
    saver.wait()
    assert [path.name for path in checkpoint_files.step_files(tmp_path)] == ["step-00000003.pt", "step-00000001.pt"]


def test_only_the_newest_checkpoints_stay(tmp_path):
    saver = saver_of(tmp_path, keep=1)
    for step in (1, 2, 3):
        saver.start(content(step, step))
        saver.wait()
    path, = checkpoint_files.step_files(tmp_path)
    assert checkpoint_files.read_checkpoint(path)["model"]["w"].tolist() == [3, 3, 3]


@pytest.mark.parametrize("raised_by", ["wait", "start"])
def test_a_background_error_is_raised_once_and_the_next_write_works(raised_by, tmp_path, monkeypatch):
    saver = saver_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        saver.start(content(1))
        saver.thread.join()
    assert isinstance(saver.error, BadInput) and saver.saved_in_s is None
    with pytest.raises(BadInput, match="cannot write checkpoint .*step-00000001.pt.*No space left"):
        saver.wait() if raised_by == "wait" else saver.start(content(2))
    assert saver.error is None and list((tmp_path / "checkpoints").iterdir()) == []
    saver.start(content(3))
    saver.wait()
    assert len(checkpoint_files.step_files(tmp_path)) == 1


def test_a_step_whose_write_failed_is_not_taken_for_saved(tmp_path, monkeypatch):
    saver = saver_of(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        saver.start(content(1))
        saver.drop_error()
    assert saver.error is None and saver.step != 1, "the step can be saved once more"
    saver.start(content(1))
    saver.drop_error()
    assert saver.step == 1 and len(checkpoint_files.step_files(tmp_path)) == 1


def test_without_flushed_metrics_there_is_no_checkpoint(tmp_path):
    def full() -> None:
        raise OSError(28, "No space left on device")
    saver = saver_of(tmp_path, flush_metrics=full)
    saver.start(content(1))
    with pytest.raises(BadInput, match="No space left"):
        saver.wait()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_waiting_without_a_write_returns_at_once(tmp_path):
    saver = saver_of(tmp_path)
    saver.wait()
    saver.close()
    assert list(tmp_path.iterdir()) == []


def test_partial_files_of_a_killed_write_are_removed(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("step-00000005.part", "best.part", "step-00000004.pt", "best.pt"):
        (folder / name).touch()
    checkpoint_files.remove_partial_files(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"step-00000004.pt", "best.pt"}
    checkpoint_files.remove_partial_files(tmp_path / "nowhere")


def test_host_copies_have_equal_values_and_layout_and_are_reused():
    image = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    value = {"a": [1, "x"], "b": {"w": image, "n": torch.tensor(3), "none": torch.zeros(0, 4)}, "ema": None}
    first = copy_to_host(value)
    assert first["a"] == [1, "x"] and first["ema"] is None
    for name, tensor in value["b"].items():
        copy = first["b"][name]
        assert torch.equal(copy, tensor) and copy.stride() == tensor.stride()
        assert copy.data_ptr() != tensor.data_ptr() or not tensor.numel()
    image += 1
    second = copy_to_host(value, first)
    assert second["b"]["w"].data_ptr() == first["b"]["w"].data_ptr() and torch.equal(second["b"]["w"], image)
    larger = copy_to_host({"b": {"w": torch.zeros(5)}}, second)
    assert larger["b"]["w"].shape == (5,)
