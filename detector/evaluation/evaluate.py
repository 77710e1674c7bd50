"""Evaluates a detector: every rank predicts a part of the images, the detections are gathered, rank 0 scores them."""

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator

import numpy as np
import torch
from tqdm import tqdm

from detector.config.schema import Config
from detector.data.dataset import DetectionDataset, unreadable_messages
from detector.data.loader import BatchIterator, open_loader
from detector.data.read import drop_ignored
from detector.data.samplers import plan_eval_batches
from detector.data.synced_batches import FetchPolicy, fetch_batches
from detector.distributed import collectives, rank_info
from detector.evaluation.scoring import Evaluation, Predictions, score
from detector.inference.predictor import predict_batch
from detector.model.faster_rcnn import Detector
from detector.run.environment import peak_memory_gib
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset, Detections, Resize, ceil_div, concat_detections

OUTPUT_MODULES = ("rpn.head", "roi_heads.box_predictor")  # what detections and proposals are computed from


def never() -> bool:
    """The default of `stop_requested`."""
    return False


def show_bar(batches: range) -> Iterable[int]:
    """Returns the batches with a progress bar, on rank 0 and a terminal only. The default of `track`."""
    return tqdm(batches, "evaluating", unit="batch", leave=False, disable=None if rank_info.is_main() else True)


def evaluate(model: Detector, dataset: Dataset, config: Config, device: torch.device, step: int,
             stop_requested: Callable[[], bool] = never) -> tuple[Evaluation | None, Detections] | None:
    """Predicts all images and scores the detections. Collective.

    Args:
        step: the training step of the model's weights; stored in the result.
        stop_requested: True once this rank has received a stop signal.

    Returns:
        The evaluation (None on ranks other than 0) and all detections; or None if a stop was requested on any rank.

    Raises:
        BadInput: an image cannot be decoded and data.unreadable_images=refuse; or no image can be decoded.
    """
    predictions = predict_all(model, dataset, config, device, step, stop_requested)
    if predictions is None:
        return None
    evaluation = collectives.run_on_all_ranks(
        lambda: score(predictions, dataset, config.evaluate) if rank_info.is_main() else None)
    return evaluation, predictions.detections


def predict_all(model: Detector, dataset: Dataset, config: Config, device: torch.device, step: int,
                stop_requested: Callable[[], bool], mark: Callable[[str], None] = lambda phase: None,
                track: Callable[[range], Iterable[int]] = show_bar) -> Predictions | None:
    """Predicts all images and gathers the result. Collective.

    The batches are the same for any number of ranks, and so are the detections; on CPUs where each process has as many
    threads (OMP_NUM_THREADS), with which the rounding of sums changes.

    Args:
        step, stop_requested: see `evaluate`.
        mark: writes the phase to this rank's heartbeat.
        track: returns the batches of this rank unchanged, and shows how many are done.

    Returns:
        The predictions of all ranks, on every rank; or None if a stop was requested on any rank.
    """
    started_at = time.monotonic()
    model.eval()
    policy = FetchPolicy(stop_requested, config.data.unreadable_images == "refuse", 60 * config.run.timeout_minutes,
                         mark)
    part = predict_rank(model, dataset, config, device, policy, track)
    if part is None:
        return None
    detections, losses, indices = gather(part)
    not_finite = sum(int(count[0]) for count in collectives.all_gather_arrays(np.array([part.not_finite])))
    return Predictions(step, detections, losses, indices, tuple(collectives.all_gather_texts(part.unreadable)),
                       time.monotonic() - started_at, peak_memory_gib(device), not_finite)


@dataclass(frozen=True)
class RankPredictions:
    """The predictions of one rank."""

    detections: Detections
    losses: list[dict]     # of each batch: {"batch": its number, "images": how many, "losses": {name: value}}
    indices: np.ndarray    # int64 [I of this rank], indices of the images that were predicted
    unreadable: list[str]  # messages of images that could not be decoded and were replaced by grey ones
    not_finite: int = 0    # see Predictions.not_finite


def predict_rank(model: Detector, dataset: Dataset, config: Config, device: torch.device, policy: FetchPolicy,
                 track: Callable[[range], Iterable[int]] = show_bar) -> RankPredictions | None:
    """Predicts the batches of this rank: numbers rank, rank + world size, ... Collective, see `predict_rounds`."""
    plan = plan_eval_batches(dataset.sizes, config.evaluate.batch_size)
    batch_numbers = list(range(rank_info.rank(), len(plan), rank_info.world_size()))
    rounds = range(ceil_div(len(plan), rank_info.world_size()))  # the same on every rank: fetch_batches is collective
    keys = [[(0, int(index)) for index in plan[number]] for number in batch_numbers]
    examples = DetectionDataset(drop_ignored(dataset, config.data), config.seed, None)
    with open_loader(examples, keys, config.run.num_workers, device.type == "cuda") as loader:
        return predict_rounds(model, dataset, config, device, policy, loader, batch_numbers, track(rounds))


def predict_rounds(model: Detector, dataset: Dataset, config: Config, device: torch.device, policy: FetchPolicy,
                   loader: BatchIterator, batch_numbers: list[int], rounds: Iterable[int]) -> RankPredictions | None:
    """Predicts one batch in each round; a rank without a batch in the last round still votes. Collective.

    Returns:
        The predictions of this rank; or None if a stop was requested on any rank.
    """
    resize = Resize(config.evaluate.min_size, config.evaluate.max_size)
    parts, losses, indices, unreadable, not_finite = [], [], [], [], 0
    for index in rounds:
        fetched = fetch_batches(loader, int(index < len(batch_numbers)), policy)
        if fetched.stop_requested:
            return None
        for images, targets in fetched.batches:
            policy.mark("evaluating")
            unreadable += unreadable_messages(targets)
            seed_torch(derive_seed(config.seed, "validation", batch_numbers[index]))
            with watch_outputs(model) as are_finite:
                outputs, batch_losses = predict_batch(model, images, targets if config.evaluate.compute_loss else None,
                                                      resize, config.run.precision, device, config.evaluate)
            batch_indices = [int(target["index"]) for target in targets]
            parts += [to_detections(dataset.image_ids[image], output) for image, output in zip(batch_indices, outputs)]
            if batch_losses is not None:
                losses.append({"batch": batch_numbers[index], "images": len(images), "losses": batch_losses})
            indices += batch_indices
            not_finite += 0 if all(are_finite) else len(images)
    policy.mark("scoring")
    if collectives.any_rank(policy.stop_requested())[0]:  # scoring may take longer than a stop can wait
        return None
    return RankPredictions(concat_detections(parts), losses, np.array(indices, np.int64), unreadable, not_finite)


@contextmanager
def watch_outputs(model: Detector) -> Iterator[list[torch.Tensor]]:
    """Gives a list to which each call of the RPN's head and the box predictor appends whether its outputs are finite.

    Detections cannot tell: a score that is NaN is above no threshold.
    """
    are_finite: list[torch.Tensor] = []  # bool [] each, on the device

    def watch(_module, _inputs, outputs) -> None:
        tensors = [tensor for part in outputs for tensor in (part if isinstance(part, list) else [part])]
        are_finite.append(torch.stack([tensor.sum() for tensor in tensors]).isfinite().all())
    hooks = [module.register_forward_hook(watch) for name, module in model.named_modules() if name in OUTPUT_MODULES]
    try:
        yield are_finite
    finally:
        for hook in hooks:
            hook.remove()


def to_detections(image_id: int, output: dict[str, torch.Tensor]) -> Detections:
    """Converts the model's output for one image (boxes [K, 4], scores [K], labels [K]) to Detections."""
    count = len(output["scores"])
    return Detections(np.full(count, image_id, np.int64), output["boxes"].numpy().astype(np.float32),
                      output["scores"].numpy().astype(np.float32), output["labels"].numpy().astype(np.int32))


def gather(part: RankPredictions) -> tuple[Detections, list[dict], np.ndarray]:
    """Returns what `merge` makes of the predictions of all ranks, on every rank. Collective."""
    detections = part.detections
    columns = [collectives.all_gather_arrays(column) for column in
               (detections.image_ids, detections.boxes, detections.scores, detections.labels, part.indices)]
    losses = [json.loads(text) for text in collectives.all_gather_texts([json.dumps(batch) for batch in part.losses])]
    return merge([RankPredictions(Detections(*arrays), [], indices, []) for *arrays, indices in zip(*columns)], losses)


def merge(parts: list[RankPredictions], losses: list[dict]) -> tuple[Detections, list[dict], np.ndarray]:
    """Merges the predictions of several ranks. The result does not depend on which rank predicted which batch.

    Args:
        losses: of the batches of all ranks, in any order.

    Returns:
        Detections ordered by image id, losses ordered by batch number, and the indices of the images, int64 [I].
    """
    detections = concat_detections([part.detections for part in parts])
    order = np.argsort(detections.image_ids, kind="stable")
    return (Detections(detections.image_ids[order], detections.boxes[order], detections.scores[order],
                       detections.labels[order]),
            sorted(losses, key=lambda batch: batch["batch"]), np.concatenate([part.indices for part in parts]))
