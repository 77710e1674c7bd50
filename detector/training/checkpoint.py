"""The content of a checkpoint: everything that cannot be recomputed."""

from dataclasses import dataclass

import torch

from detector.config.load import flatten, to_dict
from detector.config.schema import Config
from detector.distributed.rank_info import world_size
from detector.run.checkpoint_files import FORMAT


@dataclass
class TrainState:
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: torch.nn.Module | None
    step: int = 0  # steps done


def content_of(state: TrainState, config: Config, classes: tuple[str, ...], global_batch: int) -> dict:
    """What a checkpoint holds; the tensors are those of the state, not copies."""
    return {"format": FORMAT, "step": state.step, "model": state.model.state_dict(),
            "moments": moments(state), "scaler": state.scaler.state_dict(),
            "ema": state.average.state_dict() if state.average else None, "processes": world_size(),
            "config": to_dict(config), "classes": list(classes), "global_batch": global_batch}


def restore(state: TrainState, content: dict) -> None:
    """Fills the state; rates and decays stay those of the config."""
    state.model.load_state_dict(content["model"])
    for name, weight in state.model.named_parameters():
        if name in content["moments"]:
            # In the weight's own memory layout: the fused step walks both side by side.
            state.optimizer.state[weight] = {key: torch.empty_like(weight).copy_(value)
                                             for key, value in content["moments"][name].items()}
    if content["scaler"]:
        state.scaler.load_state_dict(content["scaler"])
    if state.average is not None:
        state.average.load_state_dict(content["ema"] or content["model"])
    state.step = content["step"]


def moments(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    """The optimiser's memory of each weight, by the weight's name, so that it does not depend on the groups' order."""
    return {name: {key: value for key, value in state.optimizer.state[weight].items() if value is not None}
            for name, weight in state.model.named_parameters() if weight in state.optimizer.state}


def changes(content: dict, config: Config, classes: tuple[str, ...], global_batch: int) -> tuple[list[str], list[str]]:
    """What differs from the run that wrote a checkpoint: what forbids going on with it, and what does not."""
    before, now = flatten(content["config"]), flatten(to_dict(config))
    differ = [f"{key}: {before.get(key)!r} -> {now.get(key)!r}" for key in {**before, **now}
              if before.get(key) != now.get(key)]
    forbidden = [line for line in differ if line.startswith("model.")]
    if content["classes"] != list(classes):
        forbidden.append(f"classes: {', '.join(content['classes'])} -> {', '.join(classes)} (data.classes, data.train)")
    if content["global_batch"] != global_batch:
        forbidden.append(f"batch.size: {content['global_batch']} -> {global_batch} images a step")
    return forbidden, [line for line in differ if line not in forbidden and not line.startswith("run.")]
