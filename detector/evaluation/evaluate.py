"""Every rank predicts its share of the images; gathered by image id, they are what rank 0 scores."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import torch
from tqdm import tqdm

from detector.config.load import load_config
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset, unreadable_messages
from detector.data.loader import BatchIterator, open_loader
from detector.data.read import describe, drop_ignored, read_val
from detector.data.samplers import plan_eval_batches
from detector.data.synced_batches import FetchPolicy, fetch_batches
from detector.distributed import collectives, process_group, rank_info
from detector.evaluation.scoring import Evaluation, Predictions, format_metrics, score, write_results
from detector.inference.predictor import find_checkpoint, load_detector, predict_batch
from detector.metrics.analysis import Analysis, analyse, describe_errors
from detector.model.faster_rcnn import Detector
from detector.report.report import About, report_evaluation
from detector.run.environment import peak_memory_gib
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset, Detections, Resize, concat_detections


def evaluate(model: Detector, dataset: Dataset, config: Config, device: torch.device, step: int,
             asked: Callable[[], bool] = lambda: False) -> tuple[Evaluation | None, Detections | None, bool]:
    """Collective. Gives (evaluation, detections, stopped): the first two on rank 0, unless `asked` on any rank."""
    predicted = predict_all(model, dataset, config, device, step, asked)
    if predicted is None:
        return None, None, True
    evaluation = collectives.run_on_all_ranks(
        lambda: score(predicted, dataset, config.evaluate) if rank_info.is_main() else None)
    return evaluation, predicted.detections if rank_info.is_main() else None, False


def predict_all(model: Detector, dataset: Dataset, config: Config, device: torch.device, step: int,
                asked: Callable[[], bool], beat: Callable[[str], None] = lambda phase: None) -> Predictions | None:
    """What all ranks found, on every rank; None if any was `asked` to stop. Collective.

    The batches are the same for any number of processes, and so are the detections.
    """
    started_at = time.monotonic()
    model.eval()
    waiting = FetchPolicy(asked, config.data.unreadable_images == "refuse", 60 * config.run.timeout_minutes, beat)
    share = predict_share(model, dataset, config, device, waiting)
    if share is None:
        return None
    detections, losses, seen = gather(share)
    return Predictions(step, detections, losses, seen, tuple(collectives.all_gather_texts(share.unreadable)),
                     time.monotonic() - started_at, peak_memory_gib(device))


@dataclass(frozen=True)
class RankPredictions:
    """What one rank predicted."""

    detections: Detections
    losses: list[dict]     # of each batch: {"batch": its number, "images": how many, "losses": {name: value}}
    seen: np.ndarray       # int64 [I']: indices of the images
    unreadable: list[str]  # images for which a grey picture stood in


def predict_share(model: Detector, dataset: Dataset, config: Config, device: torch.device,
                  waiting: FetchPolicy) -> RankPredictions | None:
    """This rank's batches, in rounds of one batch on each rank; None if any rank was asked to stop."""
    plan = plan_eval_batches(dataset.sizes, config.evaluate.batch_size)
    mine = list(range(rank_info.rank(), len(plan), rank_info.world_size()))
    rounds = -(-len(plan) // rank_info.world_size())  # as many on every rank, so that all ask the same number of times
    keys = [[(0, int(index)) for index in plan[number]] for number in mine]
    examples = DetectionDataset(drop_ignored(dataset, config.data), config.seed, None)
    with open_loader(examples, keys, config.run.num_workers, pin=device.type == "cuda") as loader:
        return predict_rounds(model, dataset, config, device, waiting, loader, mine, rounds)


def predict_rounds(model: Detector, dataset: Dataset, config: Config, device: torch.device, waiting: FetchPolicy,
                   loader: BatchIterator, mine: list[int], rounds: int) -> RankPredictions | None:
    """Batch number mine[0], mine[1], ... as they come from the loader; a rank that has run out still votes."""
    side = Resize(config.evaluate.min_size, config.evaluate.max_size)
    parts, losses, seen, unreadable = [], [], [], []
    for turn in tqdm(range(rounds), "evaluating", unit="batch", leave=False,
                     disable=None if rank_info.is_main() else True):  # None: only on a terminal
        came = fetch_batches(loader, int(turn < len(mine)), waiting)
        if came.stopping:
            return None
        for images, targets in came.batches:
            waiting.beat("evaluating")
            unreadable += unreadable_messages(targets)
            seed_torch(derive_seed(config.seed, "validation", mine[turn]))
            found, loss = predict_batch(model, images, targets if config.evaluate.compute_loss else None, side,
                                        config.run.precision, device)
            indices = [int(target["index"]) for target in targets]
            parts += [flat(dataset.image_ids[index], one) for index, one in zip(indices, found)]
            losses += [{"batch": mine[turn], "images": len(images), "losses": loss}] if loss is not None else []
            seen += indices
    waiting.beat("scoring")
    if collectives.any_rank(waiting.requested())[0]:  # scoring a large data set may take longer than a stop can wait
        return None
    return RankPredictions(concat_detections(parts), losses, np.array(seen, np.int64), unreadable)


def flat(image_id: int, found: dict[str, torch.Tensor]) -> Detections:
    count = len(found["scores"])
    return Detections(np.full(count, image_id, np.int64), found["boxes"].numpy().astype(np.float32),
                      found["scores"].numpy().astype(np.float32), found["labels"].numpy().astype(np.int32))


def gather(share: RankPredictions) -> tuple[Detections, np.ndarray, np.ndarray]:
    """All ranks' shares as one, on every rank, as flat arrays."""
    found = share.detections
    columns = [collectives.all_gather_arrays(column) for column in
               (found.image_ids, found.boxes, found.scores, found.labels, share.seen)]
    losses = [json.loads(text) for text in collectives.all_gather_texts(list(map(json.dumps, share.losses)))]
    return merge([RankPredictions(Detections(*four), [], seen, []) for *four, seen in zip(*columns)], losses)


def merge(shares: list[RankPredictions]) -> tuple[Detections, np.ndarray, np.ndarray]:
    """Detections in the order of image ids, losses in the order of the batches, images seen: whoever had which."""
    joined = concat_detections([share.detections for share in shares])
    order = np.argsort(joined.image_ids, kind="stable")
    return (Detections(joined.image_ids[order], joined.boxes[order], joined.scores[order], joined.labels[order]),
            sorted(losses, key=lambda batch: batch["batch"]), np.concatenate([share.seen for share in shares]))


def evaluate_run(run: str, overrides: list[str], which: str, asked: Callable[[], bool] = lambda: False,
                 report: bool = False) -> bool:
    """Prints the metrics of a run's checkpoint and writes results.json, detections.json and, if asked for, report.html
    into its folder. False, and nothing is written, if any rank was `asked` to stop."""
    path = find_checkpoint(run, which)
    config = load_config(str(Path(run) / "config.yaml"), overrides)
    with process_group.process_group(config.run.device, config.run.timeout_minutes) as device:
        model, config, classes, step = load_detector(path, device, config)
        val = read_val(config.data, classes)
        evaluation, detections, stopped = evaluate(model, val, config, device, step, asked)
        if stopped:
            return False

        def tell() -> None:
            write_results(Path(run), evaluation, detections, val)
            why = analyse(detections, val, config.evaluate.metric)
            print(f"{path}, step {step}, on {describe(val)}\n{format_metrics(evaluation.metrics, why.per_class)}\n\n"
                  f"{describe_errors(why)}\n"
                  f"{evaluation.images_per_s:.1f} images/s; results.json and detections.json are in {run}")
            if report:
                print(write_report(run, config, evaluation, detections, val, why))
        collectives.run_on_main(tell)
        return True


def write_report(run: str, config: Config, evaluation: Evaluation, detections: Detections, dataset: Dataset,
                 why: Analysis) -> str:
    """report.html in the run's folder; gives a sentence about it."""
    about = About(f"{Path(run).resolve().name}: {dataset.name}",
                  (f"{config.model.backbone}, step {evaluation.step}", describe(dataset), *dataset.warnings),
                  f"fleet-rcnn evaluate {run} --report", config.evaluate.nms_thresh,
                  "coco" if config.evaluate.metric == "coco" else "voc")
    return report_evaluation(Path(run) / "report.html", about, dataset, detections, why, evaluation.metrics)
