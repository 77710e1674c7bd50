"""What is wrong with a config and its data, said before anything runs."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from tqdm import tqdm

from detector.config.schema import Config
from detector.data.batches import epoch_sizes
from detector.data.files import read_image
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
    sizes = epoch_sizes(train.sizes, config.augment.mirrored_copies)
    print(plan_run(config.batch, config.optim, config.schedule, sizes, 0, 1).sentence)
    for problem in problems:
        print(f"problem: {problem}")
    print(f"{len(problems)} problems" if problems else "no problem found")
    return BAD_INPUT if problems else OK


def image_problems(dataset: Dataset) -> list[str]:
    """Every image is read as in training; one sentence for those that are missing, and one for what cannot be used."""
    def problem(index: int) -> tuple[str, str]:
        path = dataset.path(index)
        try:
            read_image(path, tuple(int(side) for side in dataset.sizes[index]))
        except BadInput as error:
            return ("cannot be used", str(error)) if os.path.isfile(path) else ("are missing", path)
        return "", ""

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding lets other threads run
        found = list(tqdm(pool.map(problem, range(len(dataset))), dataset.name, len(dataset), unit="image", leave=False,
                          disable=None))
    remedies = {"are missing": "Bring them, or remove their annotations", "cannot be used": "Mend or remove them"}
    sentences = []
    for what, remedy in remedies.items():
        said = [text for kind, text in found if kind == what]
        more = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
        if said:
            sentences.append(f"{len(said)} images of {dataset.name} {what}: {'; '.join(said[:SHOWN])}{more}. {remedy}")
    return sentences
