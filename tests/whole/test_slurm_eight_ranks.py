"""The 8-GPU job on COCO that the README shows, rehearsed with eight CPU ranks on two nodes of a real Slurm."""

import json

import numpy as np
import pytest
from conftest import TINY
from disturbances import lose_a_node
from PIL import Image
from slurm_cluster import assert_same_end, log, reached, until
from slurm_fixtures import cluster, needs_slurm  # noqa: F401

pytestmark = needs_slurm
STEPS, IMAGES = 8, {"train": 16, "val": 7}  # seven images on eight ranks: one rank evaluates none
SIZES = [(96, 64), (64, 96), (80, 80)]      # width, height: both aspect-ratio groups
CATEGORIES = {1: "person", 18: "dog", 90: "toothbrush"}  # ids with gaps, as COCO's


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory):
    """Returns a folder in the layout of COCO 2017, with crowds, an image without objects and category ids with gaps."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    for split, count in IMAGES.items():
        (root / f"{split}2017").mkdir()
        images, annotations = [], []
        for image_id in range(1, count + 1):
            (width, height), name = SIZES[image_id % 3], f"{image_id:012d}.jpg"
            pixels = rng.integers(0, 80, (height, width, 3), np.uint8)
            for _ in range(image_id % 4):  # every fourth image has no object
                x, y, w, h = (int(value) for value in (*rng.integers(0, 40, 2), *rng.integers(12, 24, 2)))
                category = list(CATEGORIES)[int(rng.integers(3))]
                pixels[y:y + h, x:x + w] = 80 + category
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, "category_id": category,
                                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": int(len(annotations) == 5)})
            Image.fromarray(pixels).save(root / f"{split}2017" / name, quality=95)
            images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
        (root / "annotations" / f"instances_{split}2017.json").write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return root


def test_eight_ranks_on_two_nodes_survive_the_loss_of_one_and_end_with_the_bits_of_torchrun(cluster, coco_root, tmp_path):
    arguments = ["coco/resnet50_fpn", *TINY, "augment.min_size=[96]", "batch.size=8", "batch.micro_batch_size=1",
                 f"data.root={coco_root}", f"data.cache={tmp_path / 'cache'}", f"run.folder={tmp_path}", f"schedule.steps={STEPS}",
                 "run.save_every_steps=1", f"evaluate.every_epochs={STEPS}"]
    cluster.fleet("train", *arguments, "run.name=torchrun", "--on", "torchrun", "--processes", "8")
    run = tmp_path / "slurm"
    job = cluster.submit(*arguments, "run.name=slurm", "--on", "slurm", "--nodes", "2", "--processes", "4")
    until(lambda: reached(run, 3), 120, lambda: log(run))
    before = cluster.restarts(job)
    lose_a_node(cluster, job)
    until(lambda: cluster.restarts(job) > before, 120, lambda: log(run))
    assert cluster.wait(job, run, 240) == "COMPLETED", log(run)
    assert_same_end(run, tmp_path / "torchrun", STEPS)
    assert "restart 1 of 100" in log(run) and "rank" in log(run)

    of_eight_ranks = json.loads((run / "results.json").read_text())["metrics"]
    detections_of_eight = (run / "detections.json").read_text()
    cluster.fleet("evaluate", str(run), "--checkpoint", "last", "--processes", "1")
    assert json.loads((run / "results.json").read_text())["metrics"] == of_eight_ranks
    assert (run / "detections.json").read_text() == detections_of_eight
