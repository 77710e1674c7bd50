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
from detector.structures import build_dataset, ceil_div
from detector.training import micro_batch, setup
from detector.training.auto_options import resolve_auto
from detector.training.micro_batch import Memory, choose_micro_batch, pass_counts, sizes_to_try

AUTO = {"batch.size": 8, "batch.micro_batch_size": -1}
IMAGES = build_dataset("some", "", ["cat"], [1], [(f"{i}.png", i, 64, 64) for i in range(40)], np.zeros((0, 8)))
HOST, GPU = Memory(10.0, can_overrun=False), Memory(10.0, can_overrun=True)


class Trials:
    """Stands in for trial steps: the peak is `fixed` + `each` GiB for every image, and at least `floor`; above `memory` a
    trial fails as PyTorch does."""

    def __init__(self, each: float, fixed: float = 0.0, memory: float = float("inf"), floor: float = 0.0):
        self.each, self.fixed, self.memory, self.floor, self.sizes = each, fixed, memory, floor, []

    def __call__(self, size: int) -> float:
        self.sizes.append(size)
        peak = max(self.floor, self.fixed + self.each * size)
        if peak > self.memory:
            raise torch.OutOfMemoryError("CUDA out of memory") if size % 2 == 0 else RuntimeError("can't allocate memory")
        return peak


@pytest.mark.parametrize("global_batch, processes, sizes", [
    (16, 1, [1, 2, 3, 4, 6, 8, 16]), (16, 3, [1, 2, 3, 6]), (16, 6, [1, 2, 3]), (16, 16, [1]), (7, 1, [1, 2, 3, 4, 7]),
    (1, 1, [1])])
def test_a_size_for_each_number_of_passes_of_a_process_is_tried(global_batch, processes, sizes):
    assert sizes_to_try(global_batch, processes, "frozen") == sizes
    passes = [max(pass_counts(global_batch, size, processes)) for size in sizes]
    assert passes[-1] == 1 and passes == sorted(set(passes), reverse=True)


@pytest.mark.parametrize("global_batch, processes, sizes", [
    (10, 4, [3]), (60, 4, [1, 3, 5, 8, 15]), (16, 1, [1, 2, 3, 4, 6, 8, 16])])
def test_no_size_is_tried_that_synchronized_norms_refuse(global_batch, processes, sizes, monkeypatch):
    assert sizes_to_try(global_batch, processes, "synchronized") == sizes
    monkeypatch.setattr(setup, "world_size", lambda: processes)
    for size in sizes:
        setup.refuse_uneven_statistics("synchronized", global_batch, size)


def test_with_one_pass_all_processes_have_the_same_number():
    for processes in range(1, 12):
        for global_batch in range(processes, 50):
            largest = sizes_to_try(global_batch, processes, "synchronized")[-1]
            assert largest == ceil_div(global_batch, processes) and pass_counts(global_batch, largest, processes) == {1}


@pytest.mark.parametrize("trials, memory, chosen, tried", [
    (Trials(1.0), GPU, 8, [1, 8, 16]), (Trials(0.1), GPU, 16, [1, 16]), (Trials(3.0), GPU, 3, [1, 3, 4]),
    (Trials(1.0, memory=7), GPU, 6, [1, 8, 6]), (Trials(1.0, fixed=8.5), GPU, 1, [1, 2]),
    (Trials(1.0, fixed=5), GPU, 4, [1, 2, 4, 6]),           # 1 + 5 GiB: the second size is tried though 2 x 6 > 10
    (Trials(1.0), HOST, 8, [1, 8]), (Trials(0.1), HOST, 16, [1, 16]), (Trials(1.0, fixed=8.5), HOST, 1, [1, 2]),
    (Trials(0.5, fixed=2), HOST, 16, [1, 4, 16]), (Trials(0.375, fixed=3), HOST, 16, [1, 2, 8, 16]),
    (Trials(1.0, memory=7), HOST, 6, [1, 8, 6]),
    (Trials(1.0, floor=4), HOST, 8, [1, 2, 8])])            # what is needed beside images hides what two of them take
def test_the_largest_size_that_fits_is_taken_and_a_lack_of_memory_is_survived(trials, memory, chosen, tried):
    trials.sizes.clear()
    size, remark = choose_micro_batch(sizes_to_try(16, 1, "frozen"), memory, trials)
    assert size == chosen and trials.sizes == tried
    assert f"{chosen} image" in remark and f"peak {trials(chosen):.2f} GiB, limit 10.00 GiB" in remark


@pytest.mark.parametrize("fixed", [0.0, 1.2, 2.0, 5.0, 9.0])
@pytest.mark.parametrize("each", [0.05, 0.15, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("processes", [1, 3])
def test_on_a_host_no_trial_takes_more_memory_than_there_is(fixed, each, processes):
    """The limit is half of what is free; memory that grows with each image alone would not pass the other half."""
    sizes, trials = sizes_to_try(48, processes, "frozen"), Trials(each, fixed)
    fitting = [size for size in sizes if fixed + each * size <= 10]
    if fitting:
        assert choose_micro_batch(sizes, HOST, trials)[0] == fitting[-1]
    assert all(fixed + each * size <= 20 for size in trials.sizes)


def test_one_image_that_does_not_fit_is_an_error_with_a_remedy_and_another_error_stays_itself():
    with pytest.raises(BadInput, match="batch.micro_batch_size=auto: a step of 1 image does not fit into 10.00 GiB. Set run.precision"):
        choose_micro_batch([1, 2], GPU, Trials(11.0))

    def broken(size: int) -> float:
        raise ValueError("shapes differ")
    with pytest.raises(ValueError, match="shapes differ"):
        choose_micro_batch([1, 2], GPU, broken)


def test_all_ranks_take_what_fits_on_the_one_with_least_memory(monkeypatch):
    """The other rank has 5 GiB, and needs 1.2 GiB an image."""
    other = iter([5.0, 1.2, 4.8, 7.2])  # limit, peaks of 1, 4, 6
    monkeypatch.setattr(collectives, "all_gather_row", lambda values: np.array([values, [next(other)]]))
    assert choose_micro_batch(sizes_to_try(16, 1, "frozen"), GPU, Trials(0.1))[0] == 4


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
    monkeypatch.setattr(micro_batch, "memory_limit_gib", lambda device, processes, share: 3.5)
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
    assert "batch.micro_batch_size=2" in log and log.count("limit 3.50 GiB") == 1, "measured once, before the first step"


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
    monkeypatch.setattr(micro_batch, "reset_peak_memory", lambda device: False)
    report = run_checks(config, processes=1)
    assert report.problems == [] and report.facts["micro_batch_size"] == 1
    assert any("would take 1 here: the smallest, because this system does not let" in note for note in report.notes)
