"""A backbone, an optimizer, a data format, a transform, a logger and a launcher backend are each one entry of a dict.

The entries below are those of the README's section 'Extending it', as short; no other file knows them.
"""

import json
import sys
import types

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import nn

from detector import load_config, train
from detector.data.formats import FORMATS, Format
from detector.data.transforms import TRANSFORMS
from detector.loggers import LOGGERS
from detector.loggers.protocol import Logger
from detector.model.backbones import BACKBONES, Backbone, BackboneParts, SingleLevel
from detector.structures import build_dataset
from detector.training.optimizer import OPTIMIZERS
from launcher import backends, cli
from launcher.backends import Backend, JobState


def run(config_file, overrides: list[str], *more: str) -> dict:
    """Trains two steps and returns the last logged one."""
    config = load_config(str(config_file), [*overrides, "schedule.steps=2", "run.num_workers=0", "data.val=[]", *more])
    train(config)
    lines = (json.loads(line) for line in (folder_of(config) / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "train"][-1]


def folder_of(config):
    from detector.config.load import run_folder
    return run_folder(config)


def test_a_backbone(config_file, tiny, monkeypatch):
    class BoxHead(nn.Sequential):
        out_channels = 8

        def forward(self, pooled):
            return super().forward(pooled.flatten(1))

    def build(config):
        layers = nn.Sequential(nn.Conv2d(3, 8, 3, 16, 1), nn.BatchNorm2d(8), nn.ReLU())
        backbone = SingleLevel(*layers)
        backbone.out_channels = 8
        return BackboneParts(backbone, BoxHead(nn.Linear(8 * config.roi_pooling_size ** 2, 8)), [list(layers)])
    monkeypatch.setitem(BACKBONES, "mine", Backbone(build, {"0": 16}, ((16, 32, 64),), num_stages=1))
    line = run(config_file, tiny, "model.backbone=mine", "model.anchor_sizes=[]")
    assert line["step"] == 2 and np.isfinite(line["loss"])


def test_an_optimizer(config_file, tiny, monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "nadam", lambda groups, config: torch.optim.NAdam(groups, lr=config.lr))
    config = load_config(str(config_file), [*tiny, "schedule.steps=2", "run.num_workers=0", "data.val=[]",
                                            "optim.optimizer=nadam"])
    train(config)
    content = torch.load(folder_of(config) / "checkpoints" / "step-00000002.pt", weights_only=True)
    moments = content["moments"]["roi_heads.box_predictor.cls_score.weight"]
    assert set(moments) == {"step", "exp_avg", "exp_avg_sq", "mu_product"} and moments["step"] == 2


def test_an_optimizer_resumes(config_file, tiny, monkeypatch):
    monkeypatch.setitem(OPTIMIZERS, "nadam", lambda groups, config: torch.optim.NAdam(groups, lr=config.lr))
    run(config_file, tiny, "optim.optimizer=nadam")
    line = run(config_file, tiny, "optim.optimizer=nadam", "schedule.steps=3")
    assert line["step"] == 3 and np.isfinite(line["loss"])


def test_a_data_format(config_file, tiny, shapes_root, monkeypatch):
    images = sorted((shapes_root / "train").glob("*.jpg"))

    def read(root, split):
        rows = [(f"train/{path.name}", number, *size_of(path)) for number, path in enumerate(images)]
        objects = [(number, 1, 0, 400, 10, 10, 30, 30) for number in range(len(rows))]
        return build_dataset(f"mine {split}", root, ["thing"], [1], rows, np.array(objects, float))
    monkeypatch.setitem(FORMATS, "mine", Format(read, lambda root, split: []))
    line = run(config_file, tiny, "data.format=mine", f"data.root={shapes_root}")
    assert line["step"] == 2


def size_of(path) -> tuple[int, int]:
    from PIL import Image
    with Image.open(path) as image:
        return image.height, image.width


def test_a_transform(config_file, tiny, monkeypatch):
    calls = []

    def invert(image, boxes, config, generator):
        calls.append(len(boxes))
        return 255 - image, boxes, 1.0
    plain = run(config_file, tiny, "run.name=plain")
    monkeypatch.setitem(TRANSFORMS, "invert", invert)
    assert run(config_file, tiny, "run.name=inverted")["loss"] != plain["loss"] and len(calls) == 8


def test_a_logger(config_file, tiny, monkeypatch):
    logged = []

    class Memory(Logger):
        def __init__(self, folder, step, total_steps):
            logged.append(("start", step, total_steps))

        def scalars(self, kind, step, values):
            logged.append((kind, step, values["loss"]))

        def close(self):
            logged.append("closed")
    monkeypatch.setitem(LOGGERS, "memory", Memory)
    line = run(config_file, tiny)
    assert logged[0] == ("start", 0, 2) and ("train", 2, line["loss"]) in logged and logged[-1] == "closed"


def test_a_launcher_backend(config_file, tiny, monkeypatch, capsys):
    submitted = []
    toy = Backend(
        preflight=lambda job, run, config: [], notes=lambda resources: [], script=lambda launch: "#PBS -N mine\n",
        submit=lambda launch: submitted.append(launch.job.arguments) or 0, queue=lambda: {},
        state=lambda job: JobState("Q", False), cancel=lambda job: None, is_cluster=True)
    module = types.ModuleType("pbs_backend")
    module.PBS = toy
    monkeypatch.setitem(sys.modules, "pbs_backend", module)
    monkeypatch.setitem(backends.BACKENDS, "pbs", "pbs_backend:PBS")
    assert cli.main(["train", str(config_file), *tiny, "--on", "pbs", "--dry-run"]) == 0
    assert "#PBS -N mine" in capsys.readouterr().out and not submitted
    assert cli.main(["train", str(config_file), *tiny, "--on", "pbs", "--gpus", "4"]) == 0
    assert submitted[0][0] == str(config_file)


@pytest.mark.parametrize("option, table", [
    ("model.backbone", BACKBONES), ("optim.optimizer", OPTIMIZERS), ("data.format", FORMATS)])
def test_a_name_that_is_in_no_table_is_refused_before_a_run_starts(option, table, config_file):
    from detector.errors import BadInput
    wrong = next(iter(table)) + "x"
    with pytest.raises(BadInput, match=f"{option}=.*{wrong}.*did you mean {next(iter(table))}"):
        load_config(str(config_file), [*TINY, "data.root=/data", f"{option}={wrong}"])


def test_an_added_name_is_listed_with_the_options_and_in_errors(config_file, monkeypatch, capsys):
    from detector.__main__ import main
    from detector.errors import BadInput
    monkeypatch.setitem(BACKBONES, "mine", BACKBONES["vgg16"])
    main(["options"])
    assert " | swin_t_fpn | mine]" in capsys.readouterr().out
    with pytest.raises(BadInput, match="swin_t_fpn, mine .did you mean mine"):
        load_config(str(config_file), [*TINY, "data.root=/data", "model.backbone=mind"])


def test_names_that_are_checked_without_importing_their_table_are_in_it():
    from detector.config.options import all_options
    from detector.config.parsing import table_keys
    tables = [field.metadata for field in all_options().values() if field.metadata["table"]]
    assert len(tables) == 3
    for metadata in tables:
        assert set(metadata["choices"]) - {"auto"} <= set(table_keys(metadata["table"]))
