"""Weights from elsewhere: each tensor finds its place, the report names what did not, and errors say what to do."""

import os
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from detector.config.model_schema import BACKBONE_NAMES, Model
from detector.config.schema import Evaluate
from detector.errors import BadInput
from detector.model.faster_rcnn import build_model
from detector.model.roi_heads import FastRCNNPredictor
from detector.model.weights.files import read_weights
from detector.model.weights.load import PREDICTOR, fill, load_weights, weights_name

SMALL = Model(backbone="resnet18_fpn", weights="", norm="trained", frozen_stages=0, roi_pooling_size=1, fpn_channels=16,
              box_head_dim=32)
CLASSES = ("cat", "dog")


def built(config: Model, classes: int = len(CLASSES)) -> nn.Module:
    return build_model(replace(config, weights=""), Evaluate(), classes)


def numbered(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Each tensor is full of a number of its own, so that a mix-up shows; expanded, so that a file of them is small."""
    return {name: torch.tensor(float(number)).expand(shape) for number, (name, shape) in enumerate(shapes.items(), 1)}


def shapes_of(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in models.get_model(name, weights=None).state_dict().items()}


# Where torchvision's classifier keeps what the detector has; "" is every other name.
PLACES = {
    "resnet18_fpn": {"fc.": None, "": "backbone.body."},
    "resnet18_c4": {"fc.": None, "layer4.": "roi_heads.box_head.layer4.", "": "backbone."},
    "vgg16": {"features.": "backbone.", "classifier.0.": "roi_heads.box_head.fc6.",
              "classifier.3.": "roi_heads.box_head.fc7.", "classifier.6.": None},
    "mobilenet_v3_large_fpn": {"features.": "backbone.body.", "classifier.": None}}


def place(name: str, body: str) -> str | None:
    start = next(start for start in PLACES[body] if name.startswith(start))
    new = PLACES[body][start]
    return None if new is None else new + name[len(start):]


@pytest.mark.parametrize("body, norm", [*((body, "trained") for body in PLACES), ("resnet18_c4", "frozen")])
def test_a_classifiers_tensors_find_their_places(body, norm, tmp_path):
    shapes = shapes_of(body.removesuffix("_fpn").removesuffix("_c4"))
    if body == "vgg16":  # as for pooling_size=1, so that fc6 is small
        shapes["classifier.0.weight"] = torch.Size((4096, 512))
    state = numbered(shapes)
    torch.save(state, tmp_path / "classifier.pth")
    config = replace(SMALL, backbone=body, norm=norm, weights=str(tmp_path / "classifier.pth"))
    model = built(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, config, CLASSES)

    after = model.state_dict()
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    here = {place(name, body): name for name in shapes
            if place(name, body) and (norm == "trained" or name not in counters)}
    assert set(report.loaded) == set(here)
    assert all((after[name].double() == state[source].double()).all() for name, source in here.items())
    assert set(report.left_out) == {name for name in shapes if not place(name, body)}
    assert report.other_shape == []
    assert set(report.fresh) == set(after) - set(here)
    assert all(torch.equal(after[name], before[name]) for name in report.fresh)
    assert all(name.startswith(("rpn.", "roi_heads.", "backbone.fpn.")) for name in report.fresh)


def test_a_random_classifier_gives_the_features_it_gave(tmp_path):
    """The body below the pyramid computes what the classifier computed, from a file as torchvision saves it."""
    torch.manual_seed(0)
    classifier = models.resnet18(weights=None).eval()
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    config = replace(SMALL, weights=str(tmp_path / "resnet18.pth"))
    model = built(config).eval()
    load_weights(model, config, CLASSES)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours = model.backbone.body(image)["3"].mean(dim=(2, 3))
        torch.testing.assert_close(classifier.fc(ours), classifier(image))


def test_the_report_says_what_became_of_each_tensor():
    model = nn.Module()
    model.a, model.b, model.c = nn.Linear(2, 3), nn.Linear(2, 2, bias=False), nn.Linear(1, 1, bias=False)
    state = {"a.weight": torch.ones(3, 2), "a.bias": torch.ones(3), "b.weight": torch.ones(4, 2), "z": torch.ones(1)}
    report = fill(model, state, [], ())
    assert report.loaded == ["a.weight", "a.bias"]
    assert report.left_out == ["z"]
    assert report.other_shape == ["b.weight [2, 2] here, [4, 2] there"]
    assert report.fresh == ["b.weight", "c.weight"]
    assert str(report) == ("2 tensors loaded; left out (1): z; other shape (1): b.weight [2, 2] here, [4, 2] there; "
                           "fresh (2): b.weight, c.weight")
    assert str(fill(model, {}, [], ())).startswith("0 tensors loaded; fresh (4): ")


def heads(classes: int, class_agnostic: bool = False) -> nn.Module:
    """A module with a predictor where a detector has it, and nothing else: 2 hidden units."""
    model = nn.Module()
    model.roi_heads = nn.Module()
    model.roi_heads.box_predictor = FastRCNNPredictor(2, classes, class_agnostic)
    return model


def scores_and_boxes(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    state = model.state_dict()
    return state[f"{PREDICTOR}cls_score.weight"].clone(), state[f"{PREDICTOR}bbox_pred.weight"].clone()


def test_classes_are_matched_by_name():
    """cat, dog, bird there; bird, cow, cat here: rows 0, 3, none, 1 (of boxes: four rows each)."""
    theirs, ours = heads(3), heads(3)
    old_scores, old_boxes = scores_and_boxes(theirs)
    own_scores, own_boxes = scores_and_boxes(ours)
    report = fill(ours, theirs.state_dict(), ["__background__", "cat", "dog", "bird"], ("bird", "cow", "cat"))
    scores, boxes = scores_and_boxes(ours)
    for here, there in ((0, 0), (1, 3), (3, 1)):
        assert torch.equal(scores[here], old_scores[there])
        assert torch.equal(boxes[4 * here:4 * here + 4], old_boxes[4 * there:4 * there + 4])
    assert torch.equal(scores[2], own_scores[2]) and torch.equal(boxes[8:12], own_boxes[8:12])
    assert report.classes == 2 and "2 classes matched by name" in str(report)


def test_a_subset_of_the_classes_is_matched_by_name():
    theirs, ours = heads(4), heads(1)
    old_scores, old_boxes = scores_and_boxes(theirs)
    report = fill(ours, theirs.state_dict(), ["__background__", "cat", "dog", "bird", "cow"], ("bird",))
    scores, boxes = scores_and_boxes(ours)
    assert torch.equal(scores, old_scores[[0, 3]])
    assert torch.equal(boxes[4:], old_boxes[12:16])
    assert report.classes == 1 and not report.other_shape


def test_the_same_classes_are_loaded_as_they_are():
    theirs, ours = heads(2), heads(2)
    report = fill(ours, theirs.state_dict(), ["__background__", "cat", "dog"], ("cat", "dog"))
    assert all(torch.equal(a, b) for a, b in zip(scores_and_boxes(ours), scores_and_boxes(theirs)))
    assert len(report.loaded) == 4 and not report.fresh


@pytest.mark.parametrize("classes", [("red",), ("red", "white"), ("red", "white", "platelet")])
def test_new_classes_do_not_get_the_rows_of_old_ones(classes):
    """A class that the file does not know keeps its own row: red is no cat, also where there are two of each."""
    theirs, ours = heads(2), heads(len(classes))
    own_scores, own_boxes = scores_and_boxes(ours)
    report = fill(ours, theirs.state_dict(), ["__background__", "cat", "dog"], classes)
    scores, boxes = scores_and_boxes(ours)
    assert torch.equal(scores[1:], own_scores[1:]) and torch.equal(boxes[4:], own_boxes[4:])
    assert report.classes == 0


def test_a_predictor_without_names_is_loaded_if_it_fits_and_else_reported():
    theirs, ours, other = heads(2), heads(2), heads(3)
    assert len(fill(ours, theirs.state_dict(), [], ("red", "white")).loaded) == 4
    assert all(torch.equal(a, b) for a, b in zip(scores_and_boxes(ours), scores_and_boxes(theirs)))
    report = fill(other, theirs.state_dict(), [], ("red", "white", "platelet"))
    assert len(report.other_shape) == len(report.fresh) == 4 and report.loaded == []
    assert f"{PREDICTOR}cls_score.weight [4, 2] here, [3, 2] there" in report.other_shape


@pytest.mark.parametrize("classes", [("dog", "cat", "cow"), ("dog", "cat", "cow", "bird")])
def test_a_class_agnostic_box_stays_whole_when_classes_are_matched(classes):
    """Its four rows are dx, dy, dw, dh of every class, no classes."""
    theirs, ours = heads(3, class_agnostic=True), heads(len(classes), class_agnostic=True)
    report = fill(ours, theirs.state_dict(), ["__background__", "cat", "dog", "bird"], classes)
    scores, boxes = scores_and_boxes(ours)
    old_scores, old_boxes = scores_and_boxes(theirs)
    assert torch.equal(boxes, old_boxes)
    assert torch.equal(scores[:3], old_scores[[0, 2, 1]])
    assert report.classes == len({"cat", "dog", "bird"} & set(classes))


def test_a_checkpoint_of_ours_brings_its_average_and_its_classes(tmp_path):
    torch.manual_seed(0)
    trained, averaged = built(SMALL).state_dict(), built(SMALL).state_dict()
    torch.save({"model": trained, "ema": averaged, "classes": ["cat", "dog"]}, tmp_path / "best.pt")
    config = replace(SMALL, weights=str(tmp_path / "best.pt"))
    model = built(config)
    report = load_weights(model, config, ("dog", "cat"))
    after = model.state_dict()
    assert not report.fresh and not report.left_out and report.classes == 2
    assert torch.equal(after["backbone.body.conv1.weight"], averaged["backbone.body.conv1.weight"])
    assert torch.equal(after[f"{PREDICTOR}cls_score.weight"], averaged[f"{PREDICTOR}cls_score.weight"][[0, 2, 1]])
    torch.save({"model": trained, "ema": None, "classes": ["cat", "dog"]}, tmp_path / "best.pt")
    load_weights(model, config, ("cat", "dog"))
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", ["model", "state_dict", None])
def test_tensors_may_lie_below_a_usual_key(wrap, tmp_path):
    state = {"a": torch.ones(2)}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pth")
    stored = read_weights(str(tmp_path / "w.pth"))
    assert torch.equal(stored.tensors["a"], state["a"]) and list(stored.tensors) == ["a"]
    assert stored.names == [] and stored.settings == {}


def test_nothing_that_fits_is_an_error(tmp_path):
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "other.pth")
    config = replace(SMALL, weights=str(tmp_path / "other.pth"))
    with pytest.raises(BadInput, match=r"no tensor in it fits resnet18_fpn; it holds encoder\.weight"):
        load_weights(built(config), config, CLASSES)


class Evil:
    """An object that a file of tensors has no business to hold: reading it runs what it likes."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("content", ["text", "nothing", "cut short", "code", "no tensors", "a list"])
def test_a_foreign_file_is_named_and_nothing_in_it_is_run(content, tmp_path):
    path = tmp_path / "weights.pth"
    if content == "text":
        path.write_text("<html>404</html>")
    elif content == "nothing":
        path.write_bytes(b"")
    elif content == "cut short":
        torch.save({"a": torch.ones(1000)}, path)
        path.write_bytes(path.read_bytes()[:-500])
    else:
        torch.save({"code": {"a": Evil(str(tmp_path / "made"))}, "no tensors": {"a": 1, "b": "c"},
                    "a list": [torch.ones(1)]}[content], path)
    with pytest.raises(BadInput, match="weights.pth"):
        read_weights(str(path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", ["no/such/file.pth", "ResNet18_Weights.NO_SUCH", "NoNet_Weights.X", "nonsense"])
def test_an_unknown_name_is_told_what_there_is(name):
    with pytest.raises(BadInput, match="no such file, and torchvision has no weights of this name. Use imagenet, coco"):
        read_weights(name)


def no_network(*args, **kwargs):
    raise URLError("no route to host")


def test_without_network_the_error_says_where_from_and_where_to(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    entry = models.ResNet18_Weights.IMAGENET1K_V1
    config = replace(SMALL, weights="imagenet")
    with pytest.raises(BadInput) as caught:
        load_weights(built(config), config, CLASSES)
    where = tmp_path / "hub" / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    assert entry.url in str(caught.value) and str(where) in str(caught.value) and "no route" in str(caught.value)

    # What the error asks for is enough: the file at that place loads.
    state = models.resnet18(weights=None).state_dict()
    os.makedirs(where.parent, exist_ok=True)
    torch.save(state, where)
    model = built(config)
    assert load_weights(model, config, CLASSES).left_out == ["fc.weight", "fc.bias"]
    assert torch.equal(model.backbone.body.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("content", [b"", b"<html>log in first</html>", b"PK\x03\x04 half a file"])
def test_a_broken_file_at_the_place_of_a_download_is_an_error_that_names_it(content, tmp_path, monkeypatch):
    """Half a download put there by hand, or the page of a proxy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    where = tmp_path / "hub" / "checkpoints" / models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    where.parent.mkdir(parents=True)
    where.write_bytes(content)
    with pytest.raises(BadInput, match=where.name):
        read_weights("ResNet18_Weights.IMAGENET1K_V1")


@pytest.mark.parametrize("body", BACKBONE_NAMES)
def test_imagenet_names_weights_that_torchvision_has(body):
    name = weights_name(Model(backbone=body, weights="imagenet"))
    assert models.get_weight(name).meta["categories"][0] == "tench"  # ImageNet's first class


def test_coco_names_weights_of_the_same_body_and_no_others():
    assert weights_name(Model(backbone="resnet50_fpn", weights="coco")) == "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"
    assert models.get_weight(weights_name(Model(backbone="mobilenet_v3_large_fpn", weights="coco"))).url
    for body in set(BACKBONE_NAMES) - {"resnet50_fpn", "mobilenet_v3_large_fpn"}:
        with pytest.raises(BadInput, match=f"not for {body}. Use imagenet, or a file"):
            weights_name(Model(backbone=body, weights="coco"))


@pytest.mark.parametrize("text", ["/data/mine.pth", "ResNet50_Weights.IMAGENET1K_V2"])
def test_a_file_and_a_full_name_stay_as_they_are(text):
    assert weights_name(Model(weights=text)) == text
