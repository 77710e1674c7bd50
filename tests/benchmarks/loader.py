"""The data loader of this package and that of torchvision's reference: images/s of one core, and the waits of a step.

    python tests/benchmarks/loader.py [--workers 8 2] [--step-ms 100] [--batch 16] [--height 480] [--width 640]

The peer does what references/detection does: a PIL image, a flip with probability 0.5, a float tensor. This package
decodes with simplejpeg and returns uint8; if the short side of --short allows it, also with augment.reduced_jpegs.
JPEGs are drawn from a seed, with about as many bytes per pixel as COCO's. On a GPU machine both pin their batches.

One core: both read all images, interleaved. With workers: images/s of batches without a pause; and with steps that take
--step-ms and no core, as on a GPU, the fraction of time that the steps wait for their batch. 16 images in 100 ms are 160
images/s. Where the wait is above 2 %, the limit of this machine is printed. Appends a JSON line to
tests/benchmarks/results/loader.jsonl.
"""

import argparse
import contextlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import append_result, draw_jpegs, format_spread, ratio, run_interleaved, spread
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from detector.config.schema import Augment
from detector.data.dataset import DetectionDataset
from detector.data.loader import open_loader
from detector.data.transforms import jpeg_divisor
from detector.structures import Dataset, build_dataset

MAX_WAIT = 0.02
OBJECTS_PER_IMAGE = 7  # as in COCO


class PeerDataset(torch.utils.data.Dataset):
    """Examples of references/detection/presets.py: DetectionPresetTrain with hflip and its default backend."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        image = Image.open(self.dataset.path(index)).convert("RGB")
        rows = self.dataset.rows(index)
        boxes, labels = torch.from_numpy(self.dataset.boxes[rows]), torch.from_numpy(self.dataset.labels[rows].astype("int64"))
        if torch.rand(()) < 0.5:
            image, boxes = F.horizontal_flip(image), boxes * torch.tensor([-1, 1, -1, 1]) + torch.tensor([image.width, 0] * 2)
            boxes = boxes[:, [2, 1, 0, 3]]
        return F.to_dtype(F.pil_to_tensor(image), torch.float, scale=True), {"boxes": boxes, "labels": labels}


def collate_lists(batch: list) -> tuple:
    return tuple(zip(*batch))


def draw_dataset(folder: Path, count: int, height: int, width: int) -> Dataset:
    paths, rng = draw_jpegs(folder, count, height, width), np.random.RandomState(0)
    first = rng.rand(count * OBJECTS_PER_IMAGE, 2) * [width / 2, height / 2]
    boxes = np.concatenate([first, first + 16 + rng.rand(len(first), 2) * [width / 4, height / 4]], axis=1)
    objects = [(row // OBJECTS_PER_IMAGE, 1, 0, 1, *box) for row, box in enumerate(boxes)]
    images = [(path.name, number + 1, height, width) for number, path in enumerate(paths)]
    return build_dataset("drawn", str(folder), ["thing"], [1], images, np.array(objects))


def one_core(dataset: Dataset, variants: dict, rounds: int) -> dict[str, list[float]]:
    """Returns images/s of each round, by variant, in this process with one thread."""
    def read_all(examples):
        def read() -> None:
            for index in range(len(dataset)):
                examples[index if isinstance(examples, PeerDataset) else (0, index)]
        return read
    functions = {name: read_all(examples) for name, examples in variants.items()}
    for function in functions.values():
        function()  # not measured: fills the file cache of the system
    return {name: [len(dataset) / s for s in seconds] for name, seconds in run_interleaved(functions, rounds).items()}


def batch_keys(dataset: Dataset, batch: int, steps: int) -> list[list[tuple[int, int]]]:
    return [[(step, (step * batch + i) % len(dataset)) for i in range(batch)] for step in range(steps)]


@contextlib.contextmanager
def open_batches(examples, keys: list[list[tuple[int, int]]], workers: int):
    """Opens the loader of either package."""
    pin_memory = torch.cuda.is_available()
    if isinstance(examples, PeerDataset):
        indices = [[index for _, index in row] for row in keys]
        yield iter(DataLoader(examples, batch_sampler=indices, num_workers=workers, collate_fn=collate_lists,
                              pin_memory=pin_memory))
    else:
        with open_loader(examples, keys, workers, pin_memory) as batches:
            yield batches


def with_workers(examples, dataset: Dataset, workers: int, batch: int, steps: int, step_s: float) -> tuple[float, float]:
    """Returns images/s without pauses, and the fraction of time that steps of `step_s` seconds wait for their batch.

    The first quarter of the batches is not counted: they were loaded ahead.
    """
    first_counted, results = steps // 4, []
    for pause_s in (0.0, step_s):
        with open_batches(examples, batch_keys(dataset, batch, steps), workers) as batches:
            waited_s = 0.0
            for step in range(steps):
                step_started_at = time.perf_counter()
                if step == first_counted:
                    started_at, waited_s = step_started_at, 0.0
                held = next(batches)
                waited_s += time.perf_counter() - step_started_at
                time.sleep(pause_s)
                del held  # a training step, too, holds its batch until it ends
            elapsed_s = time.perf_counter() - started_at
        results.append((steps - first_counted) * batch / elapsed_s if not pause_s else waited_s / elapsed_s)
    return results[0], results[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 200), ("rounds", 5), ("batch", 16), ("steps", 60), ("height", 480), ("width", 640),
                          ("short", 800)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 2])
    parser.add_argument("--step-ms", type=float, default=100.0)
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        append_result("loader", measure(args, Path(folder)), args.out)


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Returns the result line, and prints it."""
    cores = len(os.sched_getaffinity(0))
    dataset = draw_dataset(folder, args.images, args.height, args.width)
    bytes_per_pixel = os.path.getsize(dataset.path(0)) / (args.height * args.width)
    full, reduced = Augment(min_size=(args.short,)), Augment(min_size=(args.short,), reduced_jpegs=True)
    variants = {"torchvision": PeerDataset(dataset), "ours": DetectionDataset(dataset, 0, full)}
    if (divisor := jpeg_divisor(args.height, args.width, reduced)) > 1:
        variants[f"ours at 1/{divisor}"] = DetectionDataset(dataset, 0, reduced)
    print(f"{args.images} JPEGs of {args.width} x {args.height}, {bytes_per_pixel:.2f} bytes a pixel; {cores} cores", flush=True)
    images_per_s = one_core(dataset, variants, args.rounds)
    line = {"images": args.images, "height": args.height, "width": args.width, "batch": args.batch,
            "step_ms": args.step_ms, "one_core": images_per_s, "ratio": {}, "workers": {}}
    for name, values in images_per_s.items():
        line["ratio"][name] = ratio(values, images_per_s["torchvision"])
        print(f"{name:>14}: {format_spread(spread(values), 1)} images/s of one core, ratio {format_spread(line['ratio'][name])}",
              flush=True)
    for workers in args.workers:
        results = {name: with_workers(examples, dataset, workers, args.batch, args.steps, args.step_ms / 1000)
                   for name, examples in variants.items()}
        line["workers"][workers] = {name: {"images_per_s": pace, "wait": wait} for name, (pace, wait) in results.items()}
        needed = 1000 * args.batch / args.step_ms
        for name, (pace, wait) in results.items():
            print(f"{name:>14}, {workers} workers: {pace:.0f} images/s; steps of {args.step_ms:g} ms ({needed:.0f} images/s) "
                  f"wait {wait:.1%} of the time", flush=True)
        pace, wait = results["ours"]
        if wait > MAX_WAIT:
            print(f"the limit here is {cores} cores, load average {os.getloadavg()[0]:.1f}: with {workers} workers they load "
                  f"{pace:.0f} images/s of {needed:.0f}; steps of {wait * args.step_ms / (1 - wait) / MAX_WAIT:.0f} ms and more "
                  f"would wait less than {MAX_WAIT:.0%}", flush=True)
    return line


if __name__ == "__main__":
    main()
