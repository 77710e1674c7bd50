"""Every row of the tables trains, evaluates and is shown, on a few images in the layout of its data set."""

import json
import subprocess
import sys

import data_trees
import pytest
from conftest import REPO

from detector.__main__ import main
from detector.config.load import load_config
from detector.tables.published import read_published_rows
from launcher.reproduce import training_commands

pytestmark = pytest.mark.whole
# The row's config, but with small images, few proposals, random weights and one step.
SMALL = ["run.device=cpu", "run.num_workers=0", "run.num_val_images=1", "augment.min_size=[64]", "evaluate.min_size=64",
         "evaluate.max_detections=5", "batch.size=2", "batch.micro_batch_size=2", "optim.momentum=0", "model.weights=",
         "model.norm=trained", "model.frozen_stages=0", "model.roi_pooling_size=2", "model.rpn.pre_nms_top_n_train=50",
         "model.rpn.post_nms_top_n_train=20", "model.rpn.pre_nms_top_n_eval=50", "model.rpn.post_nms_top_n_eval=10",
         "model.roi.batch_size_per_image=8", "model.box_head_dim=64"]
TREES = {"voc": data_trees.voc, "coco": data_trees.coco, "deeppcb": data_trees.deeppcb, "vg2500": data_trees.visual_genome,
         "imagenet": data_trees.imagenet_det}


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, str]:
    return {name: str(make(tmp_path_factory.mktemp("trees") / name)) for name, make in TREES.items()}


@pytest.mark.parametrize("row", [row.row for row in read_published_rows()])
def test_a_row_trains_evaluates_and_is_shown(row, roots, tmp_path, capfd):
    root = next(root for name, root in roots.items() if row.startswith(name))
    command, = training_commands(row, 1, 1, [*SMALL, f"data.root={root}", f"data.cache={tmp_path / 'cache'}",
                                     f"run.folder={tmp_path}"])
    assert main(command) == 0, capfd.readouterr().err
    folder = tmp_path / row
    results = json.loads((folder / "results.json").read_text())
    best = load_config(f"tables/{row}").evaluate.best_metric
    assert results["step"] == 1 and -1 <= results["metrics"][best] <= 1 and results["metrics"]["loss"] > 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "evaluation"] and 0 < lines[0]["loss"] < 100
    for path in (folder / "checkpoints").iterdir():
        path.unlink()  # they are large, and there are many rows

    capfd.readouterr()
    assert main(["tables", "--row", row, "--runs", str(tmp_path)]) == 0
    output = capfd.readouterr().out
    assert "measured" in output and "does not count: " in output and "not measured" not in output


def test_the_command_trains_a_row_for_two_seeds_and_shows_it(roots, tmp_path):
    row = "coco-mobilenet-v3-fpn"
    result = subprocess.run([sys.executable, "-m", "launcher.cli", "reproduce", row, "--steps", "1", "--seeds", "2", "--processes",
                           "1", *SMALL, f"data.root={roots['coco']}", f"data.cache={tmp_path}", f"run.folder={tmp_path / 'runs'}"],
                          cwd=REPO, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("finished: 1 of 1 steps") == 2 and result.stdout.count("printed") == 1
    assert "32.8" in result.stdout and "does not count: batch.size: 16 -> 2" in result.stdout
    assert {folder.name for folder in (tmp_path / "runs").iterdir()} == {row, f"{row}-seed1"}
