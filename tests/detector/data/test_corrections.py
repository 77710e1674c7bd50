"""Corrections of annotations of any format: boxes as fractions, swapped corners, duplicates."""

import numpy as np
import pytest
from small_layouts import LINE, coco, options, text, voc, yolo

from detector.data.corrections import fix_duplicates, fix_swapped_corners, scale_fractions
from detector.data.read import read_datasets, read_splits
from detector.errors import BadInput
from detector.structures import CROWD, build_dataset

NAN = float("nan")


def drawn(boxes, paths=("a.jpg",), image=None, label=None, flags=None, size=(50, 100), areas=None):
    """Returns a Dataset with these boxes; image, label and flags: of each box, default: 0, 1 and 0."""
    count = len(boxes)
    columns = [image or [0] * count, label or [1] * count, flags or [0] * count, areas or [0.01] * count]
    objects = np.column_stack([np.array(columns, float).reshape(4, -1).T, np.array(boxes, float).reshape(-1, 4)])
    return build_dataset("drawn", "/data", ["cat", "dog"], [1, 2], [(path, number, *size) for number, path in enumerate(paths)],
                         objects)


def test_boxes_in_the_first_pixel_are_fractions_of_width_and_height():
    dataset, = scale_fractions([drawn([[0, 0, 1, 1.0005], [0.25, 0.5, 0.5, 0.75]])])
    assert dataset.boxes.round(3).tolist() == [[0, 0, 100, pytest.approx(50.025, abs=1e-3)], [25, 25, 50, 37.5]]
    assert dataset.areas.tolist() == [50, 50]
    assert dataset.warnings[0].startswith("2 boxes lie in the first pixel of their image: they were read as fractions")
    assert "[0, 0, 1, 1.0005] (cat) in /data/a.jpg, 100x50 pixels" in dataset.warnings[0]


def test_fractions_that_reach_outside_are_fractions_still():
    assert scale_fractions([drawn([[0, 0, 0.5, 0.5], [0.5, 0.5, 1.25, 0.75]])])[0].boxes[1].tolist() == [50, 25, 125, 37.5]


def test_where_only_some_boxes_lie_there_they_are_kept_and_noted():
    dataset, = scale_fractions([drawn([[3, 4, 30, 40], [0.25, 0.5, 0.5, 0.75]])])
    assert dataset.boxes[1].tolist() == [0.25, 0.5, 0.5, 0.75]
    assert dataset.warnings[0].startswith("1 of 2 boxes lie in the first pixel of their image, as fractions") and len(dataset.warnings) == 1
    assert "If they are fractions, multiply them by width and height" in dataset.warnings[0]


@pytest.mark.parametrize("dataset", [
    drawn([]), drawn([[0, 0, 0, 0]]), drawn([[1, 2, 30, 40]]), drawn([[0, 0, 1, 1]], size=(4, 8)), drawn([[NAN] * 4]),
    drawn([[3, 4, 30, 40], [0, 0, 1, 1]]), drawn([[5, 5, 5.5, 5.5]])])
def test_other_boxes_are_pixels(dataset):
    assert scale_fractions([dataset])[0] is dataset


def test_swapped_corners_are_swapped_back_left_out_or_refused():
    dataset = drawn([[30, 40, 10, 20], [1, 2, 3, 4], [30, 2, 10, 40], [NAN, 0, 1, 1]], areas=[0, 4, 7, 0])
    fixed = fix_swapped_corners(dataset, "clip")
    assert fixed.boxes[:3].tolist() == [[10, 20, 30, 40], [1, 2, 3, 4], [10, 2, 30, 40]]
    assert fixed.areas[:3].tolist() == [400, 4, 7], "an annotated area stays"
    assert fixed.warnings[0].startswith("2 boxes with swapped corners were corrected; first: [30, 40, 10, 20] (cat)")
    dropped = fix_swapped_corners(dataset, "drop")
    assert dropped.boxes[0].tolist() == [1, 2, 3, 4] and "2 boxes with swapped corners were left out" in dropped.warnings[0]
    with pytest.raises(BadInput, match=r"2 boxes with swapped corners in drawn \(data.invalid_boxes=refuse\)"):
        fix_swapped_corners(dataset, "refuse")
    assert fix_swapped_corners(fixed, "refuse") is fixed


@pytest.mark.parametrize("boxes, is_likely", [
    ([[60, 50, 30, 20], [40, 9, 20, 30], [1, 2, 3, 4]], True), ([[60, 50, 30, 20], [1, 2, 3, 4]], False)])
def test_boxes_of_which_most_are_swapped_may_be_widths_and_heights(boxes, is_likely):
    assert ("they are [x, y, width, height]" in fix_swapped_corners(drawn(boxes), "clip").warnings[0]) == is_likely


def test_an_image_that_is_listed_again_counts_once():
    boxes = [[1, 2, 3, 4], [5, 6, 7, 8]] * 2
    dataset = drawn(boxes, ("a.jpg", "b.jpg", "./x/../a.jpg"), [0, 0, 2, 2])
    fixed = fix_duplicates(dataset, "drop")
    assert fixed.paths.tolist() == [b"a.jpg", b"b.jpg"] and fixed.boxes.tolist() == boxes[:2]
    assert fixed.warnings == ("1 image is listed again; first: /data/./x/../a.jpg; each counts once",)
    assert fix_duplicates(dataset, "keep") is dataset
    with pytest.raises(BadInput, match=r"duplicates in drawn \(data.duplicates=refuse\): 1 image is listed again"):
        fix_duplicates(dataset, "refuse")


def test_entries_of_an_image_with_different_objects_are_joined():
    dataset = drawn([[9, 9, 20, 20], [1, 2, 3, 4], [5, 6, 7, 8]], ("a.jpg", "b.jpg", "a.jpg"), [1, 0, 2], [2, 1, 1])
    fixed = fix_duplicates(dataset, "drop")
    assert fixed.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 20, 20]] and fixed.labels.tolist() == [1, 1, 2]
    assert fixed.offsets.tolist() == [0, 2, 3]
    assert "in 1 of them the entries have different objects, which all count" in fixed.warnings[0]


def test_of_exactly_equal_objects_the_first_counts():
    box = [1, 2, 3, 4]
    dataset = drawn([box, box, box, box, [1, 2, 3, 4.5], [-0.0, 2, 3, 4], [0.0, 2, 3, 4]], ("a.jpg", "b.jpg"),
                    [0, 0, 1, 0, 0, 0, 0], [1, 1, 1, 2, 1, 1, 1], [0, 0, 0, 0, 0, CROWD, CROWD])
    fixed = fix_duplicates(dataset, "drop")
    assert fixed.boxes_per_image().tolist() == [4, 1] and fixed.labels.tolist() == [1, 2, 1, 1, 1]
    assert fixed.warnings[0].startswith("2 objects are annotated again, exactly equal; first: [1, 2, 3, 4] (cat) in /data/a.jpg")


@pytest.mark.parametrize("policy", ["drop", "keep", "refuse"])
def test_data_without_duplicates_stays_as_it_is(policy):
    for dataset in (drawn([]), drawn([[1, 2, 3, 4], [1, 2, 3, 5]], ("/x/a.jpg", "b.jpg"), [0, 1])):
        assert fix_duplicates(dataset, policy) is dataset


def test_many_random_objects_are_compared_as_a_plain_loop_does():
    random = np.random.RandomState(0)
    rows = random.randint(0, 3, (500, 6))
    dataset = drawn(rows[:, 2:].astype(float), [f"{number}.jpg" for number in range(3)], rows[:, 0].tolist(), (rows[:, 1] + 1).tolist())
    unique = {(image, label, *box) for image, label, box in
              zip(dataset.image_of_box().tolist(), dataset.labels.tolist(), dataset.boxes.tolist())}
    fixed = fix_duplicates(dataset, "drop")
    assert len(fixed.boxes) == len(unique) < 500


# Through all of reading

def test_the_same_split_twice_is_that_split_once(tmp_path):
    coco(tmp_path, "annotations/instances_train.json", "train")
    once = read_splits(options(tmp_path, format="coco"), ("train",))
    twice = read_splits(options(tmp_path, format="coco"), ("train", "train"))
    assert twice.paths.tolist() == once.paths.tolist() and twice.boxes.tolist() == once.boxes.tolist()
    assert twice.warnings[0].startswith("4 images are listed again")
    assert len(read_splits(options(tmp_path, format="coco", duplicates="keep"), ("train", "train"))) == 8


def test_a_negative_width_of_coco_is_a_swapped_box(tmp_path):
    coco(tmp_path, "annotations/instances_train.json", "train", 1, [(0, 1, [30, 40, -20, -10])])
    dataset = read_splits(options(tmp_path, format="coco"), ("train",))
    assert dataset.boxes.tolist() == [[10, 30, 30, 40]] and dataset.areas.tolist() == [200]


def test_swapped_corners_of_voc_keep_every_pixel(tmp_path):
    voc(tmp_path, {"train": ["a"]})
    file = tmp_path / "Annotations/a.xml"
    text(file, file.read_text().replace("<xmin>2<", "<xmin>30<").replace("<xmax>30<", "<xmax>2<"))
    dataset = read_splits(options(tmp_path, format="voc"), ("train",))
    assert dataset.boxes.tolist() == [[1, 2, 30, 40]] and "swapped corners was corrected" in dataset.warnings[0]


@pytest.mark.parametrize("splits", [("train", "val"), ("val", "train")])
def test_all_splits_are_fractions_or_none(tmp_path, splits):
    """A few boxes below a pixel, which would be fractions by themselves, are none beside boxes in pixels."""
    few, many = splits
    small, large = (0, 1, [0.1, 0.2, 0.3, 0.4]), (0, 1, [10, 10, 20, 20])
    for folder, objects in (("pixels", [large] * 4), ("fractions", [(0, 1, [0.2, 0.2, 0.6, 0.6])] * 4)):
        coco(tmp_path / folder, f"annotations/instances_{few}.json", few, 1, [small])
        coco(tmp_path / folder, f"annotations/instances_{many}.json", many, 1, objects)
    pixels = dict(zip(("train", "val"), read_datasets(options(tmp_path / "pixels", duplicates="keep"))))
    assert pixels[few].boxes.tolist() == [pytest.approx([0.1, 0.2, 0.4, 0.6])] and pixels[many].boxes.tolist() == [[10, 10, 30, 30]] * 4
    assert "1 of 1 boxes lie in the first pixel of their image, as fractions" in pixels[few].warnings[0] and not pixels[many].warnings
    train, val = read_datasets(options(tmp_path / "fractions"))
    both = read_splits(options(tmp_path / "fractions"), ("train", "val"))
    assert len(both.boxes) == 2 and both.boxes.max() == 80 and {train.boxes.max(), val.boxes.max()} == {np.float32(40), np.float32(80)}


def test_boxes_that_a_reader_gives_in_pixels_are_never_fractions(tmp_path):
    yolo(tmp_path)
    for split in ("train", "val"):
        text(tmp_path / f"labels/{split}/{split}.txt", "0 0.005 0.01 0.004 0.008\n")
    train, _ = read_datasets(options(tmp_path))
    assert train.boxes.tolist() == [pytest.approx([0.3, 0.3, 0.7, 0.7])] and not train.warnings


@pytest.mark.parametrize("lines", ["a\na.jpg\nb\n"])
@pytest.mark.parametrize("policy, count", [("drop", 2), ("keep", 3), ("refuse", 0)])
def test_lines_that_name_an_image_again_follow_the_option(tmp_path, lines, policy, count):
    voc(tmp_path, {"train": ["a", "b"]})
    text(tmp_path / "ImageSets/Main/train.txt", lines)
    config = options(tmp_path, format="voc", duplicates=policy)
    if policy == "refuse":
        with pytest.raises(BadInput, match="data.duplicates=refuse.: 1 image is listed again; first: .*a.jpg"):
            read_splits(config, ("train",))
        return
    dataset = read_splits(config, ("train",))
    assert len(dataset) == len(dataset.boxes) == count
    assert [warning[:24] for warning in dataset.warnings] == ["1 image is listed again;"] * (policy == "drop")


def test_a_label_line_that_is_there_twice_counts_once(tmp_path):
    yolo(tmp_path)
    text(tmp_path / "labels/train/train.txt", LINE * 3)
    train, _ = read_datasets(options(tmp_path))
    assert len(train.boxes) == 1 and train.warnings[0].startswith("2 objects are annotated again")
