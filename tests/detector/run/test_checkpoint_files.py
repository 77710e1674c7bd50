"""The state on disk: whole or not at all, the newest good one found again, nothing run that a file may hold."""

import errno
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.config.load import to_dict
from detector.config.schema import Config, Data, Optim
from detector.errors import BadInput
from detector.run import checkpoint_files
from detector.run.checkpoint_files import (
    keep_newest,
    mark_best,
    newest_readable,
    read_checkpoint,
    step_files,
    write_checkpoint,
)
from detector.training import checkpoint
from detector.training.checkpoint import TrainState, changes, restore
from detector.training.optimizer import build_optimizer

CONFIG, CLASSES = Config(), ("cat", "dog")


def state_at(step: int, optim: Optim = Optim(), average: bool = False) -> TrainState:
    """A small model after two optimiser steps, said to be at `step`."""
    torch.manual_seed(step)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    state = TrainState(model, build_optimizer(model, optim), torch.amp.GradScaler("cpu", enabled=False),
                       nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)) if average else None, step)
    for _ in range(2):
        train_a_step(state)
    return state


def train_a_step(state: TrainState) -> None:
    state.model(torch.linspace(0, 1, 16).reshape(2, 2, 2, 2)).square().sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()


def save(folder: Path, *what) -> Path:
    return write_checkpoint(folder, checkpoint.content_of(*what))


def saved(folder: Path, *steps: int) -> list[Path]:
    return [save(folder, state_at(step), CONFIG, CLASSES, 16) for step in steps]


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def assert_same(ours: nn.Module, theirs: nn.Module) -> None:
    for (name, mine), other in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_what_is_restored_goes_on_exactly_as_what_was_saved(tmp_path):
    before = state_at(7)
    path = save(tmp_path, before, CONFIG, CLASSES, 16)
    assert path.name == "step-00000007.pt" and files(tmp_path) == {path.name}
    content = read_checkpoint(path)
    assert (content["step"], content["classes"], content["global_batch"]) == (7, ["cat", "dog"], 16)
    after = state_at(1)
    restore(after, content)
    assert after.step == 7
    for state in (before, after):
        train_a_step(state)
    assert_same(after.model, before.model)


def test_a_state_before_the_first_step_has_momentum_of_zero_and_is_restored_too(tmp_path):
    model = nn.Linear(2, 2)
    state = TrainState(model, build_optimizer(model, Optim()), torch.amp.GradScaler("cpu", enabled=False), None)
    content = read_checkpoint(save(tmp_path, state, CONFIG, CLASSES, 16))
    assert {name: float(moments["momentum_buffer"].abs().max()) for name, moments in content["moments"].items()} == {
        "weight": 0, "bias": 0}
    restore(state, content)
    assert state.step == 0 and len(state.optimizer.state) == 2


def test_momentum_belongs_to_the_name_of_a_weight_not_to_its_place(tmp_path):
    """Another decay makes other groups, in which the weights stand in another order."""
    before = state_at(3, Optim(weight_decay_norm=-1))
    content = read_checkpoint(save(tmp_path, before, CONFIG, CLASSES, 16))
    after = state_at(4, Optim(weight_decay_norm=0, weight_decay_bias=0, bias_lr_factor=2))
    assert [len(g["params"]) for g in after.optimizer.param_groups] != [
        len(g["params"]) for g in before.optimizer.param_groups]
    restore(after, content)
    for (name, mine), other in zip(after.model.named_parameters(), before.model.parameters()):
        kept = after.optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(kept, before.optimizer.state[other]["momentum_buffer"]), name
    # Decays stay those of the config.
    assert [group["weight_decay"] for group in after.optimizer.param_groups] == [1e-4, 0, 0]


def test_the_average_is_restored_and_begins_as_the_weights_where_there_was_none(tmp_path):
    averaged = state_at(5, average=True)
    after = state_at(6, average=True)
    restore(after, read_checkpoint(save(tmp_path, averaged, CONFIG, CLASSES, 16)))
    assert_same(after.average, averaged.average)
    plain = state_at(8)
    restore(after, read_checkpoint(save(tmp_path, plain, CONFIG, CLASSES, 16)))
    assert_same(after.average, plain.model)


def test_the_loss_scale_is_restored(tmp_path):
    states = [replace(state_at(step), scaler=torch.amp.GradScaler("cpu", init_scale=scale))
              for step, scale in ((1, 1024.0), (2, 8.0))]
    restore(states[1], read_checkpoint(save(tmp_path, states[0], CONFIG, CLASSES, 16)))
    assert states[1].scaler.get_scale() == 1024


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
    assert newest_readable(tmp_path) == (before, [])
    saved(tmp_path, 2)  # there is room again
    assert newest_readable(tmp_path)[0].name == "step-00000002.pt"


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
    assert newest_readable(tmp_path) == (before, [])
    saved(tmp_path, 2)
    assert files(tmp_path) == {"step-00000001.pt", "step-00000002.pt"}


class Evil:
    """What a pickle may do when it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def spoil(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how.startswith("cut"):
        path.write_bytes({"cut to nothing": b"", "cut to half": whole[:len(whole) // 2],
                          "cut by one byte": whole[:-1]}[how])
    elif how == "text":
        path.write_text("no checkpoint")
    elif how == "evil":
        path.write_bytes(pickle.dumps(Evil(path.with_name("made")), protocol=2))
    else:
        torch.save({"another format": {"format": 0, "step": 3}, "another dict": {"a": 1}, "a list": [1, 2]}[how], path)


SPOILED = ["cut to nothing", "cut to half", "cut by one byte", "text", "evil", "another format", "another dict",
           "a list"]


@pytest.mark.parametrize("how", SPOILED)
def test_a_spoiled_file_is_named_and_the_one_before_is_used(how, tmp_path):
    good, bad = saved(tmp_path, 1, 2)
    spoil(bad, how)
    found, notes = newest_readable(tmp_path)
    assert found == good and len(notes) == 1 and str(bad) in notes[0] and "the one before it is used" in notes[0]
    with pytest.raises(BadInput, match="step-00000002.pt"):
        read_checkpoint(bad)
    assert not bad.with_name("made").exists()  # a file is data: nothing in it was run


def test_where_none_is_good_or_none_is_there_none_is_found(tmp_path):
    assert newest_readable(tmp_path) == (None, []) and step_files(tmp_path) == []
    for path in saved(tmp_path, 1, 2):
        spoil(path, "text")
    found, notes = newest_readable(tmp_path)
    assert found is None and ["step-00000002.pt" in notes[0], "step-00000001.pt" in notes[1]] == [True, True]
    with pytest.raises(BadInput, match="no such checkpoint: .*step-00000009.pt"):
        read_checkpoint(tmp_path / "checkpoints" / "step-00000009.pt")


def test_the_newest_stay_and_other_files_are_left_alone(tmp_path):
    saved(tmp_path, 1, 2, 10, 300)
    strangers = {"best.pt", "step-1.pt.bak", "step-x.pt", "notes.txt", "step-00000400.part"}
    for name in strangers:
        (tmp_path / "checkpoints" / name).touch()
    keep_newest(tmp_path, 2)
    assert files(tmp_path) == {"step-00000300.pt", "step-00000010.pt"} | strangers
    keep_newest(tmp_path, 5)
    assert len(step_files(tmp_path)) == 2


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


def test_a_best_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    first, second = saved(tmp_path, 1, 2)
    mark_best(tmp_path, first)
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError):
        mark_best(tmp_path, second)
    assert read_checkpoint(tmp_path / "checkpoints" / "best.pt")["step"] == 1


def content_of(config: Config, tmp_path: Path) -> dict:
    return read_checkpoint(save(tmp_path, state_at(1), config, CLASSES, 16))


def test_no_change_is_no_change(tmp_path):
    """Also after the way through the file: tuples, small numbers and nested sections come back as they were."""
    config = replace(CONFIG, optim=Optim(weight_decay=1e-7), model=replace(CONFIG.model, anchor_sizes=((8.0,), (16.0,))))
    assert changes(content_of(config, tmp_path), config, CLASSES, 16) == ([], [])


def test_changes_are_named_and_those_of_the_model_forbidden(tmp_path):
    now = replace(CONFIG, model=replace(CONFIG.model, roi_pooling="crop", rpn=replace(CONFIG.model.rpn, batch_size_per_image=128)),
                  optim=Optim(lr=0.5), run=replace(CONFIG.run, num_workers=7), data=Data(root="/elsewhere"), seed=3)
    forbidden, other = changes(content_of(CONFIG, tmp_path), now, ("dog", "cat"), 32)
    assert sorted(forbidden) == ["batch.size: 16 -> 32 images a step",
                                 "classes: cat, dog -> dog, cat (data.classes, data.train)",
                                 "model.roi_pooling: 'align' -> 'crop'", "model.rpn.batch_size_per_image: 256 -> 128"]
    assert sorted(other) == ["data.root: '' -> '/elsewhere'", "optim.lr: 0.02 -> 0.5", "seed: 0 -> 3"]  # run.*: no


def test_an_option_that_is_new_or_gone_is_a_change_with_a_name(tmp_path):
    content = content_of(CONFIG, tmp_path)
    del content["config"]["optim"]["ema"]
    content["config"]["optim"]["old"] = 1
    assert changes(content, CONFIG, CLASSES, 16) == ([], ["optim.old: 1 -> None", "optim.ema_decay: None -> 0.0"])


def test_the_config_in_a_file_is_plain_data(tmp_path):
    assert content_of(CONFIG, tmp_path)["config"] == to_dict(CONFIG)
    assert checkpoint_files.FORMAT == content_of(CONFIG, tmp_path)["format"]


@pytest.mark.parametrize("kept, resumed, record, left", [
    ([3, 6], 6, [(3, 0.5), (6, 0.4)], 9),            # best.pt is of step 3 or so, whose file is gone: it stays
    ([3, 6], 6, [(3, 0.5), (6, 0.4), (9, 0.6)], 3),  # step 9 is given up, and 3 is the best again
    ([6], 6, [(3, 0.5), (6, 0.4), (9, 0.6)], None),  # but gone
    ([3], 3, [(9, 0.6)], None), ([3], 3, [], 9)])
def test_best_is_never_of_a_branch_that_was_given_up(kept, resumed, record, left, tmp_path):
    later = save(tmp_path, state_at(9), CONFIG, CLASSES, 16)
    mark_best(tmp_path, later)
    later.unlink()
    saved(tmp_path, *kept)
    checkpoint_files.restore_best(tmp_path, resumed, record)
    best = tmp_path / "checkpoints" / "best.pt"
    assert (read_checkpoint(best)["step"] if best.exists() else None) == left
