"""Checks of disk space, folders, cores and GPUs: each shortage is a problem with numbers and a remedy."""

import os
from collections import namedtuple
from dataclasses import replace

import pytest

from detector.checks import machine
from detector.checks.problems import CheckReport
from detector.config.schema import Config, Model, Run

CONFIG = Config(run=Run(num_workers=2, device="cpu"))
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def free(monkeypatch):
    """Returns a function that sets the free bytes which every disk reports."""
    def pretend(count: int) -> None:
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(count, 0, count))
    return pretend


@pytest.mark.parametrize("keep, enough", [(1, True), (2, True), (3, False)])
def test_the_disk_must_hold_all_checkpoints_the_best_and_the_one_being_written(keep, enough, free, tmp_path):
    free(4 * 2**30)
    report = CheckReport()
    machine.check_disk(tmp_path / "not" / "there", 2**30, keep, report)
    assert (not report.problems) is enough
    assert report.facts["disk"] == {"free_gib": 4, "needed_gib": keep + 2, "checkpoint_gib": 1}
    if not enough:
        assert "4.0 GiB are free, 5.0 are needed: 3 + 2 checkpoints of 1.00 GiB" in str(report.problems[0])


@pytest.mark.parametrize("workers, mebibytes, enough", [(0, 0, True), (2, 64, False), (2, 200, True)])
def test_shared_memory_must_hold_the_batches_of_all_loader_workers(workers, mebibytes, enough, free, tmp_path):
    free(mebibytes * 2**20)
    report = CheckReport()  # 2 processes x 2 workers x 4 batches x 2 images x 6 MiB = 192 MiB
    machine.check_shared_memory(replace(CONFIG, run=Run(num_workers=workers)), 6 * 2**20, 2, report, str(tmp_path))
    assert (not report.problems) is enough
    if not enough:
        assert "64 MiB are free, the loaders may need 192" in str(report.problems[0])


@pytest.mark.parametrize("folder, problem", [("/proc/nowhere", True), ("", False)])
def test_a_run_folder_that_cannot_be_written_is_a_problem_and_no_file_is_left_behind(folder, problem, tmp_path):
    report = CheckReport()
    machine.check_folders(replace(CONFIG, data=replace(CONFIG.data, cache=str(tmp_path))),
                          machine.Path(folder or tmp_path / "new"), report)
    assert bool(report.problems) is problem and report.notes == [] and list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_run_folder_is_a_problem(tmp_path):
    report = CheckReport()
    (tmp_path / "runs").write_bytes(b"")
    machine.check_folders(replace(CONFIG, data=replace(CONFIG.data, cache=str(tmp_path))), tmp_path / "runs" / "a", report)
    problem, = report.problems
    assert f"cannot create a file in {tmp_path / 'runs'} (Not a directory)" in str(problem)


def test_a_cache_that_cannot_be_written_is_only_a_note(tmp_path):
    report = CheckReport()
    machine.check_folders(replace(CONFIG, data=replace(CONFIG.data, cache="/proc/nowhere")), tmp_path, report)
    assert report.problems == [] and "data.cache=/proc/nowhere" in report.notes[0]


def test_more_workers_than_cores_are_noted():
    cores, report = len(os.sched_getaffinity(0)), CheckReport()
    machine.check_cores(replace(CONFIG, run=Run(num_workers=cores)), 1, report)
    assert report.notes == [] and report.facts["cores"] == cores
    machine.check_cores(replace(CONFIG, run=Run(num_workers=cores)), 2, report)
    assert f"set run.num_workers={cores // 2}" in report.notes[0]


@pytest.mark.parametrize("weights, exists, message", [
    ("", None, ""), ("/nowhere.pth", None, "no such file"), ("imagenet", False, ""), ("FILE", True, "")])
def test_weights_exist_or_will_be_downloaded_or_are_unknown(weights, exists, message, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "mine.pth").touch()
    report = CheckReport()
    machine.check_weights(replace(CONFIG, model=Model(weights=weights.replace("FILE", str(tmp_path / "mine.pth")))),
                          report)
    assert report.facts.get("weights", {}).get("exists") is exists
    assert message in str(report.problems) and bool(report.problems) is bool(message)
    assert ("the first start downloads https://" in "".join(report.notes)) is (weights == "imagenet")


@pytest.mark.parametrize("device, count, processes, message", [
    ("cuda", 0, 1, "no GPU that PyTorch can use"), ("auto", 0, 4, ""), ("cpu", 2, 4, ""), ("auto", 2, 4, "has 2 GPUs")])
def test_each_process_needs_a_gpu_of_its_own(device, count, processes, message, monkeypatch):
    monkeypatch.setattr(machine.torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(machine.torch.cuda, "get_device_name", lambda index: "NVIDIA H100")
    report = CheckReport()
    machine.check_gpus(replace(CONFIG, run=Run(device=device)), processes, report)
    assert message in str(report.problems) and bool(report.problems) is bool(message)
    assert report.facts["gpus"] == ["NVIDIA H100"] * count


@pytest.mark.slow
def test_an_all_reduce_succeeds_or_returns_its_error():
    assert machine.try_all_reduce("cpu", 2) == ""
    if not machine.torch.cuda.is_available():
        assert "no GPU that PyTorch can use" in machine.try_all_reduce("cuda", 1)
