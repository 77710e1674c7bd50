"""The training state in a checkpoint: restored exactly, and compared with the config of today."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from detector.config.load import to_dict
from detector.config.schema import Config, Data, Optim
from detector.run import checkpoint_files
from detector.run.checkpoint_files import read_checkpoint, write_checkpoint
from detector.training.checkpoint import TrainState, checkpoint_content, compare_configs, restore_state
from detector.training.optimizer import build_optimizer

CONFIG, CLASSES = Config(optim=Optim(lr=0.02)), ("cat", "dog")


def state_at(step: int, optim: Optim = Optim(lr=0.02), ema: bool = False) -> TrainState:
    """A small model after two optimizer steps, which claims to be at `step`."""
    torch.manual_seed(step)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    state = TrainState(model, build_optimizer(model, optim), torch.amp.GradScaler("cpu", enabled=False),
                       nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)) if ema else None, step)
    for _ in range(2):
        train_a_step(state)
    return state


def train_a_step(state: TrainState) -> None:
    state.model(torch.linspace(0, 1, 16).reshape(2, 2, 2, 2)).square().sum().backward()
    state.optimizer.step()
    state.optimizer.zero_grad()


def save(folder: Path, state: TrainState, config: Config = CONFIG) -> Path:
    return write_checkpoint(folder, checkpoint_content(state, config, CLASSES, 16))


def assert_same(model: nn.Module, other: nn.Module) -> None:
    for (name, value), expected in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("optim", [Optim(lr=0.02), Optim("adamw", lr=0.02, weight_decay=0.05, bias_lr_factor=2)])
def test_what_is_restored_goes_on_exactly_as_what_was_saved(optim, tmp_path):
    before = state_at(7, optim)
    path = save(tmp_path, before)
    assert path.name == "step-00000007.pt"
    content = read_checkpoint(path)
    assert (content["step"], content["classes"], content["global_batch"]) == (7, ["cat", "dog"], 16)
    after = state_at(1, optim)
    restore_state(after, content)
    assert after.step == 7
    for state in (before, after):
        train_a_step(state)
    assert_same(after.model, before.model)


def test_a_state_before_the_first_step_has_momentum_of_zero_and_is_restored_too(tmp_path):
    model = nn.Linear(2, 2)
    state = TrainState(model, build_optimizer(model, Optim(lr=0.02)), torch.amp.GradScaler("cpu", enabled=False), None)
    content = read_checkpoint(save(tmp_path, state))
    assert {name: float(moments["momentum_buffer"].abs().max()) for name, moments in content["moments"].items()} == {
        "weight": 0, "bias": 0}
    restore_state(state, content)
    assert state.step == 0 and len(state.optimizer.state) == 2


def test_momentum_belongs_to_the_name_of_a_weight_not_to_its_place(tmp_path):
    """Another decay makes other groups, in which the weights stand in another order."""
    before = state_at(3, Optim(lr=0.02, weight_decay_norm=-1))
    content = read_checkpoint(save(tmp_path, before))
    after = state_at(4, Optim(lr=0.02, weight_decay_norm=0, weight_decay_bias=0, bias_lr_factor=2))
    assert [len(g["params"]) for g in after.optimizer.param_groups] != [
        len(g["params"]) for g in before.optimizer.param_groups]
    restore_state(after, content)
    for (name, mine), other in zip(after.model.named_parameters(), before.model.parameters()):
        kept = after.optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(kept, before.optimizer.state[other]["momentum_buffer"]), name
    # Decays stay those of the config.
    assert [group["weight_decay"] for group in after.optimizer.param_groups] == [1e-4, 0, 0]


def test_the_average_is_restored_and_begins_as_the_weights_where_there_was_none(tmp_path):
    averaged = state_at(5, ema=True)
    after = state_at(6, ema=True)
    restore_state(after, read_checkpoint(save(tmp_path, averaged)))
    assert_same(after.ema_model, averaged.ema_model)
    plain = state_at(8)
    restore_state(after, read_checkpoint(save(tmp_path, plain)))
    assert_same(after.ema_model, plain.model)


def test_the_loss_scale_is_restored(tmp_path):
    states = [replace(state_at(step), scaler=torch.amp.GradScaler("cpu", init_scale=scale))
              for step, scale in ((1, 1024.0), (2, 8.0))]
    restore_state(states[1], read_checkpoint(save(tmp_path, states[0])))
    assert states[1].scaler.get_scale() == 1024


def content_of(config: Config, tmp_path: Path) -> dict:
    return read_checkpoint(save(tmp_path, state_at(1), config))


def test_no_change_is_no_change(tmp_path):
    """Also after the way through the file: tuples, small numbers and nested sections come back as they were."""
    config = replace(CONFIG, optim=Optim(lr=0.02, weight_decay=1e-7), model=replace(CONFIG.model, anchor_sizes=((8.0,), (16.0,))))
    assert compare_configs(content_of(config, tmp_path), config, CLASSES, 16) == ([], [])


def test_changes_are_named_and_those_of_the_model_forbidden(tmp_path):
    now = replace(CONFIG, model=replace(CONFIG.model, roi_pooling="crop", rpn=replace(CONFIG.model.rpn, batch_size_per_image=128)),
                  optim=Optim(lr=0.5, optimizer="adamw"), run=replace(CONFIG.run, num_workers=7), data=Data(root="/elsewhere"), seed=3)
    forbidden, other = compare_configs(content_of(CONFIG, tmp_path), now, ("dog", "cat"), 32)
    assert sorted(forbidden) == ["batch.size: 16 -> 32 images a step",
                                 "classes: cat, dog -> dog, cat (data.classes, data.train)",
                                 "model.roi_pooling: 'align' -> 'crop'", "model.rpn.batch_size_per_image: 256 -> 128",
                                 "optim.optimizer: 'sgd' -> 'adamw'"]
    assert sorted(other) == ["data.root: '' -> '/elsewhere'", "optim.lr: 0.02 -> 0.5", "seed: 0 -> 3"]  # run.*: no


@pytest.mark.parametrize("share", ["0.3", "val"])
def test_what_decides_which_images_are_held_out_cannot_change(share, tmp_path):
    config = replace(CONFIG, data=Data(val=(share,)))
    now = replace(config, data=Data(val=(share,), train=("trainval",)), seed=7)
    forbidden, other = compare_configs(content_of(config, tmp_path), now, CLASSES, 16)
    changes = ["data.train: ['train'] -> ['trainval']", "seed: 0 -> 7"]
    assert (forbidden, other) == ((changes, []) if share == "0.3" else ([], changes))


def test_duplicates_of_a_run_of_an_older_version_counted(tmp_path):
    content = content_of(CONFIG, tmp_path)
    del content["config"]["data"]["duplicates"]
    assert compare_configs(content, CONFIG, CLASSES, 16) == ([], ["data.duplicates: 'keep' -> 'drop'"])


def test_an_option_that_is_gone_is_a_change_and_a_new_one_had_its_default(tmp_path):
    content = content_of(CONFIG, tmp_path)
    del content["config"]["optim"]["ema_decay"]
    content["config"]["optim"]["old"] = 1
    assert compare_configs(content, CONFIG, CLASSES, 16) == ([], ["optim.old: 1 -> None"])
    changed = replace(CONFIG, optim=Optim(lr=0.02, ema_decay=0.9))
    assert compare_configs(content, changed, CLASSES, 16) == ([], ["optim.ema_decay: 0.0 -> 0.9", "optim.old: 1 -> None"])


def test_the_config_in_a_file_is_plain_data(tmp_path):
    assert content_of(CONFIG, tmp_path)["config"] == to_dict(CONFIG)
    assert checkpoint_files.FORMAT == content_of(CONFIG, tmp_path)["format"]
