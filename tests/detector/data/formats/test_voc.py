"""Reading PASCAL VOC: splits, locations of files, and errors for faulty annotations."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from detector.data.formats import voc
from detector.errors import BadInput
from detector.structures import DIFFICULT


def entry(name: str, box: tuple, more: str = "") -> str:
    corners = "".join(f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box))
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def annotation_text(*objects: str, size: tuple | None = (50, 100)) -> str:
    """Returns the text of one annotation file; `size` is height and width."""
    size_text = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>" if size else ""
    return f"<annotation><filename>other.jpg</filename>{size_text}{''.join(objects)}</annotation>"


def tree(folder: Path, annotations: dict[str, str], splits: dict[str, str]) -> str:
    for name in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for stem, text in annotations.items():
        (folder / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
    for name, text in splits.items():
        (folder / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8")
    return str(folder)


ANNOTATIONS = {"b": annotation_text(entry("dog", (1, 1, 100, 50)), entry("cat", (11, 21, 30, 40), "<difficult>1</difficult>")),
         "a": annotation_text(),
         "c": annotation_text(entry("cat", (2, 3, 4, 5), "<difficult>0</difficult>"), size=(480, 640))}


# Reading

def test_a_split(tmp_path):
    root = tree(tmp_path, ANNOTATIONS, {"train": "b\na\nc\n"})
    dataset = voc.read(root, "train")
    assert dataset.classes == ("cat", "dog"), "in alphabetical order"
    assert [Path(dataset.path(i)) for i in range(3)] == [tmp_path / "JPEGImages" / f"{stem}.jpg" for stem in "bac"]
    assert dataset.sizes.tolist() == [[50, 100], [50, 100], [480, 640]]
    assert dataset.offsets.tolist() == [0, 2, 2, 3]
    assert dataset.boxes.tolist() == [[0, 0, 100, 50], [10, 20, 30, 40], [1, 2, 4, 5]]  # 1-based, last pixel included
    assert dataset.labels.tolist() == [2, 1, 1]
    assert dataset.flags.tolist() == [0, DIFFICULT, 0]
    assert dataset.areas.tolist() == [5000, 400, 9]
    assert len(set(dataset.image_ids.tolist())) == 3


@pytest.mark.parametrize("listing, stems", [("c", "c"), ("  a  \n\nb\n", "ab"), ("c\r\na", "ca")])
def test_the_images_are_those_of_the_list_in_its_order(tmp_path, listing, stems):
    dataset = voc.read(tree(tmp_path, ANNOTATIONS, {"train": listing}), "train")
    assert [Path(dataset.path(i)).stem for i in range(len(dataset))] == list(stems)


def test_an_image_without_objects(tmp_path):
    dataset = voc.read(tree(tmp_path, ANNOTATIONS, {"bare": "a"}), "bare")
    assert len(dataset) == 1 and dataset.classes == ()
    assert dataset.boxes.shape == (0, 4) and dataset.sizes.shape == (1, 2)


@pytest.mark.parametrize("listing", ["", "\n\n"])
def test_an_empty_list_is_named(tmp_path, listing):
    with pytest.raises(BadInput, match=r"ImageSets/Main/cat_train\.txt lists no image"):
        voc.read(tree(tmp_path, ANNOTATIONS, {"cat_train": listing}), "cat_train")


def test_the_list_of_one_class_leaves_out_the_images_without_it(tmp_path):
    root = tree(tmp_path, ANNOTATIONS, {"cat_train": "b  0\na -1\nc  1\n"})  # 0: only difficult ones
    dataset = voc.read(root, "cat_train")
    assert [Path(dataset.path(i)).stem for i in range(len(dataset))] == ["b", "c"]


@pytest.mark.parametrize("more, flag", [("", 0), ("<difficult>0</difficult>", 0), ("<difficult/>", 0),
                                        ("<difficult>1</difficult>", DIFFICULT),
                                        ("<difficult> 1 </difficult>", DIFFICULT), ("<truncated>1</truncated>", 0)])
def test_difficult_objects_are_marked(tmp_path, more, flag):
    root = tree(tmp_path, {"a": annotation_text(entry("cat", (1, 1, 9, 9), more))}, {"train": "a"})
    assert voc.read(root, "train").flags.tolist() == [flag]


def test_the_parts_of_a_person_are_no_objects(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>3</xmin><ymin>3</ymin><xmax>5</xmax><ymax>5</ymax></bndbox></part>"
    root = tree(tmp_path, {"a": annotation_text(entry("person", (1, 1, 9, 9), part))}, {"train": "a"})
    dataset = voc.read(root, "train")
    assert dataset.classes == ("person",)
    assert dataset.boxes.tolist() == [[0, 0, 9, 9]]


def test_corners_may_be_fractions_and_names_may_have_spaces_around(tmp_path):
    root = tree(tmp_path, {"a": annotation_text(entry(" cat\n", (1.5, "2.5\n", 9.25, 8)))}, {"train": "a"})
    dataset = voc.read(root, "train")
    assert dataset.boxes.tolist() == [[0.5, 1.5, 9.25, 8]]
    assert dataset.classes == ("cat",)


@pytest.mark.parametrize("size", [None, (0, 0), (0, 640)])
def test_a_size_that_the_annotation_does_not_say_comes_from_the_image(tmp_path, size):
    root = tree(tmp_path, {"a": annotation_text(size=size)}, {"train": "a"})
    Image.new("RGB", (6, 4)).save(tmp_path / "JPEGImages" / "a.jpg")
    assert voc.read(root, "train").sizes.tolist() == [[4, 6]]


@pytest.mark.parametrize("box, expected", [((9, 2, 3, 8), [9, 1, 2, 8]), ((9, 8, 3, 2), [9, 8, 2, 1]), ((3, 8, 9, 2), [2, 8, 9, 1])])
def test_swapped_corners_are_left_for_the_policy_that_counts_them(tmp_path, box, expected):
    dataset = voc.read(tree(tmp_path, {"a": annotation_text(entry("cat", box))}, {"train": "a"}), "train")
    assert dataset.boxes.tolist() == [expected], "the first pixel of the box that a person means is at (2, 1)"


# Where files are

@pytest.mark.parametrize("folder, split", [
    ("", "train"), ("VOC2007", "VOC2007/train"), ("VOC2012", "2012/train"), ("VOC2007", "train"), ("VOC2012", "train"),
    ("VOCdevkit/VOC2007", "VOCdevkit/VOC2007/train")])
def test_a_tree_may_be_the_root_or_below_it(tmp_path, folder, split):
    tree(tmp_path / folder, ANNOTATIONS, {"train": "b"})
    dataset = voc.read(str(tmp_path), split)
    assert Path(dataset.path(0)) == tmp_path / folder / "JPEGImages" / "b.jpg"
    assert len(dataset.boxes) == 2


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a.jpeg", "a.png", "a.PNG", "a.webp", "a.jfif", "a.PPM"])
def test_images_may_have_other_endings(tmp_path, name):
    root = tree(tmp_path, ANNOTATIONS, {"train": "a"})
    (tmp_path / "JPEGImages" / name).write_bytes(b"")
    assert Path(voc.read(root, "train").path(0)).name == name


def test_a_stem_may_have_dots(tmp_path):
    root = tree(tmp_path, {"a.rf.1": annotation_text()}, {"train": "a.rf.1"})
    (tmp_path / "JPEGImages" / "a.rf.1.png").write_bytes(b"")
    assert Path(voc.read(root, "train").path(0)).name == "a.rf.1.png"


def save(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(folder / name)


def images_of(root: Path, split: str, images: str = "") -> list[str]:
    dataset = voc.read(str(root), split, images)
    return [str(Path(dataset.path(i)).relative_to(root)) for i in range(len(dataset))]


def test_a_mask_beside_a_photograph_is_not_taken(tmp_path):
    root = tree(tmp_path, {name: annotation_text().replace("other.jpg", f"{name}.png") for name in "ab"} | {"c": annotation_text()},
                {"train": "a\nb\nc\n"})
    save(tmp_path / "JPEGImages", "a.jpg", "a.png", "b.png", "b.bmp", "c.JPG", "c.png")
    assert images_of(tmp_path, "train") == ["JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/c.JPG"], "as <filename> says, else .jpg"
    save(tmp_path / "JPEGImages", "d.bmp", "d.png")
    tree(tmp_path, {"d": annotation_text()}, {"other": "d"})
    with pytest.raises(BadInput, match=r"several images are called d: JPEGImages/d.bmp, JPEGImages/d.png"):
        voc.read(root, "other")


def test_an_image_of_a_usual_ending_counts_before_one_of_another(tmp_path):
    root = tree(tmp_path, {"a": annotation_text()}, {"train": "a"})
    save(tmp_path / "JPEGImages", "a.pgm", "a.png")
    assert images_of(root, "train") == ["JPEGImages/a.png"]


def test_an_image_may_be_called_differently_if_its_annotation_names_it(tmp_path):
    tree(tmp_path, {"1": annotation_text().replace("other.jpg", "photo 1.png"), "2": annotation_text()}, {"train": "1\n2"})
    save(tmp_path / "JPEGImages", "photo 1.png")
    assert images_of(tmp_path, "train") == ["JPEGImages/photo 1.png", "JPEGImages/2.jpg"], "a missing image is where it should be"


def test_sub_folders_and_spaces(tmp_path):
    (tmp_path / "Annotations" / "camera 1").mkdir(parents=True)
    (tmp_path / "Annotations" / "camera 1" / "a b.xml").write_text(annotation_text())
    save(tmp_path / "JPEGImages", "camera 1/a b.png")
    for line in ("camera 1/a b", '"camera 1/a b"', "camera 1\\a b.png", "C:\\VOC\\JPEGImages\\camera 1\\a b.png"):
        tree(tmp_path, {}, {"train": line})
        assert images_of(tmp_path, "train") == ["JPEGImages/camera 1/a b.png"]
    assert images_of(tmp_path, "all") == ["JPEGImages/camera 1/a b.png"]


@pytest.mark.parametrize("annotations, image, split", [
    ("ANNOTATIONS", "IMAGES/a.jpg", "ANNOTATIONS"), ("lable", "1/a.jpg", "lable"),
    ("train/annotations", "train/images/rust/a.jpg", "train"), ("Annotations", "photos/a.jpg", "all"),
    ("Annotations", "JPEGImages/train/a.jpg", "all"), ("annots", "train/a.jpg", "annots")])
def test_images_in_folders_of_any_name(tmp_path, annotations, image, split):
    (tmp_path / annotations).mkdir(parents=True)
    (tmp_path / annotations / "a.xml").write_text(annotation_text().replace("other.jpg", "a.jpg"))
    save(tmp_path / "SegmentationClass", "a.png")
    assert not (tmp_path / images_of(tmp_path, split)[0]).exists(), "a mask is no photograph"
    save((tmp_path / image).parent, "a.jpg")
    assert images_of(tmp_path, split) == [image]


@pytest.mark.parametrize("images", ["photos", "absolute"])
def test_a_folder_of_images_may_be_named(tmp_path, images):
    root = tree(tmp_path, {"a": annotation_text(size=None)}, {"train": "a"})
    save(tmp_path / "photos", "a.png")
    images = images if images == "photos" else str(tmp_path / "photos")
    dataset = voc.read(root, "train", images)
    assert Path(dataset.path(0)) == tmp_path / "photos" / "a.png"
    assert dataset.sizes.tolist() == [[4, 6]] and dataset.sized_by_header == (0,)


@pytest.mark.parametrize("annotations, pictures, split", [
    ("Annotations", "JPEGImages", "all"), ("annotations", "images", "all"), ("", "", "all"), ("train", "train", "train"),
    ("train/Annotations", "train/JPEGImages", "train"), ("Annotations/train", "JPEGImages/train", "train"), ("Annotations", "", "all"),
    ("Annotations/train", "JPEGImages", "train"), ("VOC2007/Annotations", "VOC2007/JPEGImages", "VOC2007/all"),
    ("train/Annotations", "train", "train")])
def test_trees_without_lists(tmp_path, annotations, pictures, split):
    (tmp_path / annotations).mkdir(parents=True, exist_ok=True)
    for stem in "ba":
        (tmp_path / annotations / f"{stem}.xml").write_text(annotation_text(entry("cat", (1, 1, 3, 3))))
    (tmp_path / annotations / "._a.xml").write_bytes(b"\0")
    save(tmp_path / pictures, "a.png", "b.jpg")
    assert images_of(tmp_path, split) == [str(Path(pictures, name)) for name in ("a.png", "b.jpg")]
    assert [Path(path).name for path in voc.sources(str(tmp_path), split)] == ["a.xml", "b.xml"]


def test_a_list_at_the_root_beside_the_folders(tmp_path):
    tree(tmp_path, ANNOTATIONS, {})
    (tmp_path / "val.txt").write_text("c.jpg\n")
    assert images_of(tmp_path, "val") == ["JPEGImages/c.jpg"]
    assert voc.sources(str(tmp_path), "val") == [str(tmp_path / "val.txt"), str(tmp_path / "Annotations" / "c.xml")]


def test_without_lists_the_splits_that_are_there_are_named(tmp_path):
    for name in ("train", "valid", "other"):
        (tmp_path / name).mkdir()
    for name in ("train", "valid"):
        (tmp_path / name / "a.xml").write_text(annotation_text())
    with pytest.raises(BadInput, match="no VOC split 'val'.*Splits: train, valid$"):
        voc.read(str(tmp_path), "val")


def test_the_files_that_a_split_is_read_from(tmp_path):
    root = tree(tmp_path, ANNOTATIONS, {"train": "b\nc"})
    files = {Path(path).resolve() for path in voc.sources(root, "train")}
    assert files == {tmp_path / name for name in ("ImageSets/Main/train.txt", "Annotations/b.xml", "Annotations/c.xml")}


def test_a_split_that_is_not_there_lists_those_that_are(tmp_path):
    root = tree(tmp_path, ANNOTATIONS, {"train": "b", "val": "c"})
    with pytest.raises(BadInput, match=r"no VOC split 'test'.*ImageSets/Main/test\.txt.*Splits: train, val"):
        voc.read(root, "test")


def test_a_root_without_a_tree_says_what_it_must_hold(tmp_path):
    for split in ("train", "VOC2007/train"):
        with pytest.raises(BadInput, match="Annotations, ImageSets/Main(,| and) JPEGImages"):
            voc.read(str(tmp_path), split)


# Mistakes

@pytest.mark.parametrize("text, sentence", [
    ("", "is no XML"), ("<annotation>", "is no XML"), ("not xml", "is no XML"),
    (annotation_text(entry("cat", (1, 1, 9, 9)).replace("<xmax>9</xmax>", "")), "object 1 (cat) has no xmax in its bndbox"),
    (annotation_text(entry("dog", (1, 1, 9, 9)), entry("cat", (1, 1, "wide", 9))), "object 2 (cat) has xmax='wide' in its"),
    (annotation_text(entry("cat", (1, 1, "", 9))), "object 1 (cat) has xmax='' in its bndbox"),
    (annotation_text("<object><name>cat</name></object>"), "object 1 (cat) has no bndbox"),
    (annotation_text(entry("cat", (1, 1, 9, 9)).replace("<name>cat</name>", "")), "object 1 has no name"),
    (annotation_text(entry("", (1, 1, 9, 9))), "object 1 has no name"),
    (annotation_text(entry("  ", (1, 1, 9, 9))), "object 1 has no name"),
    (annotation_text(*[entry("", (1, 1, 9, 9))] * 5), "; object 3 has no name and 2 more. Each object needs a name"),
    ("<annotations><image name='a.jpg'/></annotations>", "its root element is <annotations>, not <annotation>"),
])
def test_a_faulty_annotation_names_its_file(tmp_path, text, sentence):
    root = tree(tmp_path, {"a": text}, {"train": "a"})
    with pytest.raises(BadInput) as caught:
        voc.read(root, "train")
    assert sentence in str(caught.value) and "Annotations/a.xml" in str(caught.value)


def test_all_faulty_files_are_in_one_error(tmp_path):
    root = tree(tmp_path, {**ANNOTATIONS, "d": "<annotation>", "e": annotation_text(size=None)}, {"train": "b\nd\ngone\ne\nc"})
    with pytest.raises(BadInput) as caught:
        voc.read(root, "train")
    message = str(caught.value)
    for part in ("3 mistakes", "d.xml is no XML", "no such annotation file: ", "gone.xml", "no such image file: ",
                 "e.jpg"):
        assert part in message


def test_many_faulty_files_are_ten_and_a_number(tmp_path):
    stems = [f"{number:02d}" for number in range(14)]
    root = tree(tmp_path, dict.fromkeys(stems, "<annotation>"), {"train": "\n".join(stems)})
    with pytest.raises(BadInput, match=r"14 mistakes[\s\S]*09.xml is no XML[\s\S]*and 4 more$") as caught:
        voc.read(root, "train")
    assert "10.xml" not in str(caught.value)


def test_missing_annotation_files_are_no_sources_and_are_all_named(tmp_path):
    root = tree(tmp_path, ANNOTATIONS, {"train": "a\nx\ny"})
    assert len(voc.sources(root, "train")) == 2
    with pytest.raises(BadInput, match=r"Annotations/x.xml. Add it, or remove its line from .*train.txt\n.*Annotations/y.xml"):
        voc.read(root, "train")


def test_the_classes_of_voc():
    assert len(voc.CLASSES) == len(set(voc.CLASSES)) == 20
    assert list(voc.CLASSES) == sorted(voc.CLASSES)


# Real data

def test_blood_cells_are_read_as_they_stand(bccd):
    dataset = voc.read(str(bccd), "val")
    stems = (bccd / "ImageSets" / "Main" / "val.txt").read_text().split()
    assert [Path(dataset.path(i)).stem for i in range(len(dataset))] == stems
    assert dataset.classes == ("Platelets", "RBC", "WBC")
    for index, stem in enumerate(stems):
        objects = ElementTree.parse(bccd / "Annotations" / f"{stem}.xml").getroot().findall("object")
        rows = dataset.rows(index)
        assert Path(dataset.path(index)).is_file()
        assert [dataset.classes[label - 1] for label in dataset.labels[rows]] == [o.findtext("name") for o in objects]
        for box, annotation in zip(dataset.boxes[rows], objects):
            x1, y1, x2, y2 = (int(annotation.findtext(f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax"))
            assert box.tolist() == [max(x1 - 1, 0), max(y1 - 1, 0), x2, y2]


def test_a_split_of_two_years_says_that_it_is_one_of_them(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        tree(tmp_path / year, {"a": annotation_text(entry("cat", (1, 1, 9, 9)))}, {"trainval": "a"})
    dataset = voc.read(str(tmp_path), "trainval")
    assert dataset.warnings == ("the split trainval is that of VOC2007 alone; VOC2012 has one, too. For both, set data.train (or "
                                "data.val) to [VOC2007/trainval, VOC2012/trainval]",)
    for split in ("2007/trainval", "VOC2012/trainval"):
        assert not voc.read(str(tmp_path), split).warnings
