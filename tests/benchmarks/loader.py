"""The loader alone, beside that of torchvision's reference: images/s of one core, and how long a step waits for data.

    python tests/benchmarks/loader.py [--workers 8 2] [--step-ms 100] [--batch 16] [--height 480] [--width 640]

The peer is what references/detection does: a PIL image, a flip by chance, a float tensor. Ours decodes with torchvision.io
and hands uint8 on; with augment.reduced_jpegs, too, where the short side of --short allows it. JPEGs are drawn here, from
a seed, with about as many bytes a pixel as COCO's. Where there is a GPU, batches go into pinned memory, in both.

One core: both read all images, turn by turn. With workers: images/s of whole batches as fast as they come; and then steps
that take --step-ms and no core, as on a GPU: the share of the time that they wait for their batch. 16 images in 100 ms are
160 images/s. Where more than 2 % is waited, it prints what the limit is. Appends a JSON line to
tests/benchmarks/results/loader.jsonl.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import append, in_turns, photographs, ratio, spread, told
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as F

from detector.config.schema import Augment
from detector.data.dataset import DetectionDataset
from detector.data.loader import open_loader
from detector.data.transforms import jpeg_divisor
from detector.structures import Dataset, build_dataset

MOST_WAIT = 0.02
OBJECTS = 7  # an image, as in COCO


class PeerImages(torch.utils.data.Dataset):
    """references/detection/presets.py, DetectionPresetTrain with hflip and its default backend."""

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


def lists(batch: list) -> tuple:
    return tuple(zip(*batch))


def draw(folder: Path, count: int, height: int, width: int) -> Dataset:
    paths, chance = photographs(folder, count, height, width), np.random.RandomState(0)
    first = chance.rand(count * OBJECTS, 2) * [width / 2, height / 2]
    boxes = np.concatenate([first, first + 16 + chance.rand(count * OBJECTS, 2) * [width / 4, height / 4]], axis=1)
    objects = [(i // OBJECTS, 1, 0, 1, *box) for i, box in enumerate(boxes)]
    return build_dataset("drawn", str(folder), ["thing"], [1], [(p.name, i + 1, height, width) for i, p in enumerate(paths)],
                    np.array(objects))


def one_core(dataset: Dataset, sides: dict, rounds: int) -> dict[str, list[float]]:
    """Images/s of each round, by side, in this process and one thread."""
    def reading(source, key):
        def read() -> None:
            for index in range(len(dataset)):
                source[key(index)]
        return read
    turns = {name: reading(source, (lambda i: i) if isinstance(source, PeerImages) else (lambda i: (0, i)))
             for name, source in sides.items()}
    for turn in turns.values():
        turn()  # not measured: files come into the cache of the system
    return {name: [len(dataset) / s for s in seconds] for name, seconds in in_turns(turns, rounds).items()}


def keys_of(dataset: Dataset, batch: int, steps: int) -> list[list[tuple[int, int]]]:
    return [[(step, (step * batch + i) % len(dataset)) for i in range(batch)] for step in range(steps)]


def with_workers(source, dataset: Dataset, workers: int, batch: int, steps: int, step_s: float) -> tuple[float, float]:
    """Images/s as fast as batches come, and the share of the time that steps of `step_s` wait. The first quarter of the
    batches is not counted: what was loaded ahead."""
    start, found, pin = steps // 4, [], torch.cuda.is_available()
    for pause in (0.0, step_s):
        if isinstance(source, PeerImages):
            keys = [[index for _, index in row] for row in keys_of(dataset, batch, steps)]
            batches, close = iter(DataLoader(source, batch_sampler=keys, num_workers=workers, collate_fn=lists,
                                       pin_memory=pin)), None
        else:
            close = open_loader(source, keys_of(dataset, batch, steps), workers, pin)
            batches = close.__enter__()
        waited = 0.0
        for step in range(steps):
            begun_at = time.perf_counter()
            if step == start:
                started_at, waited = begun_at, 0.0
            taken = next(batches)
            waited += time.perf_counter() - begun_at
            time.sleep(pause)
            del taken  # as in a step, which holds its batch until it ends
        elapsed = time.perf_counter() - started_at
        found.append((steps - start) * batch / elapsed if not pause else waited / elapsed)
        if close is not None:
            close.__exit__(None, None, None)
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("images", 200), ("rounds", 5), ("batch", 16), ("steps", 60), ("height", 480), ("width", 640),
                          ("short", 800)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--workers", type=int, nargs="+", default=[8, 2])
    parser.add_argument("--step-ms", type=float, default=100.0)
    parser.add_argument("--out", default="", help="where the JSON line is appended")
    said = parser.parse_args()
    torch.set_num_threads(1)
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        dataset = draw(Path(folder), said.images, said.height, said.width)
        size = os.path.getsize(dataset.path(0)) / (said.height * said.width)
        plain = Augment(min_size=(said.min_size,))
        reduced = Augment(min_size=(said.min_size,), reduced_jpegs=True)
        sides = {"torchvision": PeerImages(dataset), "ours": DetectionDataset(dataset, 0, plain)}
        if (divisor := jpeg_divisor(said.height, said.width, reduced)) > 1:
            sides[f"ours at 1/{divisor}"] = DetectionDataset(dataset, 0, reduced)
        print(f"{said.images} JPEGs of {said.width} x {said.height}, {size:.2f} bytes a pixel; {cores} cores", flush=True)
        paces = one_core(dataset, sides, said.rounds)
        line = {"images": said.images, "height": said.height, "width": said.width, "batch": said.batch,
                "step_ms": said.step_ms, "one_core": paces, "ratio": {}, "workers": {}}
        for name, pace in paces.items():
            line["ratio"][name] = ratio(pace, paces["torchvision"])
            print(f"{name:>14}: {told(spread(pace), 1)} images/s of one core, ratio {told(line['ratio'][name])}", flush=True)
        for workers in said.workers:
            found = {name: with_workers(source, dataset, workers, said.batch, said.steps, said.step_ms / 1000)
                     for name, source in sides.items()}
            line["workers"][workers] = {name: {"images_per_s": pace, "wait": wait} for name, (pace, wait) in found.items()}
            for name, (pace, wait) in found.items():
                print(f"{name:>14}, {workers} workers: {pace:.0f} images/s; steps of {said.step_ms:g} ms "
                      f"({1000 * said.batch / said.step_ms:.0f} images/s) wait {wait:.1%} of the time", flush=True)
            pace, wait = found["ours"]
            if wait > MOST_WAIT:
                asked = 1000 * said.batch / said.step_ms
                print(f"the limit here is {cores} cores, load average {os.getloadavg()[0]:.1f}: with {workers} workers they load "
                      f"{pace:.0f} images/s of {asked:.0f}; steps of {wait * said.step_ms / (1 - wait) / MOST_WAIT:.0f} ms and more "
                      f"would wait less than {MOST_WAIT:.0%}", flush=True)
    append("loader", line, said.out)


if __name__ == "__main__":
    main()
