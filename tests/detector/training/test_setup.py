"""What a run logs before its first step, and what it keeps on another number of processes."""

import platform
from dataclasses import replace

import pytest
import torch

from detector.config.schema import Batch, Config, Model, Schedule
from detector.run.environment import RankInfo, processor, warn_few_cores, warn_slow_precision, world_table
from detector.training import setup
from detector.training.schedule import RunPlan, describe_schedule


def content(size: int = 8, processes: int = 2, micro_batch_size: int = 2,
            stated_size: int | None = None) -> dict:
    batch = {"size": size if stated_size is None else stated_size, "micro_batch_size": micro_batch_size}
    return {"global_batch": size, "processes": processes, "config": {"batch": batch}}


@pytest.mark.parametrize("config, before, size", [
    (Batch(0, 2), None, 0),                          # a first start: as many as the processes hold
    (Batch(0, 2), content(8, stated_size=0), 8),       # then kept
    (Batch(0, 2), content(8, stated_size=8), 0),       # it was a number and is none any more: a change, refused later
    (Batch(8, 2), content(16, stated_size=0), 8), (Batch(8, 2), content(8), 8)])
def test_a_global_batch_that_followed_from_the_processes_is_kept(config, before, size):
    assert setup.resumed_batch(config, before) == replace(config, size=size)


@pytest.mark.parametrize("world, before, size, micro_batch_size, words", [
    (2, 2, 8, 2, []), (1, 2, 8, 2, ["same images", "not bit for bit", "another order"]),
    (4, 1, 8, 2, ["on 4 processes now, 1 before", "another order"]),
    (8, 2, 8, 2, ["sampled anew"]),                  # eight ranks hold one image each
    (1, 2, 5, 8, ["sampled anew"])])
def test_differences_after_a_world_change_are_logged_with_their_reason(world, before, size, micro_batch_size, words, monkeypatch):
    monkeypatch.setattr(setup, "world_size", lambda: world)
    batch = Batch(size, micro_batch_size)
    notes = "\n".join(setup.describe_world_change(Config(batch=batch), batch, content(size, before, micro_batch_size)))
    assert bool(notes) is bool(words) and all(word in notes for word in words)
    assert ("running statistics" in "\n".join(setup.describe_world_change(
        Config(batch=batch, model=Model(norm="trained")), batch, content(size, before, micro_batch_size)))) is bool(words)


def test_the_kept_global_batch_is_logged(monkeypatch):
    monkeypatch.setattr(setup, "world_size", lambda: 1)
    notes = setup.describe_world_change(Config(batch=Batch(0, 2)), Batch(4, 2), content(4, 2, stated_size=0))
    assert "batch.size=0: the global batch of 4 images, from the start on 2, is kept" in notes[0]


def test_a_first_start_and_a_checkpoint_without_processes_log_nothing():
    older = {key: value for key, value in content().items() if key != "processes"}
    assert setup.describe_world_change(Config(), Batch(8, 2), None) == setup.describe_world_change(Config(), Batch(8, 2), older) == []


def test_the_world_is_a_line_for_each_host():
    seats = [RankInfo(rank, f"n{rank // 2}", "NVIDIA H100", tuple(range(8 * (rank % 2), 8 * (rank % 2) + 8)))
             for rank in range(4)]
    assert world_table(seats) == ["rank  host  device           cores", "0-1   n0    2 x NVIDIA H100  16",
                                  "2-3   n1    2 x NVIDIA H100  16"]
    assert world_table([RankInfo(0, "here", "cpu", (0, 1))]) == ["rank  host  device  cores", "0     here  cpu     2"]


@pytest.mark.parametrize("cores, workers, said", [
    ([(0, 1), (0, 1)], 2, "2 x 2 loader workers on n0 share 2 cores"), ([(0, 1), (2, 3)], 2, ""),
    ([(0,), (1,)], 2, "set run.num_workers=1"), ([(0,)], 0, ""), ([(0,)], 2, "1 x 2 loader workers")])
def test_more_workers_than_cores_are_told(cores, workers, said):
    seats = [RankInfo(rank, "n0", "cpu", some) for rank, some in enumerate(cores)]
    found = warn_few_cores(seats, workers)
    assert said in found and bool(said) is bool(found)


@pytest.mark.parametrize("precision, cpuinfo, slow", [
    ("fp32", "flags\t\t: fpu avx2\n", False), ("bf16", "flags\t\t: fpu avx2 avx512f\n", True), ("fp16", "flags\t\t: fpu avx2\n", True),
    ("bf16", "processor\t: 0\nflags\t\t: fpu avx512_bf16\n\nprocessor\t: 1\n", False), ("bf16", "flags\t\t: amx_bf16 amx_tile", False),
    ("bf16", "Features\t: fp asimd bf16 sm3\n", False), ("bf16", "Features\t: fp asimd asimdhp\n", True),
    ("fp16", "Features\t: fp asimd asimdhp\n", False), ("bf16", "processor\t: 0\n", False), ("bf16", None, False)])
def test_a_precision_that_the_cpu_imitates_is_told(precision, cpuinfo, slow, tmp_path):
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    said = warn_slow_precision(precision, torch.device("cpu"), str(tmp_path / "cpuinfo"))
    assert bool(said) is slow and (not slow or f"no instructions for {precision}" in said and "set run.precision=fp32" in said)


def test_the_processor_has_a_name_where_the_system_tells_it(tmp_path):
    widest = torch.backends.cpu.get_cpu_capability()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name\t: another\n")
    assert processor(str(tmp_path / "cpuinfo")) == f"Some CPU @ 2 GHz, {widest}"
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU\nflags\t\t: fpu avx512_bf16 amx_tile amx_bf16\n")
    assert processor(str(tmp_path / "cpuinfo")) == f"Some CPU, {widest}, amx_bf16, avx512_bf16"
    assert processor(str(tmp_path / "none")).startswith(f"{platform.machine()}, ")


@pytest.mark.parametrize("schedule, said", [
    (Schedule(), "90 steps (3 epochs), lr times 0.1 at step 30, 60"),
    (Schedule(lr_schedule="cosine"), "90 steps (3 epochs), lr falls along a cosine to 0")])
def test_the_schedule_in_a_line(schedule, said):
    assert describe_schedule(RunPlan(4, [], 30, 90, 0.1, 0, (30, 60, 90), ""), schedule) == said
    assert describe_schedule(RunPlan(4, [], 30, 20, 0.1, 0, (30,), ""), Schedule()) == "20 steps (0.667 epochs), lr stays constant"
