"""Fixtures of many tests: a few drawn images, real data sets, and a small and fast detector."""

import os
import signal
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors on many threads are slower, above all on a busy machine

import pytest  # noqa: E402

from detector.data.formats import shapes  # noqa: E402
from detector.distributed.stop_signal import SIGNALS  # noqa: E402

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared" / "data"

# A detector with all parts of a large one, but narrow: a step takes 0.2 s on a CPU core.
TINY = ["model.backbone=resnet18_fpn", "model.weights=", "model.norm=trained", "model.frozen_stages=0",
        "model.fpn_channels=16", "model.box_head_dim=32", "model.anchor_sizes=[[8],[16],[32],[64],[128]]",
        "model.rpn.pre_nms_top_n_train=50", "model.rpn.post_nms_top_n_train=20", "model.rpn.pre_nms_top_n_eval=50",
        "model.rpn.post_nms_top_n_eval=20", "model.rpn.batch_size_per_image=32", "model.roi.batch_size_per_image=16",
        "augment.min_size=[64]", "augment.max_size=128", "evaluate.min_size=64", "evaluate.max_size=128", "evaluate.score_thresh=0.0",
        "evaluate.max_detections=5", "batch.size=4", "batch.micro_batch_size=2", "optim.lr=0.02", "optim.reference_batch_size=4",
        "schedule.epochs=12", "schedule.milestones=[8,11]", "schedule.warmup_steps=2", "evaluate.every_epochs=1",
        "run.device=cpu", "run.num_workers=0", "run.log_every_steps=1", "run.num_val_images=1", "run.plots=false"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the longest tests first, so that parallel test processes end at about the same time."""
    items.sort(key=lambda item: (not item.path.name.startswith("test_slurm"), item.path.parent.name != "whole"))


@pytest.fixture(scope="session", autouse=True)
def signal_handlers() -> dict:
    """Returns the handlers of stop signals before the first test; a fixture of a module may change them before a test begins."""
    return {number: signal.getsignal(number) for number in SIGNALS}


@pytest.fixture(autouse=True)
def restored_signals(signal_handlers):
    """Restores the handlers of stop signals: a verb ignores them when its exit status is known, and child processes inherit that."""
    yield
    for number, handler in signal_handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory) -> Path:
    """Returns the folder of the built-in data set with ten training and five validation images."""
    return draw_shapes(tmp_path_factory.mktemp("shapes") / "shapes")


def draw_shapes(root: Path) -> Path:
    root.mkdir()
    shapes.draw_split(str(root), "train", 10)
    shapes.draw_split(str(root), "val", 5)
    return root


@pytest.fixture
def tiny(shapes_root, tmp_path) -> list[str]:
    """Returns overrides for a run on ten images, in the test's own folder."""
    return [*tiny_run(shapes_root, tmp_path), "run.name=tiny"]


def tiny_run(root: Path, folder: Path) -> list[str]:
    """Returns overrides for runs on the shapes in `root`; run folders and cache are below `folder`."""
    return [*TINY, "data.format=shapes", f"data.root={root}", f"data.cache={folder / 'cache'}", f"run.folder={folder / 'runs'}"]


@pytest.fixture
def config_file(tmp_path) -> Path:
    """Returns an empty config file, for tests that state all options as overrides."""
    path = tmp_path / "empty.yaml"
    path.write_text("")
    return path


@pytest.fixture
def untrained_run(tiny, config_file, tmp_path) -> str:
    """Returns the folder of a run with random weights and classes cat and dog: many detections, with spread scores."""
    import torch

    from detector.config.load import load_config, to_yaml
    from detector.model.faster_rcnn import build_model
    from detector.run import checkpoint_files
    from detector.training import checkpoint
    from detector.training.optimizer import build_optimizer
    config = load_config(str(config_file), tiny)
    torch.manual_seed(0)
    model = build_model(config.model, config.evaluate, 2)
    with torch.no_grad():
        model.roi_heads.box_predictor.cls_score.weight *= 20
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    state = checkpoint.TrainState(model, build_optimizer(model, config.optim), scaler, None, step=7)
    checkpoint_files.write_checkpoint(tmp_path / "run", checkpoint.checkpoint_content(state, config, ("cat", "dog"), 4))
    (tmp_path / "run" / "config.yaml").write_text(to_yaml(config))
    return str(tmp_path / "run")


def shared_data(name: str) -> Path:
    """Returns a folder of real data beside the checkout, or skips the test if it does not exist."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"real data is absent: no folder {name} in shared/data beside the checkout")
    return SHARED / name


@pytest.fixture
def bccd() -> Path:
    return shared_data("bccd")


@pytest.fixture
def coco_tiny() -> Path:
    return shared_data("coco_tiny")


@pytest.fixture
def heads() -> Path:
    return shared_data("heads")
