"""batch.micro_batch_size=auto: the largest micro-batch that fits, with stand-in figures of memory on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from detector import load_config, train
from detector.checks.check import run_checks
from detector.config.load import from_dict, to_dict
from detector.config.options import replace_options
from detector.config.schema import Config
from detector.distributed import collectives
from detector.errors import BadInput
from detector.run.checkpoint_files import read_checkpoint, step_files
from detector.run.environment import free_host_memory_gib
from detector.structures import build_dataset
from detector.training import micro_batch
from detector.training.auto_options import resolve_auto
from detector.training.micro_batch import Memory, choose_micro_batch, sizes_to_try

AUTO = {"batch.size": 8, "batch.micro_batch_size": -1}
IMAGES = build_dataset("some", "", ["cat"], [1], [(f"{i}.png", i, 64, 64) for i in range(40)], np.zeros((0, 8)))
HOST, GPU = Memory(10.0, can_overrun=False), Memory(10.0, can_overrun=True)


class Trials:
    """Stands in for trial steps: the peak is `fixed` + `each` GiB for every image; above `memory` it fails as PyTorch does."""

    def __init__(self, each: float, fixed: float = 0.0, memory: float = float("inf")):
        self.each, self.fixed, self.memory, self.sizes = each, fixed, memory, []

    def __call__(self, size: int) -> float:
        self.sizes.append(size)
        peak = self.fixed + self.each * size
        if peak > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory") if size % 2 == 0 else RuntimeError("can't allocate memory")
        return peak


@pytest.mark.parametrize("global_batch, processes, sizes", [
    (16, 1, [1, 2, 4, 8, 16]), (16, 3, [1, 2, 4]), (16, 16, [1]), (6, 1, [1, 2, 3, 6]), (7, 1, [1, 7]), (1, 1, [1])])
def test_divisors_of_the_batch_up_to_the_images_of_a_process_are_tried(global_batch, processes, sizes):
    assert sizes_to_try(global_batch, processes) == sizes


@pytest.mark.parametrize("trials, memory, chosen, tried", [
    (Trials(1.0), GPU, 8, [1, 16, 8]), (Trials(0.1), GPU, 16, [1, 16]), (Trials(3.0), GPU, 2, [1, 16, 8, 4, 2]),
    (Trials(1.0, memory=7), GPU, 4, [1, 16, 8, 4]), (Trials(1.0, fixed=8.5), GPU, 1, [1, 16, 8, 4, 2]),
    (Trials(1.0), HOST, 8, [1, 8]), (Trials(0.1), HOST, 16, [1, 16]),
    (Trials(0.5, fixed=2), HOST, 4, [1, 4]),              # 16 would take 10 GiB, but that is not known beforehand
    (Trials(1.0, memory=7), HOST, 4, [1, 8, 4])])
def test_the_largest_size_that_fits_is_taken_and_a_lack_of_memory_is_survived(trials, memory, chosen, tried):
    trials.sizes.clear()
    size, remark = choose_micro_batch(sizes_to_try(16, 1), memory, trials)
    assert size == chosen and trials.sizes == tried
    assert f"{chosen} image" in remark and f"{trials(chosen):.2f} of the 10.00 GiB" in remark


def test_one_image_that_does_not_fit_is_an_error_with_a_remedy_and_another_error_stays_itself():
    with pytest.raises(BadInput, match="batch.micro_batch_size=auto: a step of 1 image does not fit into 10.00 GiB. Set run.precision"):
        choose_micro_batch([1, 2], GPU, Trials(11.0))

    def broken(size: int) -> float:
        raise ValueError("shapes differ")
    with pytest.raises(ValueError, match="shapes differ"):
        choose_micro_batch([1, 2], GPU, broken)


def test_all_ranks_take_what_fits_on_the_one_with_least_memory(monkeypatch):
    """The other rank has 5 GiB, and needs 1.2 GiB an image."""
    other = iter([5.0, 1.2, 16, 19.2, 9.6, 4.8])  # limit, peak of 1, its largest size, peaks of 16, 8, 4
    monkeypatch.setattr(collectives, "all_gather_row", lambda values: np.array([values, [next(other)]]))
    assert choose_micro_batch(sizes_to_try(16, 1), GPU, Trials(0.1))[0] == 4


def test_a_resumed_run_keeps_its_micro_batch_on_any_number_of_processes_and_never_measures():
    data, config = IMAGES, replace_options(Config(), AUTO)
    first, line = resolve_auto(config, data, 1, measure=lambda resolved: (4, f"measured at {resolved.augment.min_size}"))
    assert first.batch.micro_batch_size == 4 and first.batch.size == 8
    assert "batch.micro_batch_size=4" in line and line.endswith("; measured at (800,)")
    stored = from_dict(to_dict(first), "checkpoint")
    for processes in (1, 2, 8):
        resumed, _ = resolve_auto(config, data, processes, stored, measure=pytest.fail)
        assert resumed == first


def test_without_a_measurement_the_largest_possible_value_is_assumed_and_not_stated():
    config, line = resolve_auto(replace_options(Config(), AUTO), IMAGES, 2)
    assert config.batch.micro_batch_size == 4 and "micro_batch_size" not in line


def test_batch_size_and_micro_batch_may_not_both_be_left_to_the_other(config_file):
    with pytest.raises(BadInput, match="batch.size=0 with batch.micro_batch_size=auto: .*set batch.size=auto"):
        load_config(str(config_file), ["data.root=/d", "batch.size=0", "batch.micro_batch_size=auto"])
    config = load_config(str(config_file), ["data.root=/d", "batch.micro_batch_size=auto"])
    assert to_dict(config)["batch"]["micro_batch_size"] == "auto"
    assert load_config(str(config_file), ["data.root=/d"]).batch.micro_batch_size == 2


def test_a_run_records_the_value_and_trains_as_if_it_had_been_stated(tiny, config_file, tmp_path, monkeypatch):
    """The host is said to have memory for two of four images. The run is stopped by its length, and resumed."""
    monkeypatch.setattr(micro_batch, "peak_memory_gib", lambda device: 1.0 + len(sizes))
    monkeypatch.setattr(micro_batch, "memory_limit_gib", lambda device, processes, share: 5.0)
    sizes, run_micro_batch = [], micro_batch.run_micro_batch

    def watched(config, data, plan, state, device, batch):
        sizes[:] = batch.keys
        return run_micro_batch(config, data, plan, state, device, batch)
    monkeypatch.setattr(micro_batch, "run_micro_batch", watched)
    weights = {}
    for name, value in (("auto", "auto"), ("stated", "2")):
        for steps in ("1", "2"):
            train(load_config(str(config_file), [*tiny, f"run.name={name}", f"batch.micro_batch_size={value}", "batch.size=4",
                                                 f"schedule.steps={steps}", "data.val=[]"]))
        weights[name] = read_checkpoint(step_files(tmp_path / "runs" / name)[0])["model"]
    assert all(torch.equal(weights["auto"][key], weights["stated"][key]) for key in weights["stated"])
    assert yaml.safe_load(Path(tmp_path / "runs" / "auto" / "config.yaml").read_text())["batch"]["micro_batch_size"] == 2
    log = Path(tmp_path / "runs" / "auto" / "log.txt").read_text()
    assert "batch.micro_batch_size=2" in log and log.count("of the 5.00 GiB") == 1, "measured once, before the first step"


def test_check_prints_the_micro_batch_that_a_run_would_take(tiny, config_file, monkeypatch):
    config = load_config(str(config_file), [*tiny, "batch.micro_batch_size=auto", "batch.size=4", "data.val=[]"])
    quick = run_checks(config, quick=True, processes=1)
    assert "micro_batch_size" not in quick.facts and "which batch.micro_batch_size=auto follows" in quick.notes[-1]
    report = run_checks(config, processes=1)
    assert report.problems == [] and report.facts["micro_batch_size"] in (1, 2, 4)
    expected = f"batch.micro_batch_size=auto would take {report.facts['micro_batch_size']} here: "
    assert any(note.startswith(expected) for note in report.notes)
    monkeypatch.setattr(micro_batch, "memory_limit_gib", lambda device, processes, share: 0.01)
    report = run_checks(config, processes=1)
    assert [problem.subject for problem in report.problems] == ["batch.micro_batch_size=auto"]


def test_a_control_group_limits_the_memory_of_the_host(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:  8388608 kB\n")
    (tmp_path / "cgroup").write_text("0::/slurm/job\n")
    (tmp_path / "groups" / "slurm" / "job").mkdir(parents=True)
    files = [str(tmp_path / name) for name in ("meminfo", "cgroup", "groups")]
    assert free_host_memory_gib(*files) == 8
    for name, text in (("memory.max", f"{4 << 30}\n"), ("memory.current", f"{3 << 30}\n"),
                       ("memory.stat", f"anon 1\ninactive_file {1 << 30}\n")):
        (tmp_path / "groups" / "slurm" / name).write_text(text)
    (tmp_path / "groups" / "slurm" / "job" / "memory.max").write_text("max\n")
    assert free_host_memory_gib(*files) == 2
