"""What is wrong with a config and its data, said before anything runs."""

import os

import numpy as np

from detector.config.schema import Config
from detector.data.files import image_size
from detector.data.read import describe, for_training, read_datasets
from detector.errors import BAD_INPUT, OK, BadInput
from detector.optim import plan_run
from detector.records import Dataset

SHOWN = 5  # examples of one kind


def check(config: Config) -> int:
    """Prints what there is and what is wrong with it; gives the exit status: 0, or 2 with something to mend."""
    whole, val = read_datasets(config.data)
    train = for_training(whole, config.data)
    problems = []
    for dataset in [whole, *([val] if val else [])]:
        print(describe(dataset))
        counts = np.bincount(dataset.labels, minlength=len(dataset.classes) + 1)[1:]
        print("  objects of each class: " + ", ".join(f"{name} {n}" for name, n in zip(dataset.classes, counts)))
        for fault in dataset.faults:
            print(f"  mended while reading: {fault}")
        problems += image_problems(dataset)
    if val is None:
        print("no validation: data.val is empty")
    print(plan_run(config.batch, config.optim, config.schedule, train.sizes, 0, 1).sentence)
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{len(problems)} problems" if problems else "no problem found")
    return BAD_INPUT if problems else OK


def image_problems(dataset: Dataset) -> list[str]:
    """Images that are missing, cannot be opened, or have another size than annotated: one sentence for each kind."""
    missing, unreadable, sizes = [], [], []
    for index in range(len(dataset)):
        path, annotated = dataset.path(index), tuple(int(side) for side in dataset.sizes[index])
        if not os.path.isfile(path):
            missing.append(path)
            continue
        try:
            size = image_size(path)
        except BadInput as error:
            unreadable.append(str(error))
            continue
        if annotated not in (size, size[::-1]):  # swapped: the boxes were drawn on the unturned photograph
            sizes.append(f"{path} is {size[1]}x{size[0]}, annotated {annotated[1]}x{annotated[0]}")
    return [f"{len(found)} {what} in {dataset.name}: {'; '.join(found[:SHOWN])}"
            + f"{'; ...' * (len(found) > SHOWN)}. {remedy}" for found, what, remedy in
            ((missing, "image files are missing", "Bring them, or remove their annotations"),
             (unreadable, "images cannot be opened", "Replace or remove them, or set data.broken_images=grey"),
             (sizes, "images have another size than annotated", "Bring the images that were annotated")) if found]
