"""Training steps per second while an evaluation is scored beside them, and without.

    python tests/benchmarks/scoring_beside.py [--rounds 3] [--detections 493000]

Steps are of a small detector on one core's worth of threads; scoring is what a run does beside them, at the size of
COCO's val2017: metrics, results.json, detections.json, analysis. Rounds with and without take turns, so that whatever
else the machine does slows both alike. It needs a core to spare. Exits 1 if the ratio is below 0.95. Appends a JSON line
to tests/benchmarks/results/scoring_beside.jsonl.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import append
from scoring import draw

from detector.config.load import load_config
from detector.evaluation.scoring import Predictions
from detector.model.faster_rcnn import build_model
from detector.structures import Resize
from detector.training.async_evaluation import Scorer

LEAST_RATIO, LEAST_S = 0.95, 10.0
OPTIONS = ["model.backbone=mobilenet_v3_large_fpn", "model.weights=", "model.norm=trained", "model.frozen_stages=0",
           "data.root=/", "run.device=cpu", "run.num_val_images=0", "run.num_workers=1"]


def stepper(config):
    """A function that takes one training step of the detector, on images drawn once."""
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, 80).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    images = [torch.randint(0, 256, (3, 240, 320), dtype=torch.uint8) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[20.0, 20, 120, 140], [150, 60, 300, 200]]), "labels": torch.tensor([3, 17])}
               for _ in images]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(images, targets, Resize(240, 320)).sum().backward()
        optimizer.step()
    return step


def pace(step, busy) -> float:
    """Steps per second for as long as `busy`."""
    count, started_at = 0, time.monotonic()
    while busy():
        step()
        count += 1
    return count / (time.monotonic() - started_at)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detections", type=int, default=493_000)
    said = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.yaml").write_text("")
        config = load_config(str(Path(folder) / "empty.yaml"), OPTIONS)
        dataset, detections = draw(5000, 36781, said.detections, 80)
        predicted = Predictions(0, detections, np.zeros((0, 6)), np.arange(len(dataset)), (), 1.0, 0.0)
        step, scorer = stepper(config), Scorer(dataset, config, Path(folder))
        scorer.start(predicted)  # its process starts once a run, at the first evaluation
        scorer.wait()
        for _ in range(3):
            step()
        alone, beside, took_s = [], [], []
        for number in range(said.rounds):
            until = time.monotonic() + LEAST_S
            alone.append(pace(step, lambda: time.monotonic() < until))
            started_at = time.monotonic()
            scorer.start(predicted)
            beside.append(pace(step, lambda: not scorer.drawing.done()))
            scorer.wait()
            took_s.append(time.monotonic() - started_at)
            print(f"round {number + 1}: {alone[-1]:.2f} steps/s alone, {beside[-1]:.2f} beside a scoring of "
                  f"{took_s[-1]:.1f} s", flush=True)
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"ratio {ratio:.3f} (at least {LEAST_RATIO} is asked)")
    append("scoring_beside", {"detections": said.detections, "alone": alone, "beside": beside, "scoring_s": took_s, "ratio": ratio})
    sys.exit(0 if ratio >= LEAST_RATIO else 1)


if __name__ == "__main__":
    main()
