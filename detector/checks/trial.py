"""The trial of `check`: training and evaluation on the batches that need most memory, and the duration of the run."""

from collections.abc import Sequence

import torch

from detector.checks.problems import CheckReport, Problem, problems_from_error
from detector.checks.progress import show_stage
from detector.config.schema import Config
from detector.data.dataset import DetectionDataset
from detector.data.loader import collate
from detector.data.read import drop_ignored
from detector.errors import BadInput
from detector.inference.predictor import predict_batch
from detector.inference.views import VIEWS
from detector.model.faster_rcnn import build_model
from detector.model.weights.load import load_weights
from detector.run.environment import peak_memory_gib, reset_peak_memory
from detector.seeding import derive_seed, seed_torch
from detector.structures import Dataset, Resize, ceil_div
from detector.training.async_checkpoint import copy_to_host
from detector.training.checkpoint import TrainState, checkpoint_content, initial_state
from detector.training.schedule import RunPlan, evaluation_interval
from detector.training.trial_batches import PaddedBatch, plan_eval_trial, plan_trial
from detector.training.trial_step import is_out_of_memory, run_micro_batch

FORWARD_FRACTION = 1 / 3  # of the time of a training pass: its forward pass


def build_initial_state(config: Config, data: Dataset, device: torch.device, weights: bool,
                        report: CheckReport) -> TrainState | None:
    """Returns the state that the run starts from; None, and a problem, where model or model.weights are impossible.

    Args:
        weights: load model.weights; False: random weights.
    """
    seed_torch(derive_seed(config.seed, "weights"))
    subject = f"model.backbone={config.model.backbone}"
    try:
        model = build_model(config.model, config.evaluate, len(data.classes))
        if weights:
            subject = f"model.weights={config.model.weights}"
            load_weights(model, config.model, data.classes)
    except BadInput as error:
        report.problems += problems_from_error(error, subject)
        return None
    return initial_state(model, config, config.run.channels_last, device)


def checkpoint_bytes(state: TrainState) -> int:
    """Returns the bytes of all tensors of a checkpoint."""
    def count(value) -> int:
        if isinstance(value, dict):
            return sum(map(count, value.values()))
        return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
    return count(checkpoint_content(state, Config(), (), 1))


def run_trial(config: Config, train: Dataset, val: Dataset | None, plan: RunPlan, state: TrainState,
              device: torch.device, processes: int, report: CheckReport) -> None:
    """Trains and evaluates on the batches that need most memory, then trains on the median one to estimate the time.

    A copy of the checkpoint lies in host memory meanwhile, as it does in a run from its first checkpoint on.

    Args:
        train: the images and objects to train on.
        val: the validation images; None: no validation.
    """
    batches = plan_trial(config, train, plan)
    eval_batches = plan_eval_trial(config, val) if val else []
    report.facts["largest_padded_batch"] = describe_batch(batches.largest)
    report.facts["batch_with_most_objects"] = describe_batch(batches.most_objects)
    reset_peak_memory(device)
    batch: PaddedBatch | None = None
    try:
        with show_stage("trial steps"):
            run_micro_batch(config, train, plan, state, device, batch := batches.median)  # fills the optimizer's state
            is_copied = saves_early(config, plan, val)
            host_copy = copy_to_host(checkpoint_content(state, Config(), (), 1)) if is_copied else None
            for batch in batches.heaviest:
                run_micro_batch(config, train, plan, state, device, batch)
            load_s, train_s = run_micro_batch(config, train, plan, state, device, batches.median)
            del host_copy
            batch = None
            for indices in eval_batches:
                evaluate_batch(config, val, state, device, indices)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        report.problems.append(memory_problem(config, batch, device, error))
        return
    report.facts["peak_memory_gib"] = round(peak_memory_gib(device), 3)
    report.facts["estimate"] = estimate_duration(config, plan, processes, len(val) if val else 0,
                                                 len(batches.median.keys), load_s, train_s)


def saves_early(config: Config, plan: RunPlan, val: Dataset | None) -> bool:
    """Returns whether the run writes a checkpoint before its last step, for itself or for an evaluation."""
    interval = evaluation_interval(config.evaluate.every_epochs, plan) if val else plan.total_steps
    return min(config.run.save_every_steps, interval) < plan.total_steps


def describe_batch(batch: PaddedBatch) -> dict:
    """Returns the facts of one batch."""
    return {"step": batch.step, "images": len(batch.keys), "height": batch.height, "width": batch.width,
            "most_objects_of_an_image": batch.objects}


def memory_problem(config: Config, batch: PaddedBatch | None, device: torch.device, error: Exception) -> Problem:
    """Returns the problem of a batch that does not fit; `batch` None: one of the evaluation."""
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else "this machine"
    cause = f"does not fit into the memory of {place} ({str(error).splitlines()[0]})"
    if batch is None:
        return Problem(f"the largest batch of an evaluation, {config.evaluate.batch_size} images", cause,
                       "Set evaluate.batch_size=1, evaluate.compute_loss=false or a smaller evaluate.max_size")
    fewer_objects = ", augment.max_boxes=500" if batch.objects > 500 else ""
    return Problem(
        f"a batch of {len(batch.keys)} images of {batch.width}x{batch.height} pixels, with up to {batch.objects} "
        f"objects in one, at step {batch.step}", cause,
        f"Set batch.micro_batch_size=1 (gradients are accumulated){fewer_objects}, run.precision=bf16 or a smaller "
        "augment.max_size")


def estimate_duration(config: Config, plan: RunPlan, processes: int, val_images: int, images: int, load_s: float,
                      train_s: float) -> dict:
    """Returns the estimated hours of the run, and what they are computed from.

    Args:
        plan: of as many processes.
        images: of the measured micro-batch, which took `load_s` seconds to load and `train_s` to train on.
    """
    data_s = load_s / config.run.num_workers if config.run.num_workers else train_s + load_s
    interval = evaluation_interval(config.evaluate.every_epochs, plan)
    evaluations = ceil_div(plan.total_steps, interval) if val_images else 0
    evaluation_s = val_images / images * train_s * FORWARD_FRACTION * len(VIEWS[config.evaluate.tta]) / processes
    step_with_loading_s = plan.forward_passes * max(train_s, data_s)
    hours = (plan.total_steps * step_with_loading_s + evaluations * evaluation_s) / 3600
    return {"hours": round(hours, 2), "processes": processes, "step_s": round(plan.forward_passes * train_s, 3),
            "step_with_loading_s": round(step_with_loading_s, 3), "load_s": round(load_s, 3),
            "evaluations": evaluations}


def evaluate_batch(config: Config, data: Dataset, state: TrainState, device: torch.device,
                   indices: Sequence[int]) -> None:
    """Predicts one batch as an evaluation does."""
    examples = DetectionDataset(drop_ignored(data, config.data), config.seed, None)
    images, targets = collate([examples[0, int(index)] for index in indices])
    model = state.ema_model or state.model
    model.eval()
    predict_batch(model, images, targets if config.evaluate.compute_loss else None,
                  Resize(config.evaluate.min_size, config.evaluate.max_size), config.run.precision, device,
                  config.evaluate)
