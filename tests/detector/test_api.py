"""The public Python API: every function of `from detector import ...` on the built-in data set."""

import ast
import os
import subprocess
import sys
import typing
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPO

import detector
from detector import BadInput, build_model, coco_metrics, evaluate, load, load_config, read_dataset, train
from detector.distributed.stop_signal import StopRequest
from detector.evaluation.scoring import Evaluation
from detector.structures import Dataset, Detections, Resize
from detector.training.loop import Outcome

PLAIN = """
import signal, sys
import detector
assert "torch" not in sys.modules, "importing the package imports torch"
before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)]
config = detector.load_config(sys.argv[1], sys.argv[2:])
outcome = detector.train(config)
import torch.distributed
assert not torch.distributed.is_initialized(), "one process needs no process group"
after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)]
assert before == after
print("outcome:", outcome.name)
"""
RANKS = """
import sys
from detector import evaluate, load_config, train
config = load_config(sys.argv[1], sys.argv[2:])
train(config)
result = evaluate(f"{config.run.folder}/{config.run.name}", checkpoint="last")
import os
print("rank", os.environ["RANK"], "has", result and result.images, flush=True)
"""


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return subprocess.run([sys.executable, *arguments], cwd=REPO, capture_output=True, text=True, timeout=300,
                          env={**clean, **environment})


def ground_truth_as_detections(dataset: Dataset) -> Detections:
    return Detections(dataset.image_ids[dataset.image_of_box()], dataset.boxes, np.ones(len(dataset.boxes), np.float32),
                      dataset.labels)


@pytest.mark.slow
def test_train_works_in_a_plain_interpreter_and_what_it_wrote_can_be_evaluated_and_loaded(tiny, config_file):
    done = run_python("-c", PLAIN, str(config_file), *tiny, "schedule.steps=2", "run.num_workers=1")
    assert done.returncode == 0 and "outcome: FINISHED" in done.stdout, done.stdout + done.stderr
    config = load_config(str(config_file), tiny)
    run = Path(config.run.folder) / "tiny"
    before = {path: path.stat().st_mtime_ns for path in run.iterdir()}

    result = evaluate(run)
    assert isinstance(result, Evaluation) and (result.step, result.images) == (2, 5) and set(result.metrics) >= {"AP", "AP50"}
    assert evaluate(str(run), ["evaluate.compute_loss=false"], checkpoint="last").metrics.keys() < result.metrics.keys()
    assert {path: path.stat().st_mtime_ns for path in run.iterdir()} == before, "evaluating writes nothing"

    dataset = read_dataset(config.data, "val")
    detections = load(run)(dataset.path(0), score=0.0)
    assert detections.boxes.shape[1] == 4 and set(detections.names) <= set(dataset.classes)
    with pytest.raises(BadInput, match="no such checkpoint|has no checkpoint"):
        load(run, checkpoint=str(run / "none.pt"))


@pytest.mark.slow
def test_train_works_in_every_rank_of_torchrun(tiny, config_file, tmp_path):
    (tmp_path / "script.py").write_text(RANKS)
    done = run_python("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(tmp_path / "script.py"),
                      str(config_file), *tiny, "schedule.steps=1", PYTHONPATH=str(REPO))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rank 0 has 5" in done.stdout and "rank 1 has None" in done.stdout
    assert "2 processes" in (tmp_path / "runs" / "tiny" / "log.txt").read_text()


def test_train_in_this_process_stops_when_its_stop_request_says_so_and_resumes(tiny, config_file):
    config = load_config(str(config_file), [*tiny, "schedule.steps=1", "data.val=[]"])
    stop = StopRequest()
    stop.requested = True
    assert train(config, stop) is Outcome.STOPPED
    assert train(config) is Outcome.FINISHED
    assert train(config) is Outcome.FINISHED, "a finished run stays finished"


def test_a_mistake_is_raised_and_not_an_exit(tiny, config_file):
    with pytest.raises(BadInput, match="data.root=/nowhere: no such folder"):
        train(load_config(str(config_file), [*tiny, "data.format=coco", "data.root=/nowhere"]))
    with pytest.raises(BadInput):
        evaluate("/nowhere")


def test_a_config_may_be_a_path_and_one_override_a_text(config_file):
    assert load_config(Path(config_file), "data.root=/elsewhere").data.root == "/elsewhere"


def test_read_dataset_gives_the_splits_of_the_config_or_any_split(tiny, config_file):
    data = load_config(str(config_file), [*tiny, "data.classes=[star, cross]"]).data
    train_data, val_data, both = read_dataset(data), read_dataset(data, "val"), read_dataset(data, ["val", "train"])
    assert (len(train_data), len(val_data), len(both)) == (10, 5, 15)
    assert train_data.classes == val_data.classes == ("star", "cross") and len(both.classes) == 6
    assert len(read_dataset(load_config(str(config_file), [*tiny, "data.train=[val]"]).data, "train")) == 5
    with pytest.raises(BadInput):
        read_dataset(data, "none")


def test_coco_metrics_of_the_ground_truth_are_1_and_of_nothing_0(tiny, config_file):
    dataset = read_dataset(load_config(str(config_file), tiny).data, "val")
    metrics, per_class = coco_metrics(ground_truth_as_detections(dataset), dataset)
    assert metrics["AP"] == pytest.approx(1) and metrics["AP50"] == pytest.approx(1) and len(metrics) == 12
    assert list(per_class) == list(dataset.classes) and all(values["AP"] in (-1, pytest.approx(1)) for values in per_class.values())
    nothing = Detections(np.zeros(0, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    assert coco_metrics(nothing, dataset)[0]["AP"] == 0


def test_build_model_gives_losses_and_detections(tiny, config_file):
    torch.manual_seed(0)
    model = build_model(load_config(str(config_file), tiny), num_classes=3)
    image = torch.randint(0, 256, (3, 60, 80), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([2])}
    losses = model([image], [target], Resize(64, 128))
    assert set(losses) == {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}
    assert all(loss.isfinite() for loss in losses.values())
    detections, _ = model.eval().predict([image], Resize(64, 128))
    assert detections[0]["boxes"].shape[1] == 4 and len(detections[0]["labels"]) <= 5
    assert model.roi_heads.box_predictor.cls_score.out_features == 4


def test_every_public_name_exists_and_has_type_hints_and_a_docstring():
    for name in detector.__all__:
        value = getattr(detector, name)
        assert value.__doc__
        if not isinstance(value, type):
            hints = value.__annotations__
            assert "return" in hints and set(hints) - {"return"} == set(value.__code__.co_varnames[:value.__code__.co_argcount])


def test_the_types_in_the_signatures_exist():
    """Evaluates the imports below TYPE_CHECKING and every annotation, as a type checker does."""
    tree = ast.parse((REPO / "detector" / "__init__.py").read_text())
    block, = [node for node in tree.body if isinstance(node, ast.If)]
    names = dict(vars(detector))
    exec(compile(ast.Module(block.body, []), "types", "exec"), names)
    for name in detector.__all__:
        if not isinstance(getattr(detector, name), type):
            typing.get_type_hints(getattr(detector, name), names)


def test_the_package_is_typed_and_states_its_version_once():
    project = (REPO / "pyproject.toml").read_text()
    assert (REPO / "detector" / "py.typed").is_file() and (REPO / "launcher" / "py.typed").is_file()
    assert 'dynamic = ["version"]' in project and '\nversion = ' not in project
    assert '[tool.hatch.version]\npath = "detector/__init__.py"' in project
    assert (REPO / "detector" / "__init__.py").read_text().count("__version__ = ") == 1
    assert detector.__version__.count(".") == 2
