"""One training or validation example, by key. What it is depends on nothing but the key and the config."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detector.config.schema import Augment
from detector.data.image_io import GREY, read_image
from detector.data.transforms import augment, mirror, reduction
from detector.errors import BadInput
from detector.py_faster_rcnn.static_chunks import Frames, framed
from detector.seeding import derive_seed, generator
from detector.structures import Dataset, scale_boxes

Example = tuple[Tensor, dict[str, Tensor]]


class DetectionDataset(TorchDataset):
    """Keyed by (epoch, index): the same key gives the same example in any worker, on any rank, after any resume.

    An example is an image uint8 [3, H, W] and a target: boxes float32 [N, 4], labels int64 [N], image index int64 [];
    with frames also `frame`, see py_faster_rcnn/static_chunks.py. An index from the number of images on is a mirrored copy.
    With augment.reduced_jpegs an image may be smaller than its file says, and its boxes are in its own pixels.
    A broken image does not raise here, in a worker, but is handed on as `unreadable_messages`: bytes of the message as uint8 [L].
    """

    def __init__(self, dataset: Dataset, seed: int, config: Augment | None, frames: Frames | None = None):
        self.dataset, self.seed, self.config, self.frames = dataset, seed, config, frames
        self.shared: dict[str, Tensor] = {}  # the data set's arrays, once workers have asked for them

    def __len__(self) -> int:
        return len(self.dataset)

    def __getstate__(self) -> dict:
        """For a worker: the arrays of the data set travel as tensors, which PyTorch hands over in shared memory."""
        arrays = {name: value for name, value in vars(self.dataset).items() if isinstance(value, np.ndarray)}
        if not self.shared:
            self.shared = {name: torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8).share_memory_()
                           for name, value in arrays.items() if value.size}
        kinds = {name: (arrays[name].dtype, arrays[name].shape) for name in self.shared}
        return {**vars(self), "dataset": replace(self.dataset, **dict.fromkeys(self.shared)), "kinds": kinds}

    def __setstate__(self, state: dict) -> None:
        kinds = state.pop("kinds")
        arrays = {name: state["shared"][name].numpy().view(kind).reshape(shape)
                  for name, (kind, shape) in kinds.items()}
        vars(self).update(state, dataset=replace(state["dataset"], **arrays))

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, entry = key
        copy, index = divmod(entry, len(self.dataset))
        rows = self.dataset.rows(index)
        boxes = torch.from_numpy(self.dataset.boxes[rows].copy())
        labels = torch.from_numpy(self.dataset.labels[rows].astype(np.int64))
        target = {"index": torch.tensor(index)}
        height, width = (int(side) for side in self.dataset.sizes[index])
        try:
            divisor = reduction(height, width, self.config) if self.config is not None else 1
            image = read_image(self.dataset.path(index), (height, width), divisor)
            if image.shape[-2:] != (height, width):
                boxes = scale_boxes(boxes, (height, width), tuple(image.shape[-2:]))
        except BadInput as error:
            image = torch.full((3, height, width), GREY, dtype=torch.uint8)
            boxes, labels = boxes[:0], labels[:0]
            told = str(error).encode(errors="backslashreplace")  # a name of a file may be no UTF-8
            target["broken"] = torch.frombuffer(bytearray(told), dtype=torch.uint8)
        if copy:
            image, boxes = mirror(image, boxes)
        if self.config is not None:
            chance = generator(derive_seed(self.seed, "augment", epoch, entry))
            image, boxes, mask = augment(image, boxes, self.config, chance)
            labels = labels[mask]
        if self.frames is not None:
            chance = generator(derive_seed(self.seed, "frame", epoch, entry))
            target["frame"], boxes, mask = framed(image.shape[-2:], boxes, float(self.frames.ratios[entry]),
                                                  self.frames.side, chance)
            labels = labels[mask]
        if self.config is not None and 0 < self.config.max_boxes < len(boxes):
            chance = generator(derive_seed(self.seed, "boxes", epoch, entry))
            chosen = torch.randperm(len(boxes), generator=chance)[:self.config.max_boxes]
            boxes, labels = boxes[chosen], labels[chosen]
        return image, {**target, "boxes": boxes, "labels": labels}


def unreadable_messages(targets: list[dict[str, Tensor]]) -> list[str]:
    """The messages of the images in a batch that could not be read."""
    return [bytes(target["broken"].numpy()).decode() for target in targets if "broken" in target]
