"""Detectors without a run: torchvision's COCO detectors by name, files of weights with a config, and where they are looked for."""

import json
import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torchvision import models
from torchvision.models import detection

from detector import load
from detector.__main__ import main
from detector.config.aliases import PRINTED_NOTES
from detector.config.load import load_config
from detector.errors import BadInput
from detector.inference import weights_file
from detector.inference.predict import default_folder
from detector.inference.weights_file import COCO_DETECTORS, coco_config, results_folder
from detector.model.faster_rcnn import build_model
from detector.model.weights.load import frozen_norm_eps, weights_name

SMALLEST = "fasterrcnn_mobilenet_v3_large_320_fpn"
CATEGORIES = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]  # by the row of torchvision's predictor
LIKELY = ("person", "cat", "toothbrush")  # from the first to the last row
# Small images and few boxes, as a config on top of another.
SMALL = "evaluate: {min_size: 64, max_size: 96, max_detections: 5, score_thresh: 0.0}\n" \
        "model: {rpn: {pre_nms_top_n_eval: 50, post_nms_top_n_eval: 20}}\n"


def noisy_image() -> Image.Image:
    pixels = np.random.RandomState(0).randint(0, 256, (24, 32, 3)).astype(np.uint8)
    return Image.fromarray(pixels).resize((320, 240))


def torchvision_detector(builder: str) -> torch.nn.Module:
    """Returns torchvision's detector with made-up weights: in the noisy image, many detections of the LIKELY classes.

    The logits of these classes are standardised over the proposals of the image; all others are low. The norms of the backbone
    have the statistics of the image: else all proposals were nearly equal, and their differences mostly rounding.
    """
    torch.manual_seed(0)
    model = getattr(detection, builder)(weights=None, weights_backbone=None, num_classes=91).eval()
    predictor, features = model.roi_heads.box_predictor, []
    hook = predictor.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
    rows = [CATEGORIES.index(name) for name in LIKELY]
    image = torch.from_numpy(np.array(noisy_image())).permute(2, 0, 1) / 255
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.momentum = 1.0
    with torch.no_grad():
        model.backbone.train()(model.transform([image])[0].tensors)
        model.eval()([image])
        hook.remove()
        logits = features[0] @ predictor.cls_score.weight[rows].T
        predictor.cls_score.bias[:] = -20
        predictor.cls_score.bias[rows] = -logits.mean(dim=0) / logits.std(dim=0)
        predictor.cls_score.weight[rows] /= logits.std(dim=0)[:, None]
        predictor.cls_score.bias[0] = 0
    return model


def save_as_download(builder: str, home: Path) -> torch.nn.Module:
    """Saves made-up weights where torchvision would have downloaded the published ones; returns their detector."""
    model = torchvision_detector(builder)
    url = models.get_weight(weights_name(coco_config(f"coco:{builder}").model)).url
    (home / "hub" / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), home / "hub" / "checkpoints" / os.path.basename(url))
    return model


@pytest.fixture
def torch_home(tmp_path, monkeypatch) -> Path:
    """Returns the folder that torchvision downloads to. There is no network."""
    def no_network(*args, **kwargs):
        raise URLError("no route to host")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "torch"


@pytest.fixture
def photo(tmp_path) -> Path:
    noisy_image().save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def released_weights(path: Path, config_name: str, num_classes: int, **content) -> str:
    """Saves random weights with the model's names; returns the path."""
    torch.manual_seed(0)
    config = load_config(config_name)
    torch.save({"model": build_model(config.model, config.evaluate, num_classes).state_dict(), **content}, path)
    return str(path)


def test_a_coco_detector_detects_what_torchvisions_does_and_names_it_alike(torch_home, photo):
    torchvisions = save_as_download(SMALLEST, torch_home)
    detect = load(f"coco:{SMALLEST}", device="cpu")
    assert len(detect.classes) == 80 and "N/A" not in detect.classes and "mobilenet" in repr(detect)
    image = torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1)
    with torch.no_grad():
        expected, = torchvisions([image / 255])
    detections = detect(photo, score=0.05)
    assert set(detections.names) == set(LIKELY) and detections.scores[0] > detections.scores[-1] + 0.01
    same_name = np.array(detections.names)[:, None] == np.array([CATEGORIES[label] for label in expected["labels"]])
    same_box = np.abs(detections.boxes[:, None] - expected["boxes"].numpy()).max(axis=2) < 0.1
    same_score = np.abs(detections.scores[:, None] - expected["scores"].numpy()) < 1e-3
    matched = (same_name & same_box & same_score).any(axis=1).sum()
    assert matched >= len(detections) - 5 > 20, "rounding may change what NMS keeps of a few"


@pytest.mark.parametrize("builder", COCO_DETECTORS)
def test_every_coco_detector_has_a_config_and_a_download(builder):
    config = coco_config(f"coco:{builder}")
    assert len(models.get_weight(weights_name(config.model)).meta["categories"]) == 91 and hasattr(detection, builder)
    expected = getattr(detection, builder)(weights=None, weights_backbone=None).transform
    assert (config.evaluate.min_size, config.evaluate.max_size) == (expected.min_size[0], expected.max_size)


def test_coco_alone_is_the_resnet50_fpn():
    assert coco_config("coco") == coco_config("coco:fasterrcnn_resnet50_fpn")


def test_without_network_the_error_names_file_and_folder_and_nothing_is_written(torch_home, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "coco", str(photo)]) == 2
    error = capsys.readouterr().err
    url = detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url
    assert url in error and str(torch_home / "hub" / "checkpoints" / os.path.basename(url)) in error and "no route" in error
    assert not (tmp_path / "predictions").exists() and not list(torch_home.rglob("*.pth"))


def test_predict_without_a_run_writes_into_the_current_folder(torch_home, photo, tmp_path, monkeypatch, capsys):
    save_as_download(SMALLEST, torch_home)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["predict", f"coco:{SMALLEST}", str(photo), "--score", "0.05"]) == 0, capsys.readouterr().err
    assert "are in predictions/photo" in capsys.readouterr().out
    categories = json.loads((tmp_path / "here" / "predictions" / "photo" / "images.json").read_text())["categories"]
    assert [category["name"] for category in categories][:3] == ["person", "bicycle", "car"] and len(categories) == 80
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["predictions"]


def test_a_coco_detector_is_exported_with_its_class_names(torch_home, photo, tmp_path, monkeypatch, capsys):
    save_as_download(SMALLEST, torch_home)
    monkeypatch.chdir(tmp_path)
    assert main(["export", f"coco:{SMALLEST}", "--format", "safetensors", "--images", str(photo)]) == 0, capsys.readouterr().err
    with safe_open(tmp_path / "export" / "detector.safetensors", "pt") as file:
        assert json.loads(file.metadata()["labels"])["1"] == "person"
    detect = load("export/detector.safetensors", device="cpu", config="coco/mobilenet_v3_large_fpn")
    assert len(detect.classes) == 80 and len(detect(photo, score=0.05)) > 0


def test_an_original_checkpoint_with_its_row_has_the_classes_of_voc_and_the_pooling_of_the_file(tmp_path, photo):
    weights = released_weights(tmp_path / "faster_rcnn_1_10_625.pth", "tables/voc07-res101-g1-b1", 20, pooling_mode="crop",
                               class_agnostic=False)
    (tmp_path / "small.yaml").write_text("base: tables/voc07-res101-g1-b1\n" + SMALL)
    detect = load(weights, device="cpu", config=str(tmp_path / "small.yaml"))
    assert detect.classes[:2] == ("aeroplane", "bicycle") and len(detect.classes) == 20
    assert detect.config.model.roi_pooling == "crop" and detect.config.model.pixel_format == "caffe"
    assert len(detect(photo, score=0.0)) > 0


@pytest.mark.parametrize("num_classes, first, count", [(80, "person", 80), (20, "aeroplane", 20), (90, "person", 80)])
def test_classes_of_a_file_that_names_none_follow_from_their_number(num_classes, first, count, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(PRINTED_NOTES, "")
    weights = released_weights(tmp_path / "w.pth", "coco/mobilenet_v3_large_fpn", num_classes)
    classes = load(weights, device="cpu", config="coco/mobilenet_v3_large_fpn").classes
    assert (classes[0], len(classes)) == (first, count)
    dataset = "PASCAL VOC" if num_classes == 20 else "COCO"
    assert f"w.pth does not name its {num_classes} classes: those of {dataset} are taken; data.classes" in capsys.readouterr().err


def test_torchvisions_file_of_coco_weights_is_run_as_coco_is(tmp_path, monkeypatch, capsys):
    """The weights were trained with an epsilon of 0 in frozen norms."""
    monkeypatch.setenv(PRINTED_NOTES, "")
    monkeypatch.setattr(weights_file, "build_from_weights", lambda config, classes, stored: (config.model, stored.class_names))
    name = os.path.basename(detection.FasterRCNN_ResNet50_FPN_Weights.COCO_V1.url)
    for path, expected in ((tmp_path / name, 0.0), (tmp_path / "mine.pth", None)):
        torch.save({"roi_heads.box_predictor.cls_score.bias": torch.zeros(91)}, path)
        model, class_names = weights_file.open_weights(str(path), "coco/resnet50_fpn")
        assert frozen_norm_eps(model) == expected and class_names == CATEGORIES
        assert ("are taken" in capsys.readouterr().err) == (path.name != name)


def test_classes_of_another_number_are_listed_in_the_config(tmp_path, photo, capsys):
    weights = released_weights(tmp_path / "w.pth", "coco/mobilenet_v3_large_fpn", 2)
    with pytest.raises(BadInput, match="does not name its 2 classes. List them in order as data.classes"):
        load(weights, device="cpu", config="coco/mobilenet_v3_large_fpn")
    (tmp_path / "mine.yaml").write_text("base: coco/mobilenet_v3_large_fpn\ndata: {classes: [hen, egg]}\n" + SMALL)
    detect = load(weights, device="cpu", config=str(tmp_path / "mine.yaml"))
    assert "are taken" not in capsys.readouterr().err
    assert detect.classes == ("hen", "egg") and set(detect(photo, score=0.0).names) <= {"hen", "egg"}


def test_classes_that_the_file_does_not_know_are_refused(tmp_path):
    weights = released_weights(tmp_path / "w.pth", "coco/mobilenet_v3_large_fpn", 2, classes=["__background__", "hen", "egg"])
    config = weights_file.config_with_weights(weights, "coco/mobilenet_v3_large_fpn")
    assert weights_file.build_from_weights(config, ("egg", "hen")).report.matched_classes == 2
    with pytest.raises(BadInput, match="w.pth does not know 1 class of hen, cow; their rows in the predictor would be random"):
        weights_file.build_from_weights(config, ("hen", "cow"))


def test_a_file_that_is_no_detector_is_not_asked_for_its_classes(tmp_path):
    torch.save({"model_state_dict": {"net.a": torch.ones(1), "net.b": torch.ones(2)}}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="w.pth: no tensor in it fits the class scores of mobilenet_v3_large_fpn; it holds net.a, net.b"):
        load(str(tmp_path / "w.pth"), device="cpu", config="coco/mobilenet_v3_large_fpn")


def test_a_run_that_is_called_coco_comes_before_torchvisions_detector(untrained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "coco").mkdir()  # a folder of data is no run
    (tmp_path / "runs").mkdir()
    Path(untrained_run).rename(tmp_path / "runs" / "mine")
    assert load("mine", device="cpu").classes == ("cat", "dog")
    assert results_folder("coco") == results_folder("coco:fasterrcnn_resnet50_fpn_v2") == Path(".")
    (tmp_path / "runs" / "mine").rename(tmp_path / "runs" / "coco")
    assert load("coco", device="cpu").classes == ("cat", "dog") and results_folder("coco") == Path("runs/coco")
    (tmp_path / "coco").rmdir()
    assert load("coco", device="cpu").classes == ("cat", "dog") and results_folder("coco") == Path("runs/coco")


@pytest.mark.parametrize("name", ["coco", "coco:fasterrcnn_resnet50_fpn_v2"])
def test_a_data_set_in_a_folder_coco_gets_no_results(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    assert default_folder(name, "a.jpg") == Path("predictions/a")
    assert default_folder(str(tmp_path / name), "a.jpg") == tmp_path / name / "predictions/a"  # a run by its path


def test_a_checkpoint_of_a_run_needs_no_config(untrained_run, photo):
    checkpoint = Path(untrained_run) / "checkpoints" / "step-00000007.pt"
    detections, expected = (load(name, device="cpu")(photo, score=0.0) for name in (checkpoint, untrained_run))
    assert len(detections) > 0 and repr(detections) == repr(expected)


@pytest.mark.parametrize("arguments, message", [
    (["coco:fasterrcnn_resnet50"], "coco:fasterrcnn_resnet50: torchvision has no such Faster R-CNN (did you mean"),
    (["coco", "--config", "coco/resnet50_fpn"], "leave --config out"), (["{run}", "--config", "coco/resnet50_fpn"], "leave --config out"),
    (["coc"], "no such run folder: coc. Name the folder"), (["coc"], "coco is a detector that needs no run"),
    (["{weights}"], "need the config that they belong to: --config"),
    (["{weights}", "--config", "coco/resnet51"], "no such config"),
    (["{weights}", "--config", "coco/resnet50_fpn"], "does not fill"), (["{tmp}/none.pth"], "no such checkpoint"),
    (["{tmp}/none.pth", "--config", "coco/resnet50_fpn"], "no such file of weights"),
    (["coco", "--checkpoint", "last"], "--checkpoint last: is of a run folder, and coco is none; leave --checkpoint out"),
    (["{weights}", "--config", "coco/resnet50_fpn", "--checkpoint", "best"], "w.pth is none; leave --checkpoint out"),
    (["{run}", "--overlap", "0.5"], "--overlap 0.5 is of the tiles of --slice: add --slice 640, or leave --overlap out"),
    (["{weights}", "--config", "{tmp}/auto.yaml"], "evaluate.min_size=auto")])
def test_names_that_are_no_detector_are_bad_input(arguments, message, untrained_run, tmp_path, photo, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = released_weights(tmp_path / "w.pth", "coco/mobilenet_v3_large_fpn", 2, classes=["hen", "egg"])
    (tmp_path / "auto.yaml").write_text("data: {root: /data}\nmodel: {backbone: mobilenet_v3_large_fpn}")
    words = [word.format(weights=weights, run=untrained_run, tmp=tmp_path) for word in arguments]
    assert main(["predict", words[0], str(photo), *words[1:]]) == 2
    assert message in (error := capsys.readouterr().err) and "Traceback" not in error
    assert not (tmp_path / "predictions").exists()
