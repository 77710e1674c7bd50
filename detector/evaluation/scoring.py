"""From what was predicted to an evaluation and its files. It knows neither ranks nor the model, and so may run beside
the training steps."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from detector.config.schema import Evaluate
from detector.metrics import coco_kernel
from detector.metrics.coco import coco_metrics, results
from detector.metrics.visual_genome import visual_genome_metrics
from detector.metrics.voc import voc_metrics
from detector.run.files import write_whole
from detector.structures import Dataset, Detections

METRICS = {"coco": coco_metrics, "voc": voc_metrics, "visual_genome": visual_genome_metrics}
AT_ONCE = 1000  # detections that are turned to JSON before other threads have their turn


@dataclass(frozen=True)
class Predictions:
    """What all ranks together predicted."""

    step: int
    detections: Detections       # in the order of image ids
    losses: list[dict]           # of each batch: {"batch": its number, "images": how many, "losses": {name: value}}
    seen: np.ndarray             # int64 [I]: indices of the images
    unreadable: tuple[str, ...]  # images for which a grey picture stood in
    elapsed_s: float
    peak_memory_gib: float       # of rank 0: of its GPU, or of its process


@dataclass(frozen=True)
class Evaluation:
    step: int
    metrics: dict[str, float]
    per_class: dict[str, dict[str, float]]
    images: int
    images_per_s: float     # predicting, over all processes
    elapsed_s: float        # predicting and scoring
    peak_memory_gib: float  # of rank 0: of its GPU, or of its process
    unreadable: tuple[str, ...]  # images for which a grey picture stood in


def index_ground_truth(dataset: Dataset, metric: str) -> coco_kernel.IndexedGroundTruth | None:
    """What scoring against a data set again and again needs only once; nothing where the metric has no use for it."""
    return coco_kernel.index(dataset) if metric == "coco" else None


def score(predicted: Predictions, dataset: Dataset, config: Evaluate, truth: coco_kernel.IndexedGroundTruth | None = None) -> Evaluation:
    """truth: of index_of, where it was kept. Each image once: asserted, not hoped."""
    started_at = time.monotonic()
    assert np.array_equal(np.sort(predicted.seen), np.arange(len(dataset))), "an image was evaluated twice, or never"
    kept = {"truth": truth} if truth else {}
    metrics, per_class = METRICS[config.metric](predicted.detections, dataset, **kept)
    return Evaluation(predicted.step, metrics | loss_means(predicted.losses), per_class, len(dataset),
                      len(dataset) / predicted.elapsed_s, predicted.elapsed_s + time.monotonic() - started_at,
                      predicted.peak_memory_gib, predicted.unreadable)


def loss_means(losses: list[dict]) -> dict[str, float]:
    """Means over images, by name; nothing where no loss was computed."""
    if not len(losses):
        return {}
    names = list(losses[0]["losses"])
    values = np.array([[batch["losses"][name] for name in names] for batch in losses], np.float64)
    means = np.average(values, axis=0, weights=[batch["images"] for batch in losses])
    return {"loss": float(means.sum()), **dict(zip(names, map(float, means)))}


def write_results(folder: Path, evaluation: Evaluation, detections: Detections, dataset: Dataset) -> None:
    """results.json and detections.json (COCO results format)."""
    rows = results(detections, dataset)
    parts = (json.dumps(rows[first:first + AT_ONCE])[1:-1] for first in range(0, len(rows), AT_ONCE))
    write_whole(folder / "detections.json", f"[{', '.join(parts)}]")
    write_whole(folder / "results.json",
                json.dumps({**asdict(evaluation), "data": dataset.name}, indent=1) + "\n")


def format_metrics(metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> str:
    """Metrics and classes as a person reads them; counts are whole numbers."""
    lines = [f"{name:>24} {format_number(value):>8}" for name, value in metrics.items()]
    keys = list(next(iter(per_class.values()), {}))
    lines += ["", f"{'class':>24} " + " ".join(f"{key:>10}" for key in keys)]
    lines += [f"{name:>24} " + " ".join(f"{values[key]:>10}" if isinstance(values[key], int) else
                                        f"{format_number(values[key]):>10}" for key in keys)
              for name, values in per_class.items()]
    return "\n".join(lines)


def format_number(value: float) -> str:
    """Four digits; - for what does not exist, as AP without an object, for which pycocotools says -1."""
    return "-" if value == -1 else f"{value:.4f}"
