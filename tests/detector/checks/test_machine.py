"""Room, folders, cores and GPUs: what is too little is a problem with numbers and a remedy."""

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
    """Pretends that every disk has so many bytes left."""
    def pretend(count: int) -> None:
        monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(count, 0, count))
    return pretend


@pytest.mark.parametrize("keep, enough", [(1, True), (2, True), (3, False)])
def test_the_disk_must_hold_all_checkpoints_the_best_and_the_one_under_way(keep, enough, free, tmp_path):
    free(4 * 2**30)
    found = CheckReport()
    machine.look_at_disk(tmp_path / "not" / "there", 2**30, keep, found)
    assert (not found.problems) is enough
    assert found.facts["disk"] == {"free_gib": 4, "needed_gib": keep + 2, "checkpoint_gib": 1}
    if not enough:
        assert "4.0 GiB are free, 5.0 are needed: 3 + 2 checkpoints of 1.00 GiB" in str(found.problems[0])


@pytest.mark.parametrize("workers, mebibytes, enough", [(0, 0, True), (2, 64, False), (2, 200, True)])
def test_shared_memory_must_hold_what_the_loaders_hand_over(workers, mebibytes, enough, free, tmp_path):
    free(mebibytes * 2**20)
    found = CheckReport()  # 2 processes x 2 workers x 4 batches x 2 images x 6 MiB = 192 MiB
    machine.look_at_shared_memory(replace(CONFIG, run=Run(num_workers=workers)), 6 * 2**20, 2, found, str(tmp_path))
    assert (not found.problems) is enough
    if not enough:
        assert "64 MiB are free, the loaders may need 192" in str(found.problems[0])


@pytest.mark.parametrize("folder, problem", [("/proc/nowhere", True), ("", False)])
def test_a_run_folder_that_cannot_be_made_is_a_problem_and_nothing_is_left(folder, problem, tmp_path):
    found = CheckReport()
    machine.look_at_folders(replace(CONFIG, data=replace(CONFIG.data, cache=str(tmp_path))),
                            machine.Path(folder or tmp_path / "new"), found)
    assert bool(found.problems) is problem and found.notes == [] and list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_only_a_note(tmp_path):
    found = CheckReport()
    machine.look_at_folders(replace(CONFIG, data=replace(CONFIG.data, cache="/proc/nowhere")), tmp_path, found)
    assert found.problems == [] and "data.cache=/proc/nowhere" in found.notes[0]


def test_more_workers_than_cores_are_noted():
    cores, found = len(os.sched_getaffinity(0)), CheckReport()
    machine.look_at_cores(replace(CONFIG, run=Run(num_workers=cores)), 1, found)
    assert found.notes == [] and found.facts["cores"] == cores
    machine.look_at_cores(replace(CONFIG, run=Run(num_workers=cores)), 2, found)
    assert f"set run.num_workers={cores // 2}" in found.notes[0]


@pytest.mark.parametrize("weights, there, words", [
    ("", None, ""), ("/nowhere.pth", None, "no such file"), ("imagenet", False, ""), ("FILE", True, "")])
def test_weights_are_there_or_will_be_downloaded_or_do_not_exist(weights, there, words, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "mine.pth").touch()
    found = CheckReport()
    machine.look_at_weights(replace(CONFIG, model=Model(weights=weights.replace("FILE", str(tmp_path / "mine.pth")))),
                            found)
    assert found.facts.get("weights", {}).get("there") is there
    assert words in str(found.problems) and bool(found.problems) is bool(words)
    assert ("the first start downloads https://" in "".join(found.notes)) is (weights == "imagenet")


@pytest.mark.parametrize("device, count, processes, words", [
    ("cuda", 0, 1, "no GPU that PyTorch can use"), ("auto", 0, 4, ""), ("cpu", 2, 4, ""), ("auto", 2, 4, "has 2 GPUs")])
def test_gpus_asked_for_and_there(device, count, processes, words, monkeypatch):
    monkeypatch.setattr(machine.torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(machine.torch.cuda, "get_device_name", lambda index: "NVIDIA H100")
    found = CheckReport()
    machine.look_at_gpus(replace(CONFIG, run=Run(device=device)), processes, found)
    assert words in str(found.problems) and bool(found.problems) is bool(words)
    assert found.facts["gpus"] == ["NVIDIA H100"] * count


def test_processes_meet_and_what_keeps_them_from_it_is_told():
    assert machine.meet("cpu", 2) == ""
    if not machine.torch.cuda.is_available():
        assert "no GPU that PyTorch can use" in machine.meet("cuda", 1)
