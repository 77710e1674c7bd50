"""Weights from elsewhere: each tensor is loaded or reported by name, and errors tell the remedy."""

import os
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch
from in_float64 import in_float64
from torch import nn
from torchvision import models

from detector.config.load import load_config
from detector.config.model_schema import Model
from detector.config.schema import Evaluate
from detector.errors import BadInput
from detector.model.backbones import BACKBONES
from detector.model.faster_rcnn import build_model
from detector.model.roi_heads import FastRCNNPredictor
from detector.model.weights.files import read_weights
from detector.model.weights.load import PREDICTOR, fill, group_names, load_weights, weights_name

SMALL = Model(backbone="resnet18_fpn", weights="", norm="trained", frozen_stages=0, roi_pooling_size=1, fpn_channels=16,
              box_head_dim=32)
CLASSES = ("cat", "dog")


def build(config: Model, classes: int = len(CLASSES)) -> nn.Module:
    return build_model(replace(config, weights=""), Evaluate(), classes)


def numbered(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Returns a tensor for each shape, filled with a number of its own; expanded, so that a file of them is small."""
    return {name: torch.tensor(float(number)).expand(shape) for number, (name, shape) in enumerate(shapes.items(), 1)}


def shapes_of(name: str) -> dict[str, torch.Size]:
    with torch.device("meta"):
        return {key: value.shape for key, value in models.get_model(name, weights=None).state_dict().items()}


# Prefix in torchvision's classifier -> prefix in the detector, None: unused; "" is every other name.
PREFIXES = {
    "resnet18_fpn": {"fc.": None, "": "backbone.body."},
    "resnet18_c4": {"fc.": None, "layer4.": "roi_heads.box_head.layer4.", "": "backbone."},
    "vgg16": {"features.": "backbone.", "classifier.0.": "roi_heads.box_head.fc6.",
              "classifier.3.": "roi_heads.box_head.fc7.", "classifier.6.": None},
    "mobilenet_v3_large_fpn": {"features.": "backbone.body.", "classifier.": None},
    "resnet50_fpn_v2": {"fc.": None, "": "backbone.body."},
    "convnext_tiny_fpn": {"features.": "backbone.body.", "classifier.": None},
    "swin_t_fpn": {"features.": "backbone.body.", "norm.": "backbone.norms.3.0.", "head.": None}}


def classifier_of(backbone: str) -> str:
    return backbone.removesuffix("_v2").removesuffix("_fpn").removesuffix("_c4")


def detector_name(name: str, backbone: str) -> str | None:
    old = next(prefix for prefix in PREFIXES[backbone] if name.startswith(prefix))
    new = PREFIXES[backbone][old]
    return None if new is None else new + name[len(old):]


@pytest.mark.parametrize("backbone, norm", [*((backbone, "trained") for backbone in PREFIXES), ("resnet18_c4", "frozen")])
def test_a_classifiers_tensors_get_the_detectors_names(backbone, norm, tmp_path):
    shapes = shapes_of(classifier_of(backbone))
    if backbone == "vgg16":  # as for roi_pooling_size=1, so that fc6 is small
        shapes["classifier.0.weight"] = torch.Size((4096, 512))
    state = numbered(shapes)
    torch.save(state, tmp_path / "classifier.pth")
    config = replace(SMALL, backbone=backbone, norm=norm, weights=str(tmp_path / "classifier.pth"))
    model = build(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = load_weights(model, config, CLASSES)

    after = model.state_dict()
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    sources = {detector_name(name, backbone): name for name in shapes
               if detector_name(name, backbone) and (norm == "trained" or name not in counters)}
    assert set(report.loaded) == set(sources)
    assert all((after[name].double() == state[source].double()).all() for name, source in sources.items())
    assert set(report.unused) == {name for name in shapes if not detector_name(name, backbone)}
    assert report.mismatched == []
    assert set(report.not_loaded) == {name for name in after if not name.endswith("num_batches_tracked")} - set(sources)
    assert all(torch.equal(after[name], before[name]) for name in report.not_loaded)
    assert all(name.startswith(("rpn.", "roi_heads.", "backbone.fpn.", "backbone.norms.")) for name in report.not_loaded)


@in_float64()
def test_the_backbone_computes_the_classifiers_features(tmp_path):
    """The ResNet below the pyramid, from a file as torchvision saves it."""
    torch.manual_seed(0)
    classifier = models.resnet18(weights=None).eval()
    torch.save(classifier.state_dict(), tmp_path / "resnet18.pth")
    config = replace(SMALL, weights=str(tmp_path / "resnet18.pth"))
    model = build(config).eval()
    load_weights(model, config, CLASSES)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.backbone.body(image)["3"].mean(dim=(2, 3))
        torch.testing.assert_close(classifier.fc(features), classifier(image), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_t"])
def test_the_layers_below_the_pyramid_compute_the_classifiers_features(name, tmp_path):
    """ConvNeXt's last norm belongs to its classifier; Swin's is the norm of the last level."""
    torch.manual_seed(0)
    classifier = models.get_model(name, weights=None).eval()
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    config = replace(SMALL, backbone=f"{name}_fpn", weights=str(tmp_path / "classifier.pth"))
    model = build(config).eval()
    load_weights(model, config, CLASSES)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels = model.backbone.body(image)
        if name == "swin_t":
            logits = classifier.head(model.backbone.norms(levels)["3"].mean(dim=(2, 3)))
        else:
            logits = classifier.classifier(levels["3"].mean(dim=(2, 3), keepdim=True))
        torch.testing.assert_close(logits, classifier(image), atol=1e-4, rtol=1e-4)  # of about 1, in float32


class OfTorchvision:
    """A detector with random weights in place of torchvision's download."""

    def __init__(self, name: str):
        self.source = models.get_model(name, weights=None, weights_backbone=None, num_classes=91)
        self.state = self.source.state_dict()

    def get_state_dict(self, *args, **kwargs):
        return dict(self.state)


@pytest.mark.parametrize("norm", ["frozen", "trained"])
def test_one_line_tunes_torchvisions_strongest_detector_to_other_classes(norm, config_file, monkeypatch):
    """All layers but the rows of the predictor come from the weights; a class that COCO has keeps its row."""
    source = OfTorchvision("fasterrcnn_resnet50_fpn_v2")
    monkeypatch.setattr(models.WeightsEnum, "get_state_dict", source.get_state_dict)
    config = load_config(str(config_file), ["data.root=/data", "model={backbone: resnet50_fpn_v2, weights: coco}",
                                            f"model.norm={norm}"]).model
    model = build_model(config, Evaluate(), 2)
    report, after = load_weights(model, config, ("solder", "dog")), model.state_dict()
    assert not report.unused and not report.mismatched and not report.not_loaded and report.matched_classes == 1
    assert after[f"{PREDICTOR}cls_score.weight"].shape == (3, 1024)
    assert torch.equal(after[f"{PREDICTOR}cls_score.weight"][2], source.state[f"{PREDICTOR}cls_score.weight"][18])  # dog
    assert all(torch.equal(value, source.state[name]) for name, value in after.items() if not name.startswith(PREDICTOR))


def test_exported_weights_load_into_torchvisions_detector():
    source = OfTorchvision("fasterrcnn_resnet50_fpn_v2")
    model = build_model(Model(backbone="resnet50_fpn_v2"), Evaluate(), 90)
    assert list(model.state_dict()) == [name for name in source.state if not name.endswith("num_batches_tracked")]
    source.source.load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("norm", ["frozen", "trained", "synchronized"])
def test_norms_that_a_classifier_cannot_fill_are_not_frozen(norm, tmp_path):
    torch.save({"conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "resnet50.pth")
    config = Model(backbone="resnet50_fpn_v2", weights=str(tmp_path / "resnet50.pth"), norm=norm, fpn_channels=16,
                   roi_pooling_size=1)
    model = build(config)
    if norm != "frozen":
        assert load_weights(model, config, CLASSES).loaded == ["backbone.body.conv1.weight"]
        return
    with pytest.raises(BadInput, match="(?s)resnet50.pth with model.norm=frozen: .* no statistics for 12 norms of resnet50_fpn_v2, "
                                       "backbone.fpn.inner_blocks.0.1 .* Set model.norm=trained or model.norm=synchronized"):
        load_weights(model, config, CLASSES)


def test_the_report_names_every_tensor():
    model = nn.Module()
    model.a, model.b, model.c = nn.Linear(2, 3), nn.Linear(2, 2, bias=False), nn.Linear(1, 1, bias=False)
    state = {"a.weight": torch.ones(3, 2), "a.bias": torch.ones(3), "b.weight": torch.ones(4, 2), "z": torch.ones(1)}
    report = fill(model, state, [], ())
    assert report.loaded == ["a.weight", "a.bias"]
    assert report.unused == ["z"]
    assert report.mismatched == ["b.weight [2, 2] in the model, [4, 2] in the file"]
    assert report.not_loaded == ["b.weight", "c.weight"]
    assert str(report) == ("2 tensors loaded; unused (1): z; different shape (1): b.weight [2, 2] in the model, [4, 2] in the "
                           "file; not loaded (2): b.weight, c.weight")
    assert str(fill(model, {}, [], ())).startswith("0 tensors loaded; not loaded (4): ")
    names = [f"backbone.body.layer4.0.conv{i}.weight" for i in range(5)] + ["backbone.fpn.a.weight", "backbone.fpn.b.weight", "fc.bias"]
    assert group_names(names) == ["backbone.body.layer4.* (5)", "backbone.fpn.* (2)", "fc.bias"] and group_names(names[:6]) == names[:6]


def predictor_of(classes: int, class_agnostic: bool = False) -> nn.Module:
    """Returns a module with the predictor of a detector and nothing else: 2 hidden units."""
    model = nn.Module()
    model.roi_heads = nn.Module()
    model.roi_heads.box_predictor = FastRCNNPredictor(2, classes, class_agnostic)
    return model


def scores_and_boxes(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    state = model.state_dict()
    return state[f"{PREDICTOR}cls_score.weight"].clone(), state[f"{PREDICTOR}bbox_pred.weight"].clone()


def test_classes_are_matched_by_name():
    """File: cat, dog, bird. Model: bird, cow, cat, so rows 0, 3, its own, 1 of the file (of boxes: four rows each)."""
    stored, model = predictor_of(3), predictor_of(3)
    old_scores, old_boxes = scores_and_boxes(stored)
    own_scores, own_boxes = scores_and_boxes(model)
    report = fill(model, stored.state_dict(), ["__background__", "cat", "dog", "bird"], ("bird", "cow", "cat"))
    scores, boxes = scores_and_boxes(model)
    for new, old in ((0, 0), (1, 3), (3, 1)):
        assert torch.equal(scores[new], old_scores[old])
        assert torch.equal(boxes[4 * new:4 * new + 4], old_boxes[4 * old:4 * old + 4])
    assert torch.equal(scores[2], own_scores[2]) and torch.equal(boxes[8:12], own_boxes[8:12])
    assert (report.matched_classes, report.new_classes) == (2, 1)
    assert "2 classes matched by name; 1 class is new, with random rows in the predictor" in str(report)


def test_a_subset_of_the_classes_is_matched_by_name():
    stored, model = predictor_of(4), predictor_of(1)
    old_scores, old_boxes = scores_and_boxes(stored)
    report = fill(model, stored.state_dict(), ["__background__", "cat", "dog", "bird", "cow"], ("bird",))
    scores, boxes = scores_and_boxes(model)
    assert torch.equal(scores, old_scores[[0, 3]])
    assert torch.equal(boxes[4:], old_boxes[12:16])
    assert report.matched_classes == 1 and not report.mismatched


def test_the_same_classes_are_loaded_as_they_are():
    stored, model = predictor_of(2), predictor_of(2)
    report = fill(model, stored.state_dict(), ["__background__", "cat", "dog"], ("cat", "dog"))
    assert all(torch.equal(a, b) for a, b in zip(scores_and_boxes(model), scores_and_boxes(stored)))
    assert len(report.loaded) == 4 and not report.not_loaded


@pytest.mark.parametrize("classes", [("red",), ("red", "white"), ("red", "white", "platelet")])
def test_new_classes_do_not_get_the_rows_of_old_ones(classes):
    """A class that the file does not know keeps the model's row, even if both have as many classes."""
    stored, model = predictor_of(2), predictor_of(len(classes))
    own_scores, own_boxes = scores_and_boxes(model)
    report = fill(model, stored.state_dict(), ["__background__", "cat", "dog"], classes)
    scores, boxes = scores_and_boxes(model)
    assert torch.equal(scores[1:], own_scores[1:]) and torch.equal(boxes[4:], own_boxes[4:])
    assert report.matched_classes == 0 and report.new_classes == len(classes)


def test_classes_count_as_matched_only_where_rows_were_copied():
    model = predictor_of(3)
    report = fill(model, predictor_of(3).state_dict(), ["__background__", "x", "cat", "dog", "cow"], ("cow", "cat", "dog"))
    assert len(report.loaded) == 4 and report.matched_classes == report.new_classes == 0  # the names are not those of the rows


def test_a_predictor_without_class_names_is_loaded_if_it_fits_and_else_reported():
    stored, model, larger = predictor_of(2), predictor_of(2), predictor_of(3)
    assert len(fill(model, stored.state_dict(), [], ("red", "white")).loaded) == 4
    assert all(torch.equal(a, b) for a, b in zip(scores_and_boxes(model), scores_and_boxes(stored)))
    report = fill(larger, stored.state_dict(), [], ("red", "white", "platelet"))
    assert len(report.mismatched) == len(report.not_loaded) == 4 and report.loaded == []
    assert f"{PREDICTOR}cls_score.weight [4, 2] in the model, [3, 2] in the file" in report.mismatched


@pytest.mark.parametrize("classes", [("dog", "cat", "cow"), ("dog", "cat", "cow", "bird")])
def test_a_class_agnostic_box_stays_as_it_is_when_classes_are_matched(classes):
    """Its four rows are dx, dy, dw, dh, not classes."""
    stored, model = predictor_of(3, class_agnostic=True), predictor_of(len(classes), class_agnostic=True)
    report = fill(model, stored.state_dict(), ["__background__", "cat", "dog", "bird"], classes)
    scores, boxes = scores_and_boxes(model)
    old_scores, old_boxes = scores_and_boxes(stored)
    assert torch.equal(boxes, old_boxes)
    assert torch.equal(scores[:3], old_scores[[0, 2, 1]])
    assert report.matched_classes == len({"cat", "dog", "bird"} & set(classes))


def test_a_checkpoint_gives_its_averaged_weights_and_its_classes(tmp_path):
    torch.manual_seed(0)
    trained, averaged = build(SMALL).state_dict(), build(SMALL).state_dict()
    torch.save({"model": trained, "ema": averaged, "classes": ["cat", "dog"]}, tmp_path / "best.pt")
    config = replace(SMALL, weights=str(tmp_path / "best.pt"))
    model = build(config)
    report = load_weights(model, config, ("dog", "cat"))
    after = model.state_dict()
    assert not report.not_loaded and not report.unused and report.matched_classes == 2
    assert torch.equal(after["backbone.body.conv1.weight"], averaged["backbone.body.conv1.weight"])
    assert torch.equal(after[f"{PREDICTOR}cls_score.weight"], averaged[f"{PREDICTOR}cls_score.weight"][[0, 2, 1]])
    torch.save({"model": trained, "ema": None, "classes": ["cat", "dog"]}, tmp_path / "best.pt")
    load_weights(model, config, ("cat", "dog"))
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", ["model", "state_dict", None])
def test_tensors_may_be_nested_below_a_usual_key(wrap, tmp_path):
    state = {"a": torch.ones(2)}
    torch.save({wrap: state, "epoch": 3} if wrap else state, tmp_path / "w.pth")
    stored = read_weights(str(tmp_path / "w.pth"))
    assert torch.equal(stored.tensors["a"], state["a"]) and list(stored.tensors) == ["a"]
    assert stored.class_names == [] and stored.settings == {}


def test_names_that_contradict_the_rows_of_the_file_are_noted(tmp_path):
    torch.save({f"{PREDICTOR}cls_score.bias": torch.ones(3)}, tmp_path / "w.pth")
    config = replace(SMALL, weights=str(tmp_path / "w.pth"))
    stored = replace(read_weights(config.weights), class_names=["__background__", "cat", "dog", "cow", "hen"])
    report = load_weights(predictor_of(2), config, CLASSES, stored)
    assert report.notes == ("the names of classes in the file (4) are not used: its predictor has 2 classes",)


def test_a_file_without_any_fitting_tensor_is_an_error(tmp_path):
    torch.save({"encoder.weight": torch.ones(2)}, tmp_path / "other.pth")
    config = replace(SMALL, weights=str(tmp_path / "other.pth"))
    with pytest.raises(BadInput, match=r"no tensor in it fits resnet18_fpn; it holds encoder\.weight"):
        load_weights(build(config), config, CLASSES)


class Evil:
    """An object that calls a function when it is unpickled."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("content", ["text", "nothing", "cut short", "code", "no tensors", "a list"])
def test_a_foreign_file_is_named_and_no_code_in_it_is_run(content, tmp_path):
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
def test_an_unknown_name_gets_the_allowed_ones(name):
    with pytest.raises(BadInput, match="no such file, and torchvision has no weights of this name. Use imagenet, coco"):
        read_weights(name)


def no_network(*args, **kwargs):
    raise URLError("no route to host")


def test_without_network_the_error_names_the_url_and_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    entry = models.ResNet18_Weights.IMAGENET1K_V1
    config = replace(SMALL, weights="imagenet")
    with pytest.raises(BadInput) as caught:
        load_weights(build(config), config, CLASSES)
    path = tmp_path / "hub" / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    assert entry.url in str(caught.value) and str(path) in str(caught.value) and "no route" in str(caught.value)

    # The remedy of the error is enough: the file at that path loads.
    state = models.resnet18(weights=None).state_dict()
    os.makedirs(path.parent, exist_ok=True)
    torch.save(state, path)
    model = build(config)
    assert load_weights(model, config, CLASSES).unused == ["fc.weight", "fc.bias"]
    assert torch.equal(model.backbone.body.conv1.weight, state["conv1.weight"])


@pytest.mark.parametrize("content", [b"", b"<html>log in first</html>", b"PK\x03\x04 half a file"])
def test_a_broken_file_at_the_path_of_a_download_is_an_error_that_names_it(content, tmp_path, monkeypatch):
    """Half a download that was copied by hand, or the page of a proxy."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    path = tmp_path / "hub" / "checkpoints" / models.ResNet18_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[-1]
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(BadInput, match=path.name):
        read_weights("ResNet18_Weights.IMAGENET1K_V1")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_imagenet_names_weights_that_torchvision_has(backbone):
    """Those of the classifier that the backbone is cut from."""
    name = weights_name(Model(backbone=backbone, weights="imagenet"))
    assert models.get_weight(name).meta["categories"][0] == "tench"  # ImageNet's first class
    assert models.get_weight(name) == models.get_model_weights(classifier_of(backbone)).IMAGENET1K_V1


def test_coco_names_weights_of_the_same_backbone_and_no_others():
    assert weights_name(Model(backbone="resnet50_fpn", weights="coco")) == "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"
    assert models.get_weight(weights_name(Model(backbone="mobilenet_v3_large_fpn", weights="coco"))).url
    assert weights_name(Model(backbone="resnet50_fpn_v2", weights="coco")) == "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1"
    for backbone in set(BACKBONES) - {"resnet50_fpn", "resnet50_fpn_v2", "mobilenet_v3_large_fpn"}:
        with pytest.raises(BadInput, match=f"not for {backbone}. Use imagenet, or a file"):
            weights_name(Model(backbone=backbone, weights="coco"))


@pytest.mark.parametrize("text", ["/data/mine.pth", "ResNet50_Weights.IMAGENET1K_V2"])
def test_a_file_and_a_full_name_stay_as_they_are(text):
    assert weights_name(Model(weights=text)) == text
