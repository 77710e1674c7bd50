"""The hyperparameters of a run for TensorBoard's HParams tab, as a file of their own beside the events of the run.

Each start replaces the file: TensorBoard takes the first hyperparameters that it reads, so that those of a start before
would hide changed options.
"""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from detector.config.sections import flatten
from detector.config.yaml_files import read_options
from detector.errors import BadInput
from detector.run.files import CONFIG_FILE
from detector.run.metric_tags import BEST_NAME

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

FILE = "events.out.tfevents.0000000000.hparams"  # TensorBoard reads it before all other files of the folder
METRICS = (f"metrics/{BEST_NAME}", "metrics/AP", "metrics/AP50", "metrics/AP75", "loss/validation", "loss/train")
FIRST = ("augment.min_size", "batch.size", "model.backbone", "optim.lr", "schedule.epochs")  # shown unasked
OPTIONS = (
    *FIRST, "model.weights", "model.norm", "model.frozen_stages", "model.anchor_sizes", "augment.max_size",
    "augment.hflip_prob", "augment.color_jitter_prob", "augment.scale_jitter", "batch.repeat_threshold",
    "optim.optimizer", "optim.backbone_lr_factor", "optim.weight_decay", "optim.grad_clip_norm", "optim.ema_decay",
    "schedule.lr_schedule", "schedule.steps", "schedule.warmup_steps", "run.precision", "seed")


def read_options_of(run: Path) -> dict[str, object]:
    """Returns the options in config.yaml of a run folder by path, as texts and lists; empty if there is no such file.
    """
    try:
        return flatten(read_options(run / CONFIG_FILE))
    except BadInput:
        return {}


def hyperparameters(options: dict[str, object]) -> dict[str, float | str]:
    """Returns the options that are compared between runs, those that hold a number as numbers."""
    values: dict[str, float | str] = {}
    for name in OPTIONS:
        if name in options:
            try:
                values[name] = float(str(options[name]))
            except ValueError:
                values[name] = str(options[name]).replace("'", "")
    return values


def write_hparams(folder: Path, options: dict[str, object]) -> None:
    """Replaces the file of hyperparameters in a folder of events; writes none without options.

    Raises:
        OSError: the file cannot be written.
    """
    if not options:
        return
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter
    partial = folder / "hparams.part"
    with open(partial, "wb") as file:
        records = RecordWriter(file)
        for content in ({"file_version": "brain.Event:2"}, {"summary": summary_of(hyperparameters(options))}):
            records.write(Event(wall_time=time.time(), **content).SerializeToString())
        records.flush()
    os.replace(partial, folder / FILE)


def summary_of(values: dict[str, float | str]) -> "Summary":
    """Returns the summary from which TensorBoard's HParams tab reads a run and the columns of its table."""
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import Experiment, HParamInfo, MetricInfo, MetricName
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo
    session = SessionStartInfo(start_time_secs=time.time())
    for name, value in values.items():
        setattr(session.hparams[name], "string_value" if isinstance(value, str) else "number_value", value)
    columns = [HParamInfo(name=name, differs=name in FIRST,  # the tab shows those that differ first
                          type="DATA_TYPE_STRING" if isinstance(value, str) else "DATA_TYPE_FLOAT64")
               for name, value in values.items()]
    experiment = Experiment(hparam_infos=columns,
                            metric_infos=[MetricInfo(name=MetricName(tag=tag)) for tag in METRICS])
    contents = {metadata.EXPERIMENT_TAG: HParamsPluginData(experiment=experiment),
                metadata.SESSION_START_INFO_TAG: HParamsPluginData(session_start_info=session)}
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(content),
                                        tensor=metadata.NULL_TENSOR) for tag, content in contents.items()])
