"""plots/curves.json: the curves and the confusion matrix of the last evaluation, from which plots are drawn."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from detector.run.files import CURVES_FILE, to_json, write_whole

if TYPE_CHECKING:
    from detector.metrics.analysis import Analysis  # imports torch, which drawing plots does not need

DIGITS = 4


def write_curves(run: Path, step: int, analysis: "Analysis") -> None:
    """Writes the curves of an evaluation into the run folder; on a full disk nothing is written."""
    with contextlib.suppress(OSError):
        write_whole(run / CURVES_FILE, to_json(curves_of(step, analysis)) + "\n", flush=False)


def curves_of(step: int, analysis: "Analysis") -> dict:
    """Returns the curves of an evaluation, from which plots are drawn.

    These are step; classes; objects: their number by class; precision: [C][101] at the recalls 0, 0.01 ... 1, at
    IoU 0.5, null where a class has no object; mean_precision: [101]; confusion: [C + 1][C + 1], rows: true class,
    columns: predicted class, 0 is background; best_score: the score threshold of that matrix; f1: at this threshold.
    """
    curves = [[round(float(value), DIGITS) for value in curve] if curve[0] >= 0 else None
              for curve in analysis.precision]
    return {"step": step, "classes": list(analysis.classes),
            "objects": [int(analysis.per_class[name]["objects"]) for name in analysis.classes],
            "precision": curves, "mean_precision": [round(float(value), DIGITS) for value in analysis.mean_precision],
            "confusion": analysis.confusion.tolist(), "best_score": analysis.best_score, "f1": analysis.f1}
