"""The view of a data set and of anchors: numbers on the terminal, and a page that holds them all."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from detector.config.load import load_config
from detector.data.read import read_datasets
from detector.errors import BadInput
from detector.inspection.network_input import padding, see_batches
from detector.inspection.view import view


def data_of(path: Path) -> dict:
    """What is embedded in a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text()).group(1))


def test_batches_are_those_of_training(tiny, config_file):
    """The same images with the same boxes, on the same canvas, as the first steps of a run would get."""
    config = load_config(str(config_file), [*tiny, "augment.scale_jitter=[0.5,1.5]", "augment.min_size=[48,64,80]"])
    data, _ = read_datasets(config.data)
    batches = see_batches(config, data, 6, with_pixels=1)
    assert [len(batch) for batch in batches] == [2, 2, 2] and batches == batches
    assert batches[0][0].pixels.shape == (*batches[0][0].canvas, 3) and batches[1][0].pixels is None
    again = see_batches(config, data, 6, with_pixels=0)
    for one, other in zip(sum(batches, []), sum(again, [])):
        assert (one.index, one.size, one.canvas) == (other.index, other.size, other.canvas)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        height, width = one.size
        assert one.canvas[0] >= height and one.canvas[1] >= width and one.canvas[0] % 32 == one.canvas[1] % 32 == 0
        assert (one.boxes[:, 2] <= width + 0.1).all() and (one.boxes[:, 3] <= height + 0.1).all()
    assert 0 <= padding(sum(batches, [])) < 1 and padding([]) == 1


def test_view_of_data(tiny, config_file, tmp_path, capsys):
    path = view(str(config_file), tiny, str(tmp_path / "out" / "view.html"))
    said, page = capsys.readouterr().out, data_of(path)
    assert "shapes train" in said or "coco train" in said
    assert "object side" in said and "is padding" in said and str(path) in said
    assert sum(one["count"] for one in page["classes"]) == page["objects"] > 0
    assert len(page["histograms"]) == 6 and len(page["batches"]) >= 3
    assert sum(page["histograms"][0]["parts"][0]["counts"]) == 10  # images
    assert all(image["jpeg"] for batch in page["batches"] for image in batch["images"])


def test_view_of_anchors(tiny, config_file, tmp_path, capsys):
    path = view("anchors", [str(config_file), *tiny], str(tmp_path / "anchors.html"))
    said, page = capsys.readouterr().out, data_of(path)
    assert "reached at IoU 0.5" in said and "proposed" in said and page["proposal"]["yaml"] in said
    assert sum(level["objects"] for level in page["levels"]) == sum(row["objects"] for row in page["by_side"]) > 0
    assert page["pictures"] and 0 <= page["now"]["seven"] <= page["now"]["half"] <= 1
    value = page["proposal"]["yaml"].removeprefix("model: ")
    assert load_config(str(config_file), [*tiny, f"model={value}"]).model.anchor_ratios  # it can be taken as it stands


def test_a_run_folder_is_a_config_too(untrained_run, tmp_path):
    assert view(untrained_run, [], str(tmp_path / "view.html")).is_file()


@pytest.mark.parametrize("words", [[], ["seed=1"]])
def test_anchors_of_nothing(words):
    with pytest.raises(BadInput, match="of which config"):
        view("anchors", words)


def test_no_objects_are_no_error_for_data_and_bad_input_for_anchors(tiny, config_file, shapes_root, tmp_path):
    said = json.loads((shapes_root / "annotations" / "instances_train.json").read_text())
    said["annotations"] = []
    for image in said["images"]:
        image["file_name"] = str(shapes_root / "train" / image["file_name"])
    (tmp_path / "bare.json").write_text(json.dumps(said))
    words = [*tiny, "data.format=coco", f"data.root={tmp_path}", "data.train=bare.json"]
    page = data_of(view(str(config_file), words, str(tmp_path / "view.html")))
    assert page["objects"] == 0
    with pytest.raises(BadInput, match="has no object"):
        view("anchors", [str(config_file), *words], str(tmp_path / "anchors.html"))
    assert not (tmp_path / "anchors.html").exists()
