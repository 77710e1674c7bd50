"""Annotation files that other programs change or write in their own way: no label gets lost or into another place."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO
from test_layouts import opened, pairs, photographs

from detector.annotation.json_layout import JsonFiles
from detector.annotation.layouts import rounded
from detector.annotation.routes import Site, get
from detector.annotation.voc_layout import VocFiles
from detector.config.schema import Data
from detector.data.formats.voc_xml import read_xml
from detector.data.read import read_splits
from detector.errors import BadInput

NEW = {"key": "", "name": "cat", "box": [1.0, 2.0, 30.0, 39.0]}


def coco_file(root: Path, numbers, annotations=()) -> Path:
    """Writes a COCO file that lists these images; the annotations are (id, number of the image)."""
    content = {"images": [{"id": number + 1, "file_name": f"{number}.png", "width": 60, "height": 40} for number in numbers],
               "categories": [{"id": 1, "name": "cat"}],
               "annotations": [{"id": number, "image_id": image + 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}
                               for number, image in annotations]}
    (root / "annotations.json").write_text(json.dumps(content))
    return root / "annotations.json"


@pytest.mark.parametrize("numbers", [(1, 2), (1, 0, 2), (0, 1, 2, 3)])
def test_a_list_of_images_that_another_program_changes_gives_no_label_to_a_wrong_image(tmp_path, numbers):
    root = photographs(tmp_path, 4)
    coco_file(root, range(3))
    labels = opened(root)
    version = labels.load(0).version
    before = coco_file(root, numbers).read_bytes()
    for call in (lambda: labels.load(0), lambda: labels.save(0, version, True, [NEW])):
        with pytest.raises(BadInput, match="list of images .* start annotate again"):
            call()
    assert (root / "annotations.json").read_bytes() == before


def test_an_annotation_that_undo_brings_back_keeps_an_id_that_no_other_has(tmp_path):
    root = photographs(tmp_path)
    path = coco_file(root, range(3), [(9, 1), (10, 0)])
    labels = opened(root)
    first = labels.load(0)
    deleted = labels.save(0, first.version, True, [])
    other = labels.load(1)
    labels.save(1, other.version, True, [*other.objects, NEW])
    labels.save(0, deleted.version, True, first.objects)
    assert sorted(entry["id"] for entry in json.loads(path.read_text())["annotations"]) == [9, 10, 11]


@pytest.mark.parametrize("ids", [(1, 2), ("1", "2"), (1.0, 2.0), ("001", "2.0"), ("x", 2), (2, "7 y")])
def test_a_new_class_and_a_new_annotation_get_ids_that_no_other_has_also_where_ids_are_texts(tmp_path, ids):
    root = photographs(tmp_path, 2)
    path = coco_file(root, (0, 1), [(ids[0], 0), (ids[1], 1)])
    content = json.loads(path.read_text())
    content["categories"] = [{"id": identifier, "name": name} for identifier, name in zip(ids, ("cat", "dog"))]
    for entry in content["annotations"]:
        entry["category_id"] = entry["id"]
    path.write_text(json.dumps(content))
    labels = opened(root, ["bird"])
    old = labels.load(0)
    labels.save(0, old.version, True, [*old.objects, NEW | {"name": "bird"}])
    again = opened(root)
    assert [name for name, _ in pairs(again.load(0).objects)] == ["cat", "bird"] and pairs(again.load(1).objects)[0][0] == "dog"
    new = json.loads(path.read_text())
    assert new["categories"][-1] == {"id": 3, "name": "bird"} and new["annotations"][1]["id"] == 3


VOC = ("<annotation><object><name>cat</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>{}"
       "</object></annotation>")
PLAIN = "<attribute><name>occluded</name><value>1</value></attribute>"
PART = "<part><name>head</name><bndbox><xmin>11</xmin><ymin>11</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></part >"


@pytest.mark.parametrize("corners", [(30, 11, 11, 40), (11, 40, 30, 11), (30, 40, 11, 11), (11, 11, 30, 40)])
@pytest.mark.parametrize("parts", [("", PART), (PART, ""), ("", "")])
def test_one_edge_of_a_voc_box_moves_also_where_corners_are_swapped_and_a_part_has_the_same_box(tmp_path, corners, parts):
    path = tmp_path / "0.xml"
    path.write_text(VOC.format(parts[0], *corners, parts[1]))
    files = VocFiles([str(path)], ["0.png"], [(60, 80)])
    text, = files.texts(0)
    x1, y1, x2, y2 = files.parse(0, text)[1]
    new = [x1, y1, x2 + 20, y2]
    edited = files.edit(0, text, "cat", new)
    assert files.parse(0, edited) == ("cat", new) and all(part in edited for part in parts)


ROTATION = "<attribute><name>rotation</name><value>90.0</value></attribute>"


@pytest.mark.parametrize("attributes", [ROTATION, ROTATION.replace("rotation", "<![CDATA[rotation]]>"), f"{PLAIN}\n{ROTATION}{PLAIN}"])
def test_a_voc_box_that_cvat_has_turned_is_shown_and_changed_as_it_is_trained_on(tmp_path, attributes):
    path = tmp_path / "0.xml"
    path.write_text(VOC.format("", 11, 31, 50, 40, f"<attributes>{attributes}</attributes>"))
    files = VocFiles([str(path)], ["0.png"], [(60, 80)])
    text, = files.texts(0)
    _, _, *corners = read_xml(str(path)).objects[0]
    assert files.parse(0, text) == ("cat", [corners[0] - 1, corners[1] - 1, *corners[2:]]) and corners[2] - corners[0] == 9
    old = files.parse(0, text)[1]
    assert files.edit(0, text, "dog", old) == text.replace("<name>cat", "<name>dog")
    for new in ([*old[:3], old[3] - 4], [10.0, 20.0, 30.0, 40.0]):
        edited = files.edit(0, text, "cat", new)
        assert files.parse(0, edited) == ("cat", new) and "rotation" not in edited
        assert edited.count(PLAIN) == attributes.count(PLAIN) and "<attributes>" in edited


@pytest.mark.parametrize("rotation, shown", [(90.0, [45, 10, 55, 50]), ("90", [45, 10, 55, 50]), (0.0, [30, 25, 70, 35])])
def test_a_coco_box_that_cvat_has_turned_is_shown_and_changed_as_it_is_trained_on(tmp_path, rotation, shown):
    root = photographs(tmp_path, 2, (100, 80))
    path = coco_file(root, (0, 1), [(1, 0), (2, 1)])
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry.update(bbox=[30, 25, 40, 10], area=400, attributes={"occluded": False, "rotation": rotation})
    content["images"] = [entry | {"width": 100, "height": 80} for entry in content["images"]]
    path.write_text(json.dumps(content))
    labels, data = opened(root), Data(root=str(root), format="coco", cache="")
    first = labels.load(0)
    assert first.objects[0]["box"] == shown == read_splits(data, ("annotations",)).boxes[0].tolist()
    saved = labels.save(0, first.version, True, [first.objects[0] | {"box": [45.0, 10.0, 56.0, 50.0]}])
    assert read_splits(data, ("annotations",)).boxes.tolist() == [saved.objects[0]["box"], shown]
    changed, same = json.loads(path.read_text())["annotations"]
    assert changed["attributes"] == {"occluded": False} and changed["area"] == 440 and same == content["annotations"][1]


@pytest.mark.parametrize("corners", [("nan", 11, 30, 40), (11, "1e300", 30, 40), (11, 11, "inf", "-inf")])
def test_a_voc_box_that_is_not_finite_is_shown_without_sides_and_may_be_drawn_anew(tmp_path, corners):
    path = tmp_path / "0.xml"
    path.write_text(VOC.format("", *corners, ""))
    files = VocFiles([str(path)], ["0.png"], [(60, 80)])
    text, = files.texts(0)
    assert rounded(files.parse(0, text)[1]) == [0, 0, 0, 0]
    assert files.edit(0, text, "dog", [0, 0, 0, 0]) == text.replace("cat", "dog")
    for new in ([0.0, 10.0, 30.0, 40.0], [10.0, 0.0, 30.0, 40.0]):
        assert files.parse(0, files.edit(0, text, "cat", new)) == ("cat", new)


@pytest.mark.parametrize("bbox", ["[NaN, 1, 2, 3]", "[1, 1, Infinity, 3]", '["nan", 1, 2, 3]', "[1, 1e308, 2, 1.7e308]"])
def test_a_coco_box_that_is_not_finite_is_shown_without_sides_and_may_be_drawn_anew(tmp_path, bbox):
    root = photographs(tmp_path, 2)
    path = coco_file(root, (0, 1), [(1, 0), (2, 0)])
    path.write_text(path.read_text().replace("[1, 1, 20, 20]", bbox, 1))
    labels, before = opened(root), path.read_text()
    odd, plain = labels.load(0).objects
    assert json.loads(get(Site(labels), "/labels/0", {})[2])["objects"] == [odd, plain] and odd["box"] == [0, 0, 0, 0]
    saved = labels.save(0, labels.load(0).version, True, [odd, plain, NEW])
    assert bbox in path.read_text()
    saved = labels.save(0, saved.version, True, [odd, plain])
    assert path.read_text() == before
    labels.save(0, saved.version, True, [odd | {"box": [0.0, 2.0, 10.0, 12.0]}, plain])
    changed = json.loads(path.read_text())["annotations"][0]
    assert changed["bbox"] == [0, 2, 10, 10] and changed["area"] == 100


@pytest.mark.parametrize("written", ["001", "1.0", " 1 ", "+1", 1.0])
def test_a_coco_category_is_found_as_in_training_however_its_id_is_written(tmp_path, written):
    root = photographs(tmp_path, 2)
    path = coco_file(root, (0, 1), [(1, 0), (2, 1)])
    content = json.loads(path.read_text())
    content["annotations"][0]["category_id"] = written
    path.write_text(json.dumps(content))
    labels = opened(root, ["dog"])
    assert read_splits(Data(root=str(root), format="coco", cache=""), ("annotations",)).labels.tolist() == [1, 1]
    saved = labels.save(0, labels.load(0).version, True, [*labels.load(0).objects, NEW | {"name": "dog"}])
    assert [entry["name"] for entry in saved.objects] == ["cat", "dog"] == [entry["name"] for entry in opened(root).load(0).objects]
    assert json.loads(path.read_text())["annotations"][0]["category_id"] == written


def test_another_class_leaves_the_names_of_attributes_and_parts(tmp_path):
    path, nested = tmp_path / "0.xml", ("<attributes><attribute><name>occluded</name><value>1</value></attribute></attributes>"
                                        "<attribute><name>pose</name></attribute>")
    path.write_text(VOC.format(f"{nested}<part><name>head</name></part>", 11, 11, 30, 30, ""))
    files = VocFiles([str(path)], ["0.png"], [(60, 80)])
    text, = files.texts(0)
    edited = files.edit(0, text, "dog", files.parse(0, text)[1])
    assert files.parse(0, edited)[0] == "dog" and edited == text.replace("<name>cat</name>", "<name>dog</name>")


def test_the_mark_of_an_empty_image_is_taken_back_wherever_it_stands(tmp_path):
    root = photographs(tmp_path, 2)
    path = coco_file(root, (0, 1))
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["annotated"] = True
    path.write_text(json.dumps(content, sort_keys=True))  # "annotated" comes first
    labels = opened(root)
    assert labels.states == {0: "empty", 1: "empty"}
    labels.save(0, labels.load(0).version, True, [NEW])
    labels.save(1, labels.load(1).version, False, [])
    assert "annotated" not in path.read_text() and opened(root).states == {0: "labelled", 1: "unlabelled"}


def test_a_list_with_an_entry_for_each_object_is_kept_in_step(tmp_path):
    root = photographs(tmp_path)
    (root / "labels").mkdir()
    path = root / "labels" / "0.json"
    path.write_text(json.dumps({"labels": ["cat", "cat"], "boxes": [[1, 1, 9, 9], [2, 2, 9, 9]], "difficult": [0, 1], "size": [1, 2, 3]}))
    (root / "labels" / "1.json").write_text(json.dumps({"labels": [], "boxes": [], "tags": []}))
    labels, before = opened(root), path.read_bytes()
    first = labels.load(0)
    for objects in (first.objects[:1], [*first.objects, NEW]):
        with pytest.raises(BadInput, match="'difficult'"):
            labels.save(0, first.version, True, objects)
    assert path.read_bytes() == before
    labels.save(0, first.version, True, [first.objects[0] | {"box": [3.0, 3.0, 12.0, 12.0]}, first.objects[1]])
    assert json.loads(path.read_text())["difficult"] == [0, 1] and json.loads(path.read_text())["boxes"][0] == [3, 3, 12, 12]
    assert pairs(labels.save(1, labels.load(1).version, True, [NEW]).objects) == [("cat", NEW["box"])]


@pytest.mark.parametrize("kind, points, expected", [
    ("line", [[10, 10], [30, 20]], [[20, 10], [60, 30]]), ("linestrip", [[10, 20], [20, 10], [30, 20]], [[20, 30], [40, 10], [60, 30]]),
    ("polygon", [[10, 10], [30, 10], [30, 20]], [[20, 10], [60, 10], [60, 30]]), ("circle", [[20, 15], [23, 19]], None),
    ("mask", [[10, 10], [30, 20]], None), ("line", [[10, 10], [30, 10]], None)])
def test_shapes_of_labelme_move_with_their_box_or_become_it(tmp_path, kind, points, expected):
    path = tmp_path / "0.json"
    shape = {"label": "cat", "shape_type": kind, "points": points, "flags": {}} | ({"mask": "iVBOR"} if kind == "mask" else {})
    path.write_text(json.dumps({"shapes": [shape]}))
    files = JsonFiles([str(path)])
    text, = files.texts(0)
    box = [20.0, 10.0, 60.0, 30.0]
    new = json.loads(files.edit(0, text, "cat", box))
    assert new["points"] == (expected or [box[:2], box[2:]]) and new["shape_type"] == (kind if expected else "rectangle")
    assert "mask" not in new and files.parse(0, json.dumps(new)) == ("cat", box)
    assert json.loads(files.edit(0, text, "dog", files.parse(0, text)[1])) == shape | {"label": "dog"}


def test_a_list_that_is_as_long_by_chance_is_no_list_of_objects(tmp_path):
    paths = [tmp_path / f"{count}.json" for count in (1, 2)]
    for path, count in zip(paths, (1, 2)):
        path.write_text(json.dumps({"labels": ["cat"] * count, "boxes": [[1, 1, 9, 9]] * count, "size": [20, 30]}))
    files = JsonFiles([str(path) for path in paths])
    two = files.texts(1)
    with pytest.raises(BadInput, match="the list 'size' has an entry for each of the 2 objects.*Remove the list first"):
        files.write(1, two[:1])
    files.texts(0)  # one object, and the list is as long as before
    files.write(1, two[:1])
    assert json.loads(paths[1].read_text()) == {"labels": ["cat"], "boxes": [[1, 1, 9, 9]], "size": [20, 30]}


RACE = """
globalThis.location = {search: "?token=t"}; globalThis.data = {images: [{index: 0, state: "unlabelled"}], serial: 0};
globalThis.addEventListener = () => {}; globalThis.tell = () => {}; globalThis.setInterval = () => {};
const asked = [];
globalThis.fetch = () => new Promise((resolve, reject) => asked.push({resolve, reject}));
const answer = {ok: true, status: 200, json: async () => ({version: "v", labelled: false, objects: [], suggestions: null})};
const script = require("fs").readFileSync(process.argv[1], "utf8").replace('"use strict";', "");
(0, eval)(script + ";globalThis.api = {load, change, labelsOf, newObject}");
(async () => {
  const {load, change, labelsOf, newObject} = api, first = load(0), second = load(0);
  asked[0].resolve(answer);
  await first;
  change(0, [newObject("cat", [1, 1, 9, 9])]);
  asked[2].reject(new TypeError("offline"));  // the box is not saved yet
  await new Promise(resolve => setTimeout(resolve, 5));
  asked[1].resolve(answer);
  await second;
  console.log(labelsOf.get(0).objects.length, labelsOf.get(0).dirty);
})();
"""


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed: answers in another order were not tried")
def test_an_answer_that_comes_late_takes_no_unsaved_box_away():
    script = REPO / "detector" / "annotation" / "page" / "images.js"
    done = subprocess.run(["node", "-e", RACE, str(script)], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1 true\n", done.stdout + done.stderr
