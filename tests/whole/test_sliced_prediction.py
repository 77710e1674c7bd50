"""A trained detector detects small objects of a large image in tiles, and few of them in the whole image."""

import json

import numpy as np
import pytest
from PIL import Image
from test_rare_class import OPTIONS, SIDE, build_small, draw_split

from detector import coco_metrics, load, load_config, read_dataset, train
from detector.config.load import run_folder
from detector.model.backbones import BACKBONES, Backbone
from detector.seeding import numpy_random_state
from detector.structures import Detections, build_dataset

GRID = 6  # the large image is so many images high and wide


@pytest.mark.slow
def test_the_ap_of_a_large_image_with_small_objects_rises_with_slicing(tmp_path, config_file, monkeypatch):
    monkeypatch.setitem(BACKBONES, "small", Backbone(build_small, {"0": 8}, ((20,),), num_stages=1))
    (tmp_path / "annotations").mkdir()
    for split, count in (("train", 200), ("val", GRID ** 2)):
        draw_split(tmp_path, split, numpy_random_state(count).randint(1, 3, (count, 2)))
    config = load_config(str(config_file), [*OPTIONS, f"data.root={tmp_path}", f"data.cache={tmp_path}/cache",
                                            f"run.folder={tmp_path}/runs", "run.name=small"])
    train(config)
    val = read_dataset(config.data, "val")
    large, objects = np.zeros((GRID * SIDE, GRID * SIDE, 3), np.uint8), []
    for index in range(len(val)):
        y, x = (SIDE * part for part in divmod(index, GRID))
        large[y:y + SIDE, x:x + SIDE] = np.asarray(Image.open(val.path(index)).convert("RGB"))
        rows = val.rows(index)
        objects += [(0, label, 0, 400, *(box + (x, y, x, y))) for box, label in zip(val.boxes[rows], val.labels[rows])]
    dataset = build_dataset("large", "", list(val.classes), [1, 2], [("large.png", 1, *large.shape[:2])], np.array(objects))
    Image.fromarray(large).save(tmp_path / "large.png")

    detect = load(run_folder(config), device="cpu")
    metrics = {}
    for tile in (0, SIDE):
        detections = detect(tmp_path / "large.png", score=0.05, slice=tile)
        metrics[tile], _ = coco_metrics(Detections(np.ones(len(detections), np.int64), detections.boxes, detections.scores,
                                                  detections.labels), dataset)
    assert all(metrics[SIDE][name] > metrics[0][name] + 0.2 for name in ("AP", "AP50")), json.dumps(metrics)
