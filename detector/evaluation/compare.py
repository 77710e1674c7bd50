"""Two runs on the same validation images: which is better, for which classes and sizes, and is the difference real?"""

from pathlib import Path

import numpy as np

from detector.config.load import load_config
from detector.config.schema import Config
from detector.data.read import describe, read_val
from detector.errors import BadInput
from detector.evaluation.results import classes_of, read_results
from detector.metrics.bootstrap import SIZES, Difference, class_aps, difference, draws, judge, mean_over_classes
from detector.structures import Dataset, Detections

RESAMPLES = 200  # draws of the images; the ends of a 95 % interval then rest on five draws each


def compare(run_a: str, run_b: str, resamples: int = RESAMPLES) -> None:
    """Prints AP of both runs, in all, by size and by class, with a 95 % interval of the difference, from their
    detections.json. Raises BadInput where they were evaluated on other images, classes or by another metric."""
    if resamples < 20:
        raise BadInput(f"--resamples {resamples}: 20 or more, or an interval means nothing")
    configs = [config_of(run) for run in (run_a, run_b)]
    same_question(configs, (run_a, run_b))
    dataset = read_val(configs[0].data, classes_of(run_a))
    found = [read_results(str(Path(run) / "detections.json"), dataset) for run in (run_a, run_b)]
    rows = differences(found[0], found[1], dataset, configs[0].evaluate.metric, resamples)
    print(f"A: {run_a}\nB: {run_b}\non {describe(dataset)}; {resamples} draws of the images\n"
          f"{table(rows)}\n\n{verdict(rows)}")


def config_of(run: str) -> Config:
    for name in ("config.yaml", "detections.json", "results.json"):
        if not (Path(run) / name).is_file():
            raise BadInput(f"{run} has no {name}: compare needs two run folders that were evaluated, as by "
                           "fleet-rcnn evaluate")
    return load_config(str(Path(run) / "config.yaml"), [])


def same_question(configs: list[Config], runs: tuple[str, str]) -> None:
    first, second = configs
    asked = {"data.format": lambda c: c.data.format, "data.root": lambda c: str(Path(c.data.root).resolve()),
             "data.val": lambda c: list(c.data.val), "evaluate.metric": lambda c: c.evaluate.metric}
    wrong = [f"{key} is {get(first)} and {get(second)}" for key, get in asked.items() if get(first) != get(second)]
    classes = [classes_of(run) for run in runs]
    if classes[0] != classes[1]:
        wrong.append(f"classes are {', '.join(classes[0])} and {', '.join(classes[1])}")
    if wrong:
        raise BadInput("these runs answer different questions: " + "; ".join(wrong)
                       + ". Evaluate both on the same images, by the same metric")


def differences(a: Detections, b: Detections, dataset: Dataset, metric: str,
                resamples: int) -> dict[str, Difference]:
    """By name: all, small, medium, large, and each class (in all sizes)."""
    times = draws(len(dataset), resamples)
    rows: dict[str, Difference] = {}
    for size in SIZES:
        aps = [class_aps(judge(found, dataset, metric, size), times, metric) for found in (a, b)]
        rows[size] = difference(*map(mean_over_classes, aps))
        if size == "all":
            of_class = {name: difference(aps[0][:, c], aps[1][:, c]) for c, name in enumerate(dataset.classes)}
    return rows | {f"class {name}": one for name, one in of_class.items()}


def table(rows: dict[str, Difference]) -> str:
    lines = [f"{'AP':>26} {'A':>8} {'B':>8} {'B - A':>8}   95 % of draws"]
    for name, row in rows.items():
        numbers = f"{row.a:8.4f} {row.b:8.4f} {row.b - row.a:+8.4f}   {row.low:+.4f} to {row.high:+.4f}"
        said = "       no object" if np.isnan(row.b - row.a) else numbers + "  *" * row.real
        lines.append(f"{name:>26} {said}")
    return "\n".join(lines)


def verdict(rows: dict[str, Difference]) -> str:
    """One sentence for the whole, and how many classes differ."""
    whole, classes = rows["all"], [row for name, row in rows.items() if name.startswith("class ")]
    better = "B is better" if whole.low > 0 else "A is better" if whole.high < 0 else \
        "no real difference: zero lies within the interval"
    marked = sum(row.real for row in classes)
    return (f"{better}. {marked} of {len(classes)} classes differ by themselves (*); among so many, about "
            f"{0.05 * len(classes):.1f} would by chance")
