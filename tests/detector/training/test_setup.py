"""What a run logs before its first step, and what it keeps on another number of processes."""

from dataclasses import replace

import pytest
import torch

from detector.config.schema import Batch, Config, Model, Schedule
from detector.training import setup, start_messages
from detector.training.schedule import RunPlan, describe_schedule
from detector.training.setup import without_effect


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
    (2, 2, 8, 2, []), (1, 2, 8, 2, ["same images", "differ in rounding", "another order"]),
    (4, 1, 8, 2, ["on 4 processes now, 1 before", "another order"]),
    (8, 2, 8, 2, ["sampled anew"]),                  # eight ranks hold one image each
    (1, 2, 5, 8, ["sampled anew"])])
def test_differences_after_a_world_change_are_logged_with_their_reason(world, before, size, micro_batch_size, words, monkeypatch):
    monkeypatch.setattr(start_messages, "world_size", lambda: world)
    batch = Batch(size, micro_batch_size)
    notes = "\n".join(start_messages.describe_world_change(Config(batch=batch), batch, content(size, before, micro_batch_size)))
    assert bool(notes) is bool(words) and all(word in notes for word in words)
    assert ("running statistics" in "\n".join(start_messages.describe_world_change(
        Config(batch=batch, model=Model(norm="trained")), batch, content(size, before, micro_batch_size)))) is bool(words)


@pytest.mark.parametrize("before, processes, device, message", [
    (3, 1, "cpu", "on 2 threads in each process now, 3 before (OMP_NUM_THREADS)"), (2, 1, "cpu", ""), (3, 2, "cpu", ""),
    (0, 1, "cpu", ""), (3, 1, "cuda", "")])  # as many; other processes, which has a message; before on a GPU, and now
def test_another_number_of_threads_is_logged_on_a_cpu(before, processes, device, message, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    said = start_messages.describe_thread_change({"threads": before, "processes": processes}, torch.device(device))
    assert said.startswith(message) and bool(said) is bool(message)
    assert start_messages.describe_thread_change(None, torch.device(device)) == ""


def test_the_kept_global_batch_is_logged(monkeypatch):
    monkeypatch.setattr(start_messages, "world_size", lambda: 1)
    notes = start_messages.describe_world_change(Config(batch=Batch(0, 2)), Batch(4, 2), content(4, 2, stated_size=0))
    assert "batch.size=0: the global batch of 4 images, from the start on 2, is kept" in notes[0]


def test_the_model_is_told_with_its_parameters():
    layers = torch.nn.Sequential(torch.nn.Linear(999, 1000), torch.nn.Linear(999, 1000))
    assert start_messages.describe_model("small", layers) == "small, 2 million parameters"
    layers[0].requires_grad_(False)
    assert start_messages.describe_model("small", layers) == "small, 2 million parameters, 1 million of them trained"


def test_a_first_start_and_a_checkpoint_without_processes_log_nothing():
    older = {key: value for key, value in content().items() if key != "processes"}
    for earlier in (None, older):
        assert start_messages.describe_world_change(Config(), Batch(8, 2), earlier) == []


@pytest.mark.parametrize("schedule, said", [
    (Schedule(), "90 steps (3 epochs), lr times 0.1 at step 30, 60"),
    (Schedule(lr_schedule="cosine"), "90 steps (3 epochs), lr falls along a cosine to 0")])
def test_the_schedule_in_a_line(schedule, said):
    assert describe_schedule(RunPlan(4, [], 1, 30, 90, 0.1, 0, (30, 60, 90), ""), schedule) == said
    assert describe_schedule(RunPlan(4, [], 1, 30, 20, 0.1, 0, (30,), ""), Schedule()) == "20 steps (0.667 epochs), lr stays constant"


@pytest.mark.parametrize("changes, step, notes", [([], 6, 0), (["optim.lr: 0.02 -> 0.5"], 5, 0), (["optim.lr: 0.02 -> 0.5"], 6, 1)])
def test_a_change_of_a_finished_run_is_said_to_have_no_effect(changes, step, notes):
    messages = without_effect(changes, step, 6)
    assert len(messages) == notes and all("all 6 steps are done" in message for message in messages)
