"""The verbs `view` and `anchors`: statistics on the terminal, and a page that holds them."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_shapes
from PIL import Image

from detector.config.load import load_config
from detector.data.image_io import GREY
from detector.data.read import read_datasets
from detector.errors import BadInput
from detector.inspection.network_input import first_train_batches, padding_fraction
from detector.inspection.view import anchors, view


def data_of(path: Path) -> dict:
    """Returns the data embedded in a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text()).group(1))


def test_batches_are_those_of_training(tiny, config_file):
    """The same images and boxes, padded to the same size, as in the first steps of a run."""
    config = load_config(str(config_file), [*tiny, "augment.scale_jitter=[0.5,1.5]", "augment.min_size=[48,64,80]"])
    data, _ = read_datasets(config.data)
    batches = first_train_batches(config, data, 6, with_pixels=1)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert batches[0][0].pixels.shape == (*batches[0][0].padded_size, 3) and batches[1][0].pixels is None
    again = first_train_batches(config, data, 6, with_pixels=0)
    for entry, other in zip(sum(batches, []), sum(again, [])):
        assert (entry.index, entry.size, entry.padded_size) == (other.index, other.size, other.padded_size)
        np.testing.assert_array_equal(entry.boxes, other.boxes)
        height, width = entry.size
        assert entry.padded_size[0] >= height and entry.padded_size[1] >= width
        assert entry.padded_size[0] % 32 == entry.padded_size[1] % 32 == 0
        assert (entry.boxes[:, 2] <= width + 0.1).all() and (entry.boxes[:, 3] <= height + 0.1).all()
    assert 0 <= padding_fraction(sum(batches, [])) < 1 and padding_fraction([]) == 1


def test_view_of_data(tiny, config_file, tmp_path, capsys):
    path = view(str(config_file), tiny, str(tmp_path / "out" / "view.html"))
    output, page = capsys.readouterr().out, data_of(path)
    assert "shapes train" in output or "coco train" in output
    assert "object size" in output and "is padding" in output and str(path) in output
    assert sum(row["count"] for row in page["classes"]) == page["objects"] > 0
    assert len(page["histograms"]) == 6 and len(page["batches"]) >= 3
    assert sum(page["histograms"][0]["parts"][0]["counts"]) == 10  # images
    assert all(image["jpeg"] for batch in page["batches"] for image in batch["images"])


def test_view_of_anchors(tiny, config_file, tmp_path, capsys):
    path = anchors(str(config_file), tiny, str(tmp_path / "anchors.html"))
    output, page = capsys.readouterr().out, data_of(path)
    assert "at IoU 0.5" in output and "proposed" in output and page["proposed"]["yaml"] in output
    assert sum(level["objects"] for level in page["levels"]) == sum(row["objects"] for row in page["by_size"]) > 0
    assert page["images"] and 0 <= page["current"]["recall70"] <= page["current"]["recall50"] <= 1
    value = page["proposed"]["yaml"].removeprefix("model: ")
    assert load_config(str(config_file), [*tiny, f"model={value}"]).model.anchor_ratios  # valid as an override


def test_a_run_folder_is_a_config_too(untrained_run, tmp_path):
    assert view(untrained_run, [], str(tmp_path / "view.html")).is_file()


@pytest.mark.parametrize("verb, name", [(view, "tiny-view.html"), (anchors, "tiny-anchors.html")])
def test_a_folder_in_place_of_the_page_is_refused_before_the_data_is_read(verb, name, tiny, config_file, tmp_path):
    with pytest.raises(BadInput, match=re.escape(f"--out {tmp_path} is a folder. Name a file, such as {tmp_path / name}")):
        verb(str(config_file), [*tiny, "data.root=/none"], str(tmp_path))


@pytest.mark.parametrize("policy", ["refuse", "grey"])
@pytest.mark.parametrize("verb, shown", [(view, "shown grey, without objects"), (anchors, "shown grey")])
def test_an_image_that_cannot_be_read_is_noted_and_grey(verb, shown, policy, tiny, config_file, tmp_path, capsys):
    broken = draw_shapes(tmp_path / "broken") / "train" / "00001.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    path = verb(str(config_file), [*tiny, f"data.root={tmp_path / 'broken'}", f"data.unreadable_images={policy}"], str(tmp_path / "v.html"))
    note, = (line for line in capsys.readouterr().out.splitlines() if line.startswith("note: "))
    assert note.startswith(f"note: 1 image could not be read and is {shown}; first: corrupt image {broken}: ")
    assert note.endswith(". Replace or remove it" + (", or set data.unreadable_images=grey" if policy == "refuse" else ""))
    page = data_of(path)
    assert note.partition("first: ")[2] in page["facts"]
    images = [*page.get("images", ()), *(image for batch in page.get("batches", ()) for image in batch["images"])]
    jpeg, = (image["jpeg"] for image in images if image["name"] == broken.name)
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg)))).astype(int)
    assert np.abs(np.median(pixels, axis=(0, 1)) - GREY).max() <= 3


@pytest.mark.parametrize("verb", [view, anchors])
def test_the_data_is_that_of_the_classes_to_learn(verb, tiny, config_file, tmp_path):
    whole = read_datasets(load_config(str(config_file), tiny).data)[0]
    counts = dict(zip(whole.classes, np.bincount(whole.labels, minlength=len(whole.classes) + 1)[1:].tolist()))
    name = max(counts, key=counts.get)
    page = data_of(verb(str(config_file), [*tiny, f"data.classes=[{name}]"], str(tmp_path / "page.html")))
    if verb is view:
        assert page["classes"] == [{"name": name, "count": counts[name]}] and page["objects"] == counts[name]
    else:
        assert sum(row["objects"] for row in page["by_size"]) == counts[name]
    assert any("of other classes were left out" in fact for fact in page["facts"])
    with pytest.raises(BadInput, match=f"unknown class {name}s"):
        verb(str(config_file), [*tiny, f"data.classes=[{name}s]"], str(tmp_path / "none.html"))
    assert not (tmp_path / "none.html").exists()


def test_no_objects_are_no_error_for_data_and_bad_input_for_anchors(tiny, config_file, shapes_root, tmp_path):
    annotations = json.loads((shapes_root / "annotations" / "instances_train.json").read_text())
    annotations["annotations"] = []
    for image in annotations["images"]:
        image["file_name"] = str(shapes_root / "train" / image["file_name"])
    (tmp_path / "bare.json").write_text(json.dumps(annotations))
    overrides = [*tiny, "data.format=coco", f"data.root={tmp_path}", "data.train=bare.json"]
    page = data_of(view(str(config_file), overrides, str(tmp_path / "view.html")))
    assert page["objects"] == 0
    with pytest.raises(BadInput, match="has no object"):
        anchors(str(config_file), overrides, str(tmp_path / "anchors.html"))
    assert not (tmp_path / "anchors.html").exists()
