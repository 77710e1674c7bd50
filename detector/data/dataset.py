"""One training or validation example by its key; the example depends on the key and the config alone."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from detector.config.schema import Augment
from detector.data.image_errors import REMEDY
from detector.data.image_io import GREY, MAX_PIXELS, read_image
from detector.data.transforms import TRANSFORMS, augment, horizontal_flip, jpeg_divisor
from detector.errors import BadInput
from detector.py_faster_rcnn.static_chunks import CropFrames, crop_to_frame
from detector.seeding import derive_seed, generator
from detector.structures import Dataset, scale_boxes

Example = tuple[Tensor, dict[str, Tensor]]


class DetectionDataset(TorchDataset):
    """Map-style dataset with keys (epoch, index).

    The same key gives the same example in every worker, on every rank and after every resume. With n images,
    index i is image i mod n; i // n counts the draws of that image within the epoch, from 0, which differ in
    augmentation; with augment.mirrored_copies every second one is the mirrored copy.

    An example is an image, uint8 [3, H, W], and a target:

    - boxes: float32 [N, 4], pixels of the returned image (with augment.reduced_jpegs it may be smaller than its file).
    - labels: int64 [N], 1 ... C.
    - index: int64 [], the index of the image.
    - frame: crop window and padded size, with `crop_frames` only, see py_faster_rcnn/static_chunks.py.
    - unreadable: uint8 [L], an error message in UTF-8, only if the image could not be decoded. An exception is not
      raised, because it would end the worker; the image is grey and has no boxes.

    Args:
        config: the augmentation; None: images as they are, for evaluation.
        crop_frames: crop every image to the aspect ratio of its static chunk.
    """

    def __init__(self, dataset: Dataset, seed: int, config: Augment | None, crop_frames: CropFrames | None = None):
        self.dataset, self.seed, self.config, self.crop_frames = dataset, seed, config, crop_frames
        self.transforms = dict(TRANSFORMS)   # workers receive this copy: they do not see what the program adds later
        self.shared: dict[str, Tensor] = {}  # the arrays of `dataset` in shared memory, once a worker was started

    def __len__(self) -> int:
        return len(self.dataset)

    def __getstate__(self) -> dict:
        """Replaces the arrays of the data set by tensors in shared memory, so that workers do not copy them."""
        arrays = {name: value for name, value in vars(self.dataset).items() if isinstance(value, np.ndarray)}
        if not self.shared:
            self.shared = {name: torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8).share_memory_()
                           for name, value in arrays.items() if value.size}
        layouts = {name: (arrays[name].dtype, arrays[name].shape) for name in self.shared}
        return {**vars(self), "dataset": replace(self.dataset, **dict.fromkeys(self.shared)), "layouts": layouts}

    def __setstate__(self, state: dict) -> None:
        layouts = state.pop("layouts")
        arrays = {name: state["shared"][name].numpy().view(dtype).reshape(shape)
                  for name, (dtype, shape) in layouts.items()}
        vars(self).update(state, dataset=replace(state["dataset"], **arrays))

    def __getitem__(self, key: tuple[int, int]) -> Example:
        epoch, entry = key
        number, index = divmod(entry, len(self.dataset))
        rows = self.dataset.rows(index)
        boxes = torch.from_numpy(self.dataset.boxes[rows].copy())
        labels = torch.from_numpy(self.dataset.labels[rows].astype(np.int64))
        target = {"index": torch.tensor(index)}
        height, width = (int(length) for length in self.dataset.sizes[index])
        try:
            divisor = jpeg_divisor(height, width, self.config) if self.config is not None else 1
            image = read_image(self.dataset.path(index), (height, width), divisor, REMEDY)
            if image.shape[-2:] != (height, width):
                boxes = scale_boxes(boxes, (height, width), tuple(image.shape[-2:]))
        except BadInput as error:
            size = (height, width) if height * width <= MAX_PIXELS else (1, 1)  # of a size that no image can have
            image = torch.full((3, *size), GREY, dtype=torch.uint8)
            boxes, labels = boxes[:0], labels[:0]
            message = str(error).encode(errors="backslashreplace")  # a file name may be invalid UTF-8
            target["unreadable"] = torch.frombuffer(bytearray(message), dtype=torch.uint8)
        if self.config is not None and self.config.mirrored_copies and number % 2:
            image, boxes = horizontal_flip(image, boxes)
        if self.config is not None:
            image, boxes, mask = augment(image, boxes, self.config, self._generator("augment", epoch, entry),
                                         self.transforms)
            labels = labels[mask]
        if self.crop_frames is not None:
            target["frame"], boxes, mask = crop_to_frame(
                image.shape[-2:], boxes, float(self.crop_frames.ratios[entry]), self.crop_frames.resize,
                self._generator("frame", epoch, entry))
            labels = labels[mask]
        if self.config is not None and 0 < self.config.max_boxes < len(boxes):
            order = torch.randperm(len(boxes), generator=self._generator("boxes", epoch, entry))
            kept = order[:self.config.max_boxes]
            boxes, labels = boxes[kept], labels[kept]
        return image, {**target, "boxes": boxes, "labels": labels}

    def _generator(self, purpose: str, epoch: int, entry: int) -> torch.Generator:
        return generator(derive_seed(self.seed, purpose, epoch, entry))


def unreadable_messages(targets: list[dict[str, Tensor]]) -> list[str]:
    """Returns the error messages of the images in a batch that could not be read."""
    return [bytes(target["unreadable"].numpy()).decode() for target in targets if "unreadable" in target]
