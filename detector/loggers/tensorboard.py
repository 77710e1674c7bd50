"""TensorBoard event files in tensorboard/: scalars, drawings and precision-recall curves."""

from pathlib import Path

import numpy as np

from detector.loggers.protocol import Logger
from detector.run.files import TENSORBOARD_FOLDER
from detector.visualization.validation_images import EncodedImage


class TensorBoardLogger(Logger):
    """Writes event files; TensorBoard ignores events of an earlier start that are later than `step`."""

    def __init__(self, folder: Path, step: int, _total_steps: int):
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and only rank 0 needs it
        self.writer = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=step + 1)

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.flush()

    def image(self, step: int, name: str, image: EncodedImage) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        encoded = Summary.Image(height=image.height, width=image.width, colorspace=3, encoded_image_string=image.png)
        self.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=encoded)]), step)

    def pr_curve(self, step: int, name: str, counts: np.ndarray) -> None:
        self.writer.add_pr_curve_raw(f"precision and recall/{name}", *counts, step, counts.shape[1])

    def flush(self) -> None:
        """Makes everything logged so far visible to TensorBoard."""
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()
