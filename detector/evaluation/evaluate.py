"""Every rank predicts its share of the images; gathered by image id, they are what rank 0 scores."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from tqdm import tqdm

from detector.config.load import load_config
from detector.config.schema import Config
from detector.data.dataset import Examples, broken
from detector.data.loader import Batches, open_batches
from detector.data.read import describe, read_for_evaluation, without_ignored
from detector.data.samplers import plan_evaluation
from detector.data.synced_batches import Waiting, next_batches
from detector.distributed import collectives, process_group, rank_info
from detector.evaluation.scoring import Evaluation, Predicted, score, table, write_results
from detector.inference.predictor import find_checkpoint, load_detector, predict_batch
from detector.metrics.analysis import Analysis, analyse, describe_errors
from detector.model.faster_rcnn import LOSSES, Detector
from detector.report.report import About, report_evaluation
from detector.run.environment import peak_memory_gib
from detector.seeding import seed_for, seed_torch
from detector.structures import Dataset, Detections, Side, join_detections


def evaluate(model: Detector, dataset: Dataset, config: Config, device: torch.device, step: int,
             asked: Callable[[], bool] = lambda: False) -> tuple[Evaluation | None, Detections | None, bool]:
    """Collective. Gives (evaluation, detections, stopped): the first two on rank 0, unless `asked` on any rank."""
    predicted = predict_all(model, dataset, config, device, step, asked)
    if predicted is None:
        return None, None, True
    evaluation = collectives.together(
        lambda: score(predicted, dataset, config.evaluate) if rank_info.is_main() else None)
    return evaluation, predicted.detections if rank_info.is_main() else None, False


def predict_all(model: Detector, dataset: Dataset, config: Config, device: torch.device, step: int,
                asked: Callable[[], bool], beat: Callable[[str], None] = lambda phase: None) -> Predicted | None:
    """What all ranks found, on every rank; None if any was `asked` to stop. Collective.

    The batches are the same for any number of processes, and so are the detections.
    """
    started_at = time.monotonic()
    model.eval()
    waiting = Waiting(asked, config.data.broken_images == "refuse", 60 * config.run.timeout_minutes, beat)
    share = predict_share(model, dataset, config, device, waiting)
    if share is None:
        return None
    detections, losses, seen = gather(share)
    return Predicted(step, detections, losses, seen, tuple(collectives.gather_texts(share.unreadable)),
                     time.monotonic() - started_at, peak_memory_gib(device))


@dataclass(frozen=True)
class Share:
    """What one rank predicted."""

    detections: Detections
    losses: np.ndarray     # float64 [B, 6]: number of the batch, images in it, four losses
    seen: np.ndarray       # int64 [I']: indices of the images
    unreadable: list[str]  # images for which a grey picture stood in


def predict_share(model: Detector, dataset: Dataset, config: Config, device: torch.device,
                  waiting: Waiting) -> Share | None:
    """This rank's batches, in rounds of one batch on each rank; None if any rank was asked to stop."""
    plan = plan_evaluation(dataset.sizes, config.evaluate.batch)
    mine = list(range(rank_info.rank(), len(plan), rank_info.world()))
    rounds = -(-len(plan) // rank_info.world())  # as many on every rank, so that all ask the same number of times
    keys = [[(0, int(index)) for index in plan[number]] for number in mine]
    examples = Examples(without_ignored(dataset, config.data), config.seed, None)
    with open_batches(examples, keys, config.run.workers, pin=device.type == "cuda") as loader:
        return predict_rounds(model, dataset, config, device, waiting, loader, mine, rounds)


def predict_rounds(model: Detector, dataset: Dataset, config: Config, device: torch.device, waiting: Waiting,
                   loader: Batches, mine: list[int], rounds: int) -> Share | None:
    """Batch number mine[0], mine[1], ... as they come from the loader; a rank that has run out still votes."""
    side = Side(config.evaluate.short_side, config.evaluate.long_side)
    parts, losses, seen, unreadable = [], [], [], []
    for turn in tqdm(range(rounds), "evaluating", unit="batch", leave=False,
                     disable=None if rank_info.is_main() else True):  # None: only on a terminal
        came = next_batches(loader, int(turn < len(mine)), waiting)
        if came.stopping:
            return None
        for images, targets in came.batches:
            waiting.beat("evaluating")
            unreadable += broken(targets)
            seed_torch(seed_for(config.seed, "validation", mine[turn]))
            found, loss = predict_batch(model, images, targets if config.evaluate.loss else None, side,
                                        config.run.precision, device)
            indices = [int(target["index"]) for target in targets]
            parts += [flat(dataset.image_ids[index], one) for index, one in zip(indices, found)]
            losses += [[mine[turn], len(images), *loss.tolist()]] if loss is not None else []
            seen += indices
    waiting.beat("scoring")
    if collectives.any_rank(waiting.asked())[0]:  # scoring a large data set may take longer than a stop can wait
        return None
    return Share(join_detections(parts), np.array(losses, np.float64).reshape(-1, 2 + len(LOSSES)),
                 np.array(seen, np.int64), unreadable)


def flat(image_id: int, found: dict[str, torch.Tensor]) -> Detections:
    count = len(found["scores"])
    return Detections(np.full(count, image_id, np.int64), found["boxes"].numpy().astype(np.float32),
                      found["scores"].numpy().astype(np.float32), found["labels"].numpy().astype(np.int32))


def gather(share: Share) -> tuple[Detections, np.ndarray, np.ndarray]:
    """All ranks' shares as one, on every rank, as flat arrays."""
    found = share.detections
    columns = [collectives.gather_everywhere(column) for column in
               (found.image_ids, found.boxes, found.scores, found.labels, share.losses, share.seen)]
    return merge([Share(Detections(*four), losses, seen, []) for *four, losses, seen in zip(*columns)])


def merge(shares: list[Share]) -> tuple[Detections, np.ndarray, np.ndarray]:
    """Detections in the order of image ids, losses in the order of the batches, images seen: whoever had which."""
    joined = join_detections([share.detections for share in shares])
    order = np.argsort(joined.image_ids, kind="stable")
    losses = np.concatenate([share.losses for share in shares])
    return (Detections(joined.image_ids[order], joined.boxes[order], joined.scores[order], joined.labels[order]),
            losses[np.argsort(losses[:, 0], kind="stable")], np.concatenate([share.seen for share in shares]))


def evaluate_run(run: str, overrides: list[str], which: str, asked: Callable[[], bool] = lambda: False,
                 report: bool = False) -> bool:
    """Prints the metrics of a run's checkpoint and writes results.json, detections.json and, if asked for, report.html
    into its folder. False, and nothing is written, if any rank was `asked` to stop."""
    path = find_checkpoint(run, which)
    config = load_config(str(Path(run) / "config.yaml"), overrides)
    with process_group.process_group(config.run.device, config.run.timeout_minutes) as device:
        model, config, classes, step = load_detector(path, device, config)
        val = read_for_evaluation(config.data, classes)
        evaluation, detections, stopped = evaluate(model, val, config, device, step, asked)
        if stopped:
            return False

        def tell() -> None:
            write_results(Path(run), evaluation, detections, val)
            why = analyse(detections, val, config.evaluate.metric)
            print(f"{path}, step {step}, on {describe(val)}\n{table(evaluation.metrics, why.per_class)}\n\n"
                  f"{describe_errors(why)}\n"
                  f"{evaluation.images_per_s:.1f} images/s; results.json and detections.json are in {run}")
            if report:
                print(write_report(run, config, evaluation, detections, val, why))
        collectives.only_on_main(tell)
        return True


def write_report(run: str, config: Config, evaluation: Evaluation, detections: Detections, dataset: Dataset,
                 why: Analysis) -> str:
    """report.html in the run's folder; gives a sentence about it."""
    about = About(f"{Path(run).resolve().name}: {dataset.name}",
                  (f"{config.model.body}, step {evaluation.step}", describe(dataset), *dataset.faults),
                  f"fleet-rcnn evaluate {run} --report", config.evaluate.nms_iou,
                  "coco" if config.evaluate.metric == "coco" else "voc")
    return report_evaluation(Path(run) / "report.html", about, dataset, detections, why, evaluation.metrics)
