"""The values of options that are `auto`: by the number of images, their objects' sizes and the processes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from detector.config.load import from_dict, load_config, to_dict, to_yaml
from detector.config.names import shipped_folder
from detector.config.options import auto_options, fill_auto, replace_options
from detector.config.schema import Config
from detector.errors import BadInput
from detector.structures import build_dataset
from detector.training import auto_options as auto_module
from detector.training.auto_options import MIN_STEPS, resolve_auto, resolve_precision
from detector.training.optimizer import OPTIMIZERS, Optimizer
from detector.training.schedule import plan_run

AUTO = ["batch.size", "optim.lr", "augment.min_size", "schedule.epochs", "schedule.milestones", "evaluate.every_epochs",
        "evaluate.min_size"]


def images_with_squares(count: int, side: float, size: tuple[int, int] = (480, 640)):
    """Returns a data set whose images have one square object each."""
    objects = [(index, 1, 0, side * side, 10, 10, 10 + side, 10 + side) for index in range(count)]
    return build_dataset("squares", "/", ["square"], [1], [(f"{i}.jpg", i, *size) for i in range(count)],
                         np.array(objects))


def resolve(config: Config, count: int, side: float = 100, processes: int = 1, stored: Config | None = None) -> Config:
    return resolve_auto(config, images_with_squares(count, side), processes, stored)[0]


@pytest.mark.parametrize("precisions, expected", [(["bf16", "bf16"], "bf16"), (["bf16", "fp32"], "fp32"), (["fp32"], "fp32")])
def test_precision_is_what_all_ranks_compute_fast(precisions, expected, monkeypatch):
    monkeypatch.setattr(auto_module, "all_gather_texts", lambda texts: precisions)
    config = replace_options(Config(), {"run.precision": "auto"})
    assert resolve_precision(config, torch.device("cpu")).run.precision == expected


def test_a_stated_precision_and_that_of_a_checkpoint_stay(monkeypatch):
    monkeypatch.setattr(auto_module, "all_gather_texts", lambda texts: pytest.fail("asked the ranks"))
    config = replace_options(Config(), {"run.precision": "auto"})
    for stored in ("fp32", "bf16", "fp16"):
        stated = replace_options(Config(), {"run.precision": stored})
        assert resolve_precision(stated, torch.device("cpu")) == stated
        assert resolve_precision(config, torch.device("cpu"), stated).run.precision == stored
    assert to_dict(config)["run"]["precision"] == "auto" and from_dict(to_dict(config), "as written") == config


def test_these_options_are_auto_by_default_and_none_is_left_after_resolving():
    assert sorted(auto_options(Config())) == sorted(AUTO)
    assert auto_options(resolve(Config(), 40)) == []


@pytest.mark.parametrize("count, batch, epochs, every", [
    (5, 2, 67, 12), (28, 2, 15, 3), (40, 2, 15, 3), (400, 4, 15, 3), (4000, 8, 12, 2), (100_000, 16, 12, 2)])
def test_batch_and_epochs_follow_the_number_of_images(count, batch, epochs, every):
    config = resolve(Config(), count)
    assert (config.batch.size, config.schedule.epochs, config.evaluate.every_epochs) == (batch, epochs, every)
    plan = plan_run(config.batch, config.optim, config.schedule, np.full((count, 2), 480), 0, 1)
    assert plan.total_steps >= MIN_STEPS and plan.warmup_steps <= plan.total_steps // 10
    assert plan.lr == pytest.approx({2: 0.005, 4: 0.01, 8: 0.01, 16: 0.02}[batch])


@pytest.mark.parametrize("options, lr", [
    ({"batch.size": 4}, 0.01), ({"batch.size": 5}, 0.00625), ({"batch.size": 64}, 0.08),
    ({"batch.size": 0, "batch.micro_batch_size": 2}, 0.005), ({"batch.size": 2, "optim.reference_batch_size": 2}, 0.005),
    ({"batch.size": 16, "optim.optimizer": "adamw"}, 0.0001)])
def test_the_learning_rate_follows_the_batch_whatever_it_is_stated_for(options, lr):
    config = resolve(replace_options(Config(), options), 40)
    assert plan_run(config.batch, config.optim, config.schedule, np.full((40, 2), 480), 0, 1).lr == pytest.approx(lr)


def test_the_learning_rate_of_an_added_optimizer_is_that_of_its_entry_or_must_be_set(monkeypatch):
    config = replace_options(Config(), {"batch.size": 16, "optim.optimizer": "mine"})
    monkeypatch.setitem(OPTIMIZERS, "mine", Optimizer(OPTIMIZERS["adamw"].build, lr_of_16=3e-4))
    assert resolve(config, 40).optim.lr == pytest.approx(3e-4)
    monkeypatch.setitem(OPTIMIZERS, "mine", OPTIMIZERS["adamw"].build)
    with pytest.raises(BadInput, match="optim.lr=auto: the entry mine of OPTIMIZERS states no learning rate. Set optim.lr"):
        resolve(config, 40)
    assert resolve(replace_options(config, {"optim.lr": 0.01}), 40).optim.lr == 0.01


def test_the_table_of_the_readme_states_what_the_defaults_become():
    text = (shipped_folder() / "configs" / "README.md").read_text()
    for count in (40, 400, 4000, 100_000):
        config = resolve(Config(), count)
        plan = plan_run(config.batch, config.optim, config.schedule, np.full((count, 2), 480), 0, 1)
        first, second = config.schedule.milestones
        row = (f"| {count:,} | {plan.global_batch} | {config.schedule.epochs:g} | {plan.total_steps:,} | {plan.lr:g} | "
               f"{plan.warmup_steps:,} | {first:.3g} and {second:.3g} | {config.evaluate.every_epochs:g} |")
        assert row in text, row


def test_milestones_are_those_of_the_published_schedule_for_12_epochs_and_follow_other_lengths():
    assert resolve(Config(), 100_000).schedule.milestones == (8, 11)
    longer = replace_options(Config(), {"schedule.epochs": 48.0})
    assert resolve(longer, 400).schedule.milestones == (32, 44)
    in_steps = replace_options(Config(), {"schedule.steps": 600, "batch.size": 4})
    assert resolve(in_steps, 400).schedule.milestones == (4, 5.5)  # of 6 epochs
    assert resolve(in_steps, 400).schedule.epochs == 6


@pytest.mark.parametrize("side, min_size", [(300, 320), (72, 320), (60, 384), (40, 576), (10, 800)])
def test_the_size_of_the_network_s_input_follows_the_objects_size(side, min_size):
    config = resolve(Config(), 40, side)
    assert config.augment.min_size == (min_size,) and config.evaluate.min_size == min_size


def test_evaluation_uses_the_middle_of_several_training_sizes():
    config = resolve(replace_options(Config(), {"augment.min_size": (640, 480, 800)}), 40)
    assert config.augment.min_size == (640, 480, 800) and config.evaluate.min_size == 640


def test_images_without_objects_are_resized_to_800():
    dataset = build_dataset("empty", "/", ["square"], [1], [("a.jpg", 1, 10, 10)], np.zeros((0, 8)))
    assert resolve_auto(Config(), dataset, 1)[0].augment.min_size == (800,)


def test_a_batch_has_an_image_for_each_process_and_stays_when_the_run_moves():
    config = resolve(Config(), 40, processes=8)
    assert config.batch.size == 8
    moved = resolve(Config(), 40, processes=4, stored=config)
    assert moved.batch.size == 8 and moved == config


def test_a_resumed_run_keeps_its_values_whatever_its_images_are_now():
    config = resolve(Config(), 100, side=300)
    assert resolve(Config(), 5, side=20, stored=config) == config


def test_a_resumed_run_of_another_length_has_other_milestones():
    config = resolve(Config(), 100)
    longer = resolve(replace_options(Config(), {"schedule.epochs": 30.0}), 100, stored=config)
    assert longer.schedule.milestones == (20, 27.5) and longer.evaluate.every_epochs == 5
    assert longer.batch == config.batch and longer.optim == config.optim


def test_the_line_about_the_values_states_all_of_them_and_is_empty_without_any():
    config, line = resolve_auto(Config(), images_with_squares(40, 100), 1)
    assert line == ("auto, for 40 training images: batch.size=2, augment.min_size=[320], optim.lr=0.04, "
                    "schedule.epochs=15, schedule.milestones=[10, 13.75], evaluate.every_epochs=3, evaluate.min_size=320")
    assert resolve_auto(config, images_with_squares(40, 100), 1) == (config, "")


def test_auto_can_be_written_over_a_value_and_is_written_into_yaml(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: custom/bccd\nbatch: {size: auto}\nschedule: {milestones: auto}\n")
    config = load_config(str(path), ["data.root=/d", "augment.min_size=[auto]"])
    assert sorted(auto_options(config)) == ["augment.min_size", "batch.size", "schedule.milestones"]
    assert "milestones: auto" in to_yaml(config) and from_dict(to_dict(config), "a test") == config
    assert fill_auto(config, resolve(Config(), 40)).batch.size == 2


def test_auto_is_refused_where_an_option_has_one_default_for_all_data(config_file):
    with pytest.raises(BadInput, match="optim.momentum='auto': a number expected"):
        load_config(str(config_file), ["data.root=/d", "optim.momentum=auto"])
    with pytest.raises(BadInput, match="batch.size=.-1.: at least 0, or auto"):
        load_config(str(config_file), ["data.root=/d", "batch.size=-1"])


def test_shipped_configs_state_every_value_that_their_figures_depend_on():
    folder = shipped_folder() / "configs"
    for path in sorted(folder.rglob("*.yaml")):
        if path.parent.name != "cluster":
            config = load_config(str(path), ["data.root=/d"])
            free = auto_options(replace(config, schedule=replace(config.schedule, milestones=(8,)))
                                if config.schedule.lr_schedule == "cosine" else config)
            assert set(free) <= {"run.precision"}, path
