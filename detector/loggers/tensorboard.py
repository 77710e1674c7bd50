"""TensorBoard event files in tensorboard/: scalars, drawings, precision-recall curves and hyperparameters.

For the names of the scalars see run/metric_tags.py.
"""

import os
import socket
import time
from pathlib import Path

import numpy as np

from detector.loggers.hparams import read_options_of, write_hparams
from detector.loggers.protocol import Logger
from detector.run.evaluation_history import best_evaluation, read_evaluations
from detector.run.files import TENSORBOARD_FOLDER
from detector.run.metric_tags import BEST_NAME, best_metric_of, tag_of
from detector.visualization.validation_images import EncodedImage


class TensorBoardLogger(Logger):
    """Writes event files; TensorBoard ignores events of an earlier start that are later than `step`.

    Events are written by the caller's thread, unlike those of torch's SummaryWriter, so that the caller gets the error
    of a full disk.
    """

    def __init__(self, folder: Path, step: int, _total_steps: int):
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # slow to import, and only rank 0 needs them
        from tensorboard.summary.writer.record_writer import RecordWriter
        self.folder, self.new_event = folder, Event
        path = folder / TENSORBOARD_FOLDER
        path.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"  # in order of time
        self.records = RecordWriter(open(path / name, "ab"))
        self._write(file_version="brain.Event:2", step=step + 1)
        self._write(session_log=SessionLog(status=SessionLog.START), step=step + 1)
        self.flush()
        options = read_options_of(folder)
        self.best_metric = best_metric_of(options)
        write_hparams(path, options)

    def _write(self, **content) -> None:
        self.records.write(self.new_event(wall_time=time.time(), **content).SerializeToString())

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        entries = [Summary.Value(tag=tag_of(kind, name), simple_value=value) for name, value in values.items()]
        self._write(summary=Summary(value=entries), step=step)
        self.flush()

    def evaluation(self, step: int, metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> None:
        super().evaluation(step, metrics, per_class)
        best = best_evaluation(read_evaluations(self.folder), self.best_metric)  # metrics.jsonl is written before
        if best:
            self.scalars("evaluation", step, {BEST_NAME: best.metrics[self.best_metric]})

    def image(self, step: int, name: str, image: EncodedImage) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        encoded = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=image.png)
        self._write(summary=Summary(value=[Summary.Value(tag=name, image=encoded)]), step=step)

    def pr_curve(self, step: int, name: str, counts: np.ndarray) -> None:
        from torch.utils.tensorboard.summary import pr_curve_raw
        self._write(summary=pr_curve_raw(f"precision and recall/{name}", *counts, counts.shape[1]), step=step)

    def flush(self) -> None:
        """Makes everything logged so far visible to TensorBoard."""
        self.records.flush()

    def close(self) -> None:
        self.records.close()
