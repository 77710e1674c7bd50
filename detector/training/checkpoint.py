"""The training state, the content of a checkpoint, and how one is restored.

A checkpoint holds what cannot be recomputed: weights, optimizer state, AMP's loss scale, the moving average and the
step; and the config, classes and data that these belong to. Samplers, schedules and generators have no state.
"""

import copy
from dataclasses import dataclass

import torch

from detector.config.load import to_dict
from detector.config.paths import expand_home
from detector.config.schema import Config
from detector.config.sections import flatten
from detector.data.split import val_share
from detector.distributed.rank_info import world_size
from detector.model.faster_rcnn import Detector, to_device_and_layout
from detector.run.checkpoint_files import FORMAT
from detector.training.optimizer import build_optimizer


@dataclass
class TrainState:
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema_model: torch.nn.Module | None
    step: int = 0  # number of completed steps


def initial_state(model: Detector, config: Config, channels_last: bool, device: torch.device) -> TrainState:
    """Returns the state of a run before its first step. Moves the model to its device, see `to_device_and_layout`."""
    model = to_device_and_layout(model, channels_last, device)
    ema_model = copy.deepcopy(model).requires_grad_(False) if config.optim.ema_decay else None
    scaler = torch.amp.GradScaler(device.type, enabled=config.run.precision == "fp16")
    return TrainState(model, build_optimizer(model, config.optim), scaler, ema_model)


def checkpoint_content(state: TrainState, config: Config, classes: tuple[str, ...], global_batch: int,
                       fingerprints: dict[str, dict] | None = None) -> dict:
    """Returns the content of a checkpoint; its tensors are those of the state, not copies.

    Args:
        fingerprints: of the training and validation data, see data/fingerprint.py.
    """
    return {"format": FORMAT, "step": state.step, "model": state.model.state_dict(),
            "moments": optimizer_state_by_name(state), "scaler": state.scaler.state_dict(),
            "ema": state.ema_model.state_dict() if state.ema_model else None, "processes": world_size(),
            "threads": cpu_threads(next(state.model.parameters()).device),
            "config": to_dict(config), "classes": list(classes), "global_batch": global_batch,
            "fingerprints": fingerprints or {}}


def cpu_threads(device: torch.device) -> int:
    """Returns the threads of PyTorch's operators, on which the rounding of sums depends; 0 on a GPU."""
    return torch.get_num_threads() if device.type == "cpu" else 0


def optimizer_state_by_name(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    """Returns the optimizer's state of each parameter by the parameter's name, independent of parameter groups."""
    return {name: {key: value for key, value in state.optimizer.state[parameter].items() if value is not None}
            for name, parameter in state.model.named_parameters() if parameter in state.optimizer.state}


def restore_state(state: TrainState, content: dict) -> None:
    """Fills the state from the content of a checkpoint; learning rates and weight decay stay those of the config."""
    state.model.load_state_dict(content["model"])
    for name, parameter in state.model.named_parameters():
        if name in content["moments"]:
            device = parameter.device if state.optimizer.defaults.get("fused") else torch.device("cpu")
            state.optimizer.state[parameter] = {key: like_parameter(value, parameter, device)
                                                for key, value in content["moments"][name].items()}
    if content["scaler"]:
        state.scaler.load_state_dict(content["scaler"])
    if state.ema_model is not None:
        state.ema_model.load_state_dict(content["ema"] or content["model"])
    state.step = content["step"]


def like_parameter(value: torch.Tensor, parameter: torch.Tensor, counter_device: torch.device) -> torch.Tensor:
    """Returns a copy in the memory layout of the parameter, as fused kernels need; a counter is copied to a device."""
    if value.shape != parameter.shape:
        return value.to(counter_device, copy=True)
    return torch.empty_like(parameter).copy_(value)


HELD_OUT_BY = ("data.val", "data.train", "seed")  # decide which images are held out where data.val is a share
BEFORE_THEY_EXISTED = {"data.duplicates": "keep"}  # options with which runs of older versions behave as they did


def compare_configs(content: dict, config: Config, classes: tuple[str, ...],
                    global_batch: int) -> tuple[list[str], list[str]]:
    """Compares a config with that of the run that wrote a checkpoint.

    Returns:
        Changes with which the run cannot be resumed, and changes with which it can, one line each.
    """
    now, defaults = flatten(to_dict(config)), {**flatten(to_dict(Config())), **BEFORE_THEY_EXISTED}
    before = {**defaults, **flatten(content["config"])}  # an option that is newer than the checkpoint had its default
    before, now = expand_home(before), expand_home(now)
    changed = {key: f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in before if before[key] != now.get(key)}
    forbidden = [line for key, line in changed.items() if key.startswith("model.") or key == "optim.optimizer"]
    if val_share(tuple(before["data.val"])) or val_share(config.data.val):  # else images would change sides
        forbidden += [line for key, line in changed.items() if key in HELD_OUT_BY]
    if content["classes"] != list(classes):
        forbidden.append(f"classes: {', '.join(content['classes'])} -> {', '.join(classes)} (data.classes, data.train)")
    if content["global_batch"] != global_batch:
        forbidden.append(f"batch.size: {content['global_batch']} -> {global_batch} images a step")
    return forbidden, [line for line in changed.values() if line not in forbidden and not line.startswith("run.")]
