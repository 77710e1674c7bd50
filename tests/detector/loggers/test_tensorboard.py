"""What TensorBoard shows: sections in order, hyperparameters of the last start, the best metric so far."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from detector.config.load import load_config, to_yaml
from detector.config.options import all_options
from detector.loggers.hparams import METRICS, OPTIONS, hyperparameters
from detector.loggers.jsonl import JsonlLogger
from detector.loggers.tensorboard import TensorBoardLogger
from detector.run.metric_tags import tag_of

KINDS = {"train": ("loss", "loss_box_reg", "lr", "epoch", "gradient_norm", "images_per_s", "memory_gib"),
         "evaluation": ("loss", "AP", "AR1"), "AP by class": ("cat", "a/b"), "AP50 by class": ("cat",), "cost": ("hours",)}


def test_the_losses_are_the_first_section_and_the_metrics_the_second():
    tags = sorted([*(tag_of(kind, name) for kind, names in KINDS.items() for name in names), "plots/confusion", "validation/0001"],
                  key=str.lower)
    assert tags[:3] == ["loss/train", "loss/train_box_reg", "loss/validation"] == sorted(tags)[:3]
    assert list(dict.fromkeys(tag.split("/")[0] for tag in tags)) == [
        "loss", "metrics", "optimizer", "per class AP", "per class AP50", "plots", "speed and memory", "total cost", "validation"]


def start(folder: Path, config_file: Path, *overrides: str) -> None:
    (folder / "config.yaml").write_text(to_yaml(load_config(str(config_file), ["data.root=data", *overrides])))
    TensorBoardLogger(folder, 0, 10).close()


def shown(folder: Path) -> dict:
    """Returns the hyperparameters that TensorBoard reads."""
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    content = board.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: value.number_value if value.HasField("number_value") else value.string_value for name, value in values.items()}


def test_the_hyperparameters_are_those_of_the_last_start_and_in_the_folder_of_the_run(config_file, tmp_path):
    start(tmp_path, config_file, "optim.lr=0.02", "model.backbone=resnet18_fpn")
    assert (shown(tmp_path)["optim.lr"], shown(tmp_path)["model.backbone"]) == (0.02, "resnet18_fpn")
    start(tmp_path, config_file, "optim.lr=0.01", "augment.min_size=[400,800]")
    assert (shown(tmp_path)["optim.lr"], shown(tmp_path)["augment.min_size"]) == (0.01, "[400, 800]")
    assert all(path.is_file() and "tfevents" in path.name for path in (tmp_path / "tensorboard").iterdir())


def test_without_a_config_there_are_no_hyperparameters(tmp_path):
    TensorBoardLogger(tmp_path, 0, 10).close()
    with pytest.raises(KeyError):
        shown(tmp_path)
    assert hyperparameters({}) == {}


def test_the_hyperparameters_are_options_and_their_metrics_are_logged():
    assert set(OPTIONS) <= set(all_options())
    assert {tag_of("evaluation", name) for name in ("best so far", "AP", "AP50", "AP75", "loss")} | {"loss/train"} == set(METRICS)


@pytest.mark.parametrize("saved", [0, 20, 30])
def test_the_best_metric_so_far_is_that_of_the_record_also_after_a_resume(saved, config_file, tmp_path):
    start(tmp_path, config_file, "evaluate.best_metric=AP50")
    for first in (0, saved):
        loggers = [JsonlLogger(tmp_path, first, 100), TensorBoardLogger(tmp_path, first, 100)]
        for step, value in ((10, 0.25), (20, 0.5), (30, 0.125)):
            for logger in loggers if step > first else []:
                logger.evaluation(step, {"AP": 0.1, "AP50": value}, {})
        for logger in loggers:
            logger.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("metrics/best so far")] == [(10, 0.25), (20, 0.5), (30, 0.5)]
