"""A run with the batches of the published tables: it trains, and an interrupted run resumes exactly."""

import json

import pytest
import torch
from processes import run

pytestmark = pytest.mark.whole
TABLE_BATCHES = ["batch.aspect_ratio_groups=static", "batch.crop_to_group=true", "augment.mirrored_copies=true", "augment.hflip_prob=0",
       "augment.max_size=0", "evaluate.max_size=0", "augment.max_boxes=2", "model.pixel_format=caffe",
       "model.roi_pooling=align_original", "schedule.lr_schedule=periodic", "schedule.period=1", "schedule.epochs=1",
       "batch.size=6", "evaluate.every_epochs=0", "run.num_workers=1"]


def train(*overrides: str) -> str:
    (status,), output = run(["-m", "detector", "train", "configs/shapes/demo.yaml", *overrides])
    assert status == 0, output
    return output


def test_a_run_in_two_parts_ends_with_the_same_weights(tiny, tmp_path):
    """Ten images and their mirrored copies are three steps of six; the two widest are left out."""
    output = train(*tiny, *TABLE_BATCHES, "run.name=whole")
    assert "3 steps an epoch; the 2 widest of 20 images are never trained on" in output
    train(*tiny, *TABLE_BATCHES, "run.name=parts", "schedule.steps=1")
    train(*tiny, *TABLE_BATCHES, "run.name=parts", "schedule.steps=3")
    ends = [torch.load(tmp_path / "runs" / name / "checkpoints" / "step-00000003.pt", weights_only=True)["model"]
            for name in ("whole", "parts")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
    losses = [json.loads(line)["loss"] for line in (tmp_path / "runs" / "whole" / "metrics.jsonl").open()
              if "lr" in json.loads(line)]
    assert len(losses) == 3 and all(0 < loss < 100 for loss in losses)
