"""A training step never synchronizes with the device, so that the host stays ahead of it; its resize follows from the step alone."""

import pytest
import torch
from conftest import TINY
from refuse_waiting import RefuseWaiting

from detector.config.load import load_config
from detector.config.schema import Augment, Config
from detector.model.faster_rcnn import build_model
from detector.model.precision import to_device
from detector.structures import Resize
from detector.training.checkpoint import TrainState
from detector.training.nan_guard import NanGuard
from detector.training.optimizer import build_optimizer, set_lr
from detector.training.step import StepResult, draw_resize, update_weights

RESIZE = Resize(64, 128)


@pytest.fixture
def config(tmp_path):
    (tmp_path / "empty.yaml").write_text("")
    return load_config(str(tmp_path / "empty.yaml"), [*TINY, "data.root=none", "optim.grad_clip_norm=1", "optim.ema_decay=0.9"])


def start(config, device: torch.device) -> TrainState:
    torch.manual_seed(0)
    model, average = (build_model(config.model, config.evaluate, 3).train().to(device) for _ in range(2))
    return TrainState(model, build_optimizer(model, config.optim), torch.amp.GradScaler(device.type, enabled=False),
                      average.requires_grad_(False))


def stacked(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values()))


def batch(device: torch.device) -> tuple[list, list]:
    images = [torch.randint(0, 256, (3, 60, 90), dtype=torch.uint8) for _ in range(2)]
    targets = [{"boxes": torch.tensor([[5., 5, 40, 50], [30, 10, 80, 55]]), "labels": torch.tensor([1, 3])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    if device.type == "cuda":
        images = [image.pin_memory() for image in images]
        targets = [{key: value.pin_memory() for key, value in target.items()} for target in targets]
    return images, targets


def test_the_short_side_of_a_step_is_drawn_from_seed_and_step_alone():
    several = Config(seed=3, augment=Augment(min_size=(640, 672, 704, 736, 768, 800), max_size=1333))
    assert [draw_resize(several, step).min_size for step in range(8)] == [672, 672, 704, 768, 704, 704, 800, 768]
    assert draw_resize(Config(augment=Augment(min_size=(600,), max_size=1000)), 5) == Resize(600, 1000)


def test_backward_clipping_optimizer_average_and_nan_guard_never_synchronize(config):
    """The forward pass is tested in model/test_torchvision_heads.py, on an imagined GPU: a CPU takes other paths."""
    device = torch.device("cpu")
    state, guard = start(config, device), NanGuard(device)
    losses = stacked(state.model(*batch(device), RESIZE))
    before = [weight.detach().clone() for weight in state.model.parameters()]
    set_lr(state.optimizer, 0.01)
    with RefuseWaiting():
        state.scaler.scale(losses.sum()).backward()
        norm = update_weights(state, config)
        guard.watch(StepResult(("loss",) * len(losses), losses.detach(), norm), {})
    assert norm > 1 and any(not torch.equal(a, b) for a, b in zip(before, state.model.parameters()))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_step_never_synchronizes_with_a_gpu(config):
    device = torch.device("cuda", 0)
    state, guard, loaded = start(config, device), NanGuard(device), batch(device)

    def step() -> None:
        images, targets = to_device(*loaded, device)
        losses = stacked(state.model(images, targets, RESIZE))
        state.scaler.scale(losses.sum()).backward()
        guard.watch(StepResult(("loss",) * len(losses), losses.detach(), update_weights(state, config)), {})
    for _ in range(2):
        step()  # the first steps also allocate
    guard.poll(wait=True)
    torch.cuda.synchronize()
    try:
        torch.cuda.set_sync_debug_mode("error")
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
