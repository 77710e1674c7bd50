"""Training steps per second while an evaluation is scored in the background, and without.

    python tests/benchmarks/scoring_beside.py [--rounds 3] [--detections 493000]

The steps are of a small detector with one thread. The scoring is what a run does, at the size of COCO's val2017: metrics,
results.json, detections.json, analysis. Rounds with and without scoring alternate, so that other load on the machine
slows both alike. Needs a second core. Exits 1 if the ratio is below 0.95. Appends a JSON line to
tests/benchmarks/results/scoring_beside.jsonl.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from measuring import append_result
from scoring import draw

from detector.config.load import load_config
from detector.evaluation.scoring import Predictions
from detector.model.faster_rcnn import build_model
from detector.structures import Resize
from detector.training.async_evaluation import BackgroundScorer

MIN_RATIO, MIN_S = 0.95, 10.0
OPTIONS = ["model.backbone=mobilenet_v3_large_fpn", "model.weights=", "model.norm=trained", "model.frozen_stages=0",
           "data.root=/", "run.device=cpu", "run.num_val_images=0", "run.num_workers=1"]


def make_step(config):
    """Returns a function that trains one step of the detector, always on the same drawn images."""
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, 80).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    images = [torch.randint(0, 256, (3, 240, 320), dtype=torch.uint8) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[20.0, 20, 120, 140], [150, 60, 300, 200]]), "labels": torch.tensor([3, 17])}
               for _ in images]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(model(images, targets, Resize(240, 320)).values())).sum().backward()
        optimizer.step()
    return step


def steps_per_s(step, is_running) -> float:
    """Runs steps for as long as `is_running` returns True; returns their number per second."""
    count, started_at = 0, time.monotonic()
    while is_running():
        step()
        count += 1
    return count / (time.monotonic() - started_at)


def wait_for_scoring(scorer: BackgroundScorer) -> None:
    """Waits for scoring and drawing, and takes their results, so that the next evaluation may start."""
    scorer.take_evaluation()
    while scorer.is_drawing():
        time.sleep(0.01)
    scorer.take_drawings()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detections", type=int, default=493_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.yaml").write_text("")
        config = load_config(str(Path(folder) / "empty.yaml"), OPTIONS)
        dataset, detections = draw(5000, 36781, args.detections, 80)
        predictions = Predictions(0, detections, [], np.arange(len(dataset)), (), 1.0, 0.0)
        step, scorer = make_step(config), BackgroundScorer(dataset, config, Path(folder))
        scorer.start(predictions)  # not measured: the first evaluation of a run starts the process
        wait_for_scoring(scorer)
        for _ in range(3):
            step()
        alone, beside, scoring_s = [], [], []
        for number in range(args.rounds):
            end_at = time.monotonic() + MIN_S
            alone.append(steps_per_s(step, lambda: time.monotonic() < end_at))
            started_at = time.monotonic()
            scorer.start(predictions)
            beside.append(steps_per_s(step, scorer.is_drawing))
            wait_for_scoring(scorer)
            scoring_s.append(time.monotonic() - started_at)
            print(f"round {number + 1}: {alone[-1]:.2f} steps/s alone, {beside[-1]:.2f} beside a scoring of "
                  f"{scoring_s[-1]:.1f} s", flush=True)
        scorer.close()
    ratio = statistics.median(beside) / statistics.median(alone)
    print(f"ratio {ratio:.3f} (required: at least {MIN_RATIO})")
    append_result("scoring_beside", {"detections": args.detections, "alone": alone, "beside": beside, "scoring_s": scoring_s,
                                     "ratio": ratio})
    sys.exit(0 if ratio >= MIN_RATIO else 1)


if __name__ == "__main__":
    main()
