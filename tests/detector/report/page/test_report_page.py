"""The report in a real browser: the page opens without an error, sliders and filters act, names are set as text."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import CHROMIUM, Browser
from PIL import Image
from torchvision.ops import batched_nms

from detector.config.load import load_config
from detector.data.read import read_splits
from detector.metrics.analysis import Analysis, analyse
from detector.metrics.label_review import find_doubtful_labels
from detector.metrics.matching import ABOVE_HALF, image_indices, overlapping_pairs
from detector.metrics.operating_point import errors_at_threshold
from detector.metrics.tide import ErrorTypes
from detector.report import image_budget, report
from detector.report.image_budget import JpegBudget
from detector.report.report import ERROR_KINDS, PageInfo, write_evaluation_report, write_prediction_report
from detector.structures import CROWD, DIFFICULT, Dataset, Detections, build_dataset, concat_detections
from detector.visualization.thumbnails import encode_thumbnail

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: the report was not opened in a browser")]
NASTY = ["<script>document.title='taken'</script>", "\"quoted\" 'names' & </script><b>bold</b>", "plain"]
SIDE = 300


@pytest.fixture(scope="module")
def browser():
    with Browser() as started:
        yield started


def random_case(root: Path, images: int = 30) -> tuple[Dataset, Detections]:
    """Objects, some of them crowds or difficult, and detections with every kind of error."""
    draw = np.random.default_rng(0)
    rows, detections = [], []
    for image in range(images):
        Image.new("RGB", (SIDE, SIDE), "grey").save(root / f"{image}.png")
        for _ in range(int(draw.integers(0, 6))):
            label, (x, y), (w, h) = int(draw.integers(1, 4)), draw.uniform(0, 200, 2), draw.uniform(10, 100, 2)
            rows.append((image, label, draw.choice([0, 0, 0, CROWD, DIFFICULT]), w * h, x, y, x + w, y + h))
            for _ in range(int(draw.integers(0, 4))):
                box = np.array([x, y, x + w, y + h]) + draw.normal(0, 8, 4)
                detections.append((image, label if draw.random() < .7 else draw.integers(1, 4), draw.uniform(.05, 1), *box))
        detections += [(image, draw.integers(1, 4), draw.uniform(.05, .6), x, x, x + 40, x + 30) for x in draw.uniform(0, 200, 2)]
    data = build_dataset("test", str(root), NASTY, [1, 2, 3], [(f"{i}.png", i + 1, SIDE, SIDE) for i in range(images)], np.array(rows))
    table = np.array(detections)
    boxes = np.clip(table[:, 3:], 0, SIDE).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return data, Detections(table[:, 0].astype(np.int64) + 1, boxes, table[:, 2].astype(np.float32), table[:, 1].astype(np.int32))


INFO = PageInfo(NASTY[0], (NASTY[1],), "a command", 0.7)


@dataclass
class Case:
    page: Path
    data: Dataset
    detections: Detections
    analysis: Analysis


@pytest.fixture(scope="module", params=["coco", "voc"])
def case(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    data, detections = random_case(root)
    analysis = analyse(detections, data, request.param)
    info = PageInfo(INFO.title, INFO.facts, INFO.command, INFO.nms_thresh, request.param)
    write_evaluation_report(root / "report.html", info, data, detections, analysis, analysis.metrics)
    return Case(root / "report.html", data, detections, analysis)


def integers(dataset: dict, *keys: str) -> list[int]:
    """Values of the page's data attributes; fails if the page has noted an error."""
    assert "failure" not in dataset, dataset
    return [int(dataset[key]) for key in keys]


def test_the_page_opens_and_shows_the_counts_of_the_analysis(case, browser):
    path, data, analysis = case.page, case.data, case.analysis
    attributes = browser.open(path)
    kinds = dict(zip(ERROR_KINDS, analysis.image_errors.sum(axis=0).tolist()))
    wrong = sum(kinds[kind] for kind in ("localization", "classification", "both", "duplicate", "background"))
    assert integers(attributes, "correct", "wrong", "missed", "listed") == [kinds["correct"], wrong, kinds["missed"], len(data)]
    assert min(kinds.values()) > 0, "the case has every kind of error"


def test_the_page_matches_as_the_analysis_does(case, browser):
    """The page's own matching of all detections equals that of the analysis."""
    path, detections = case.page, case.detections
    assert integers(browser.open(path), "mismatches", "compared") == [0, len(detections)]


def test_sliders_act_at_once(case, browser):
    path, detections = case.page, case.detections
    browser.open(path, "score=0")
    counted = []
    for key in (None, *["ArrowRight"] * 3, "End", "Home"):  # each step is 0.01 of score
        if key is None:
            browser.run("document.querySelector('input[type=range]').focus()")
        attributes = browser.press(*[key] if key else [])
        counted.append(integers(attributes, "shown")[0])
    scores = np.round(detections.scores * 65535) / 65535
    assert counted == [(scores >= least).sum() for least in (0, .01, .02, .03, 1, 0)]
    drawn = browser.run("document.querySelectorAll('.cards rect.box:not(.ground-truth)').length")
    assert drawn == int(browser.dataset()["boxes"]) > 50
    browser.run("document.querySelectorAll('input[type=range]')[1].focus()")
    browser.press(*["ArrowLeft"] * 30)
    assert browser.address("&nms=0.4") == "#score=0&nms=0.4"
    assert browser.run("document.querySelectorAll('.cards rect.box:not(.ground-truth)').length") < drawn


def test_the_nms_slider_keeps_the_detections_that_torchvision_keeps(case, browser):
    """The page's own non-maximum suppression, compared with torchvision's."""
    path, data, detections = case.page, case.data, case.detections
    kept = 0
    for image in data.image_ids:
        rows = np.flatnonzero(detections.image_ids == image)
        boxes, scores, labels = (torch.from_numpy(column[rows]) for column in (detections.boxes, detections.scores, detections.labels))
        kept += len(batched_nms(boxes, scores, labels, 0.3)) if len(rows) else 0
    assert integers(browser.open(path, "score=0&nms=0.3"), "shown") == [kept] and kept < len(detections)


def test_filters(case, browser):
    path, data, detections, analysis = case.page, case.data, case.detections, case.analysis
    none = browser.open(path, "score=1")
    assert integers(none, "boxes", "correct", "missed") == [0, 0, (data.flags == 0).sum()]
    one_class = browser.open(path, "score=0&class=3")
    assert sum(integers(one_class, "correct", "wrong")) <= (detections.labels == 3).sum()
    for number, kind in enumerate(ERROR_KINDS):
        if kind in ("ignored", "missed"):
            continue
        attributes = browser.open(path, f"score=0&error={kind}")
        rows = analysis.detection_error == number
        assert integers(attributes, "listed") == [len(set(detections.image_ids[rows].tolist()))]
        drawn = browser.run("[...document.querySelectorAll('.cards rect.box:not(.ground-truth)')].map(box => box.getAttribute('class'))")
        assert set(drawn) == {f"box c-{kind}"}
    attributes = browser.open(path, "score=1&error=missed")
    assert integers(attributes, "boxes", "listed") == [0, len(set(data.image_of_box()[data.flags == 0].tolist()))]


def test_pages_and_enlarged_images_by_keyboard(case, browser):
    path = case.page
    assert browser.open(path)["page"] == "1"
    assert browser.press("ArrowRight")["page"] == "2" and browser.press("ArrowRight")["page"] == "2"
    assert browser.press("ArrowLeft")["page"] == "1"
    browser.run("document.querySelector('button.card').focus()")
    browser.press("Enter")
    assert browser.run("document.getElementById('enlarged').open") and browser.address("open=0")
    first = browser.run("document.querySelector('#enlarged h3').textContent")
    browser.press("ArrowRight")
    assert browser.run("document.querySelector('#enlarged h3').textContent") != first
    browser.press("Escape")
    assert not browser.run("document.getElementById('enlarged').open")
    assert browser.open(path, "page=99")["page"] == "2"
    assert browser.open(path, "page=0&class=x&error=no&open=77")["page"] == "1"


def test_tables_sort_by_a_click(case, browser):
    browser.open(case.page)
    table = ("[...document.querySelectorAll('section')].find(node => node.querySelector('h2')?.textContent === 'Classes')"
             ".querySelector('table')")
    column = f"[...{table}.querySelectorAll('tbody tr')].map(row => row.children[1].textContent)"
    for _ in range(2):
        browser.run(f"{table}.querySelectorAll('th button')[1].click()")
        counts = [int(text) for text in browser.run(column)]
        order = browser.run(f"{table}.querySelectorAll('th')[1].getAttribute('aria-sort')")
        assert counts == sorted(counts, reverse=order == "descending")
    assert order == "ascending"


@pytest.mark.parametrize("score", [0, 0.3, 0.62])
def test_confusion_matrix_precision_and_recall_follow_the_score_slider(case, browser, score):
    """The page's counts at a score threshold are those of the analysis at that threshold."""
    data, detections, analysis = case.data, case.detections, case.analysis
    is_voc, image = "AP_11point" in next(iter(analysis.per_class.values())), image_indices(detections, data)
    errors = ErrorTypes(*(getattr(analysis, name) for name in ("detection_error", "detection_object", "detection_iou",
                                                                 "object_error", "object_detection")))
    rounded = replace(detections, scores=np.round(detections.scores * 65535) / 65535)
    confusion = errors_at_threshold(score, rounded, data, image, overlapping_pairs(detections, data, 0.1, not is_voc), errors,
                                    ABOVE_HALF if is_voc else 0.5)["confusion"]
    browser.open(case.page, f"score={score}")
    expected = {(int(t), int(p)): int(confusion[t, p]) for t, p in np.argwhere(confusion)}
    assert {(t, p): count for t, p, count in browser.run("confusionCounts()")} == expected
    recall = browser.run("[...document.querySelectorAll('section')].find(node => node.querySelector('h2')?.textContent === 'Classes')"
                         ".querySelector('tbody tr td:last-child').textContent")
    name = browser.run("document.querySelector('section table.wide tbody td button.link').textContent")
    row = confusion[NASTY.index(name) + 1]
    assert float(recall) == pytest.approx(100 * row[NASTY.index(name) + 1] / row.sum(), abs=0.051)


def test_labels_to_look_at_again_have_a_picture_and_a_line_in_a_table(case, browser):
    labels = find_doubtful_labels(case.data, case.detections, 300)
    lines = list(csv.DictReader((case.page.parent / "labels_to_review.csv").open(newline="")))
    assert [line["kind"] for line in lines] == [label.kind for label in labels] and len(lines) > 20
    assert all(Path(line["image"]).is_file() for line in lines)
    browser.open(case.page)
    assert browser.run("document.querySelectorAll('.labels tbody tr').length") == min(len(labels), 100)
    assert browser.run("document.querySelectorAll('.labels tbody svg image').length") == min(len(labels), 100)
    browser.run("document.querySelector('.labels button.crop').click()")
    assert browser.run("document.querySelector('#enlarged h3').textContent") == Path(lines[0]["image"]).name


def test_the_page_of_a_detector_that_finds_nothing_right_shows_all_its_detections(tmp_path, browser):
    data, detections = random_case(tmp_path, images=3)
    nowhere = replace(detections, boxes=np.tile(np.float32([0, 0, 2, 2]), (len(detections), 1)))
    analysis = analyse(nowhere, data)
    assert analysis.f1 == 0
    write_evaluation_report(tmp_path / "report.html", INFO, data, nowhere, analysis, analysis.metrics)
    assert int(browser.open(tmp_path / "report.html")["shown"]) == int(browser.open(tmp_path / "report.html", "score=0")["shown"]) > 0


def test_names_are_text(case, browser):
    browser.open(case.page, "score=0")
    assert browser.run("document.title") == NASTY[0] == browser.run("document.querySelector('h1').textContent")
    assert browser.run("document.querySelectorAll('b').length && ![...document.querySelectorAll('b')].some(b => b.textContent === 'bold')")
    assert browser.run("document.scripts.length") == 2  # the data and the program
    options = browser.run("[...document.querySelectorAll('option')].map(node => node.textContent)")
    assert set(NASTY) <= set(options)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark(case, browser, theme):
    """The theme of the system at first, the other one after a click on the button."""
    other = {"light": "dark", "dark": "light"}[theme]
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
    brightness = ("getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3)"
                  ".reduce((a, b) => a + Number(b), 0)")
    browser.open(case.page)
    own = browser.run(brightness)
    browser.run("document.querySelector('header button').click()")
    assert (own > 600) == (theme == "light") and (browser.run(brightness) > 600) == (other == "light")
    assert browser.dataset()["theme"] == other
    browser.call("Emulation.setEmulatedMedia", features=[])


def noisy(data: Dataset, each: int = 3) -> Detections:
    """Detections near the objects, `each` for one object, one in five with a random label."""
    draw = np.random.default_rng(0)
    rows = np.tile(np.arange(len(data.boxes)), each)
    sides = np.tile(data.boxes[:, 2:] - data.boxes[:, :2], (1, 2))[rows]
    boxes = data.boxes[rows] + draw.normal(0, .12, (len(rows), 4)) * sides
    labels = np.where(draw.random(len(rows)) < .8, data.labels[rows], draw.integers(1, len(data.classes) + 1, len(rows)))
    keep = (boxes[:, 2] > boxes[:, 0] + 1) & (boxes[:, 3] > boxes[:, 1] + 1)
    return Detections(data.image_ids[data.image_of_box()[rows]][keep], boxes[keep].astype(np.float32),
                      draw.uniform(.05, 1, len(rows))[keep].astype(np.float32), labels[keep].astype(np.int32))


@pytest.mark.parametrize("name", ["coco_tiny", "bccd"])
def test_real_data(name, tmp_path, browser, request):
    root = request.getfixturevalue(name)
    config = load_config(f"custom/{name}", [f"data.root={root}", f"data.cache={tmp_path}"])
    data = read_splits(config.data, config.data.val)
    detections = noisy(data)
    analysis = analyse(detections, data)
    write_evaluation_report(tmp_path / "report.html", INFO, data, detections, analysis, analysis.metrics)
    attributes = browser.open(tmp_path / "report.html", "score=0.3")
    kinds = dict(zip(ERROR_KINDS, np.bincount(analysis.detection_error[detections.scores >= .3], minlength=len(ERROR_KINDS))))
    assert integers(attributes, "listed", "correct") == [len(data), kinds["correct"]] and int(attributes["boxes"]) > 100
    assert browser.run("[...document.querySelectorAll('.cards image')].length") == 24
    browser.screenshot(tmp_path / "report.png")


def test_ten_thousand_images(tmp_path, browser, monkeypatch):
    """More images, detections and objects than the limits; one JPEG is made and used for all images."""
    draw, images = np.random.default_rng(0), 10_000
    noise = draw.integers(0, 255, (48, 64, 3), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
    monkeypatch.setattr(report, "read_pixels", lambda dataset, index: noise)
    made = {size[:2]: encode_thumbnail(noise, *size[:2]) for size in (image_budget.LARGE_JPEG, *image_budget.SMALL_JPEGS)}
    monkeypatch.setattr(image_budget, "encode_thumbnail", lambda pixels, *size: made[size])
    count = 17 * images
    corners = draw.uniform(0, 300, (count, 2))
    table = np.column_stack([np.arange(count) % images, draw.integers(1, 81, count), np.zeros(count), np.full(count, 2500.0),
                             corners, corners + draw.uniform(20, 150, (count, 2))])
    data = build_dataset("many", "", [f"class {c}" for c in range(80)], list(range(80)),
                    [(f"a rather long name of an image {i:012d}.jpg", i, 480, 640) for i in range(images)], table)
    detections = noisy(data)
    analysis = analyse(detections, data)
    summary = write_evaluation_report(tmp_path / "report.html", INFO, data, detections, analysis, analysis.metrics)
    assert (tmp_path / "report.html").stat().st_size < 30e6 and "detections with a score of" in summary
    listed = integers(browser.open(tmp_path / "report.html"), "listed")[0]
    assert .9 * images < listed < images and f"{listed} of {images} images" in summary
    assert browser.run("document.querySelectorAll('.card').length") == 24
    assert browser.open(tmp_path / "report.html", "page=200")["page"] == "200"


def test_predictions_without_ground_truth(tmp_path, browser):
    data, detections = random_case(tmp_path, images=4)
    bare = build_dataset("p", "", NASTY, [1, 2, 3], [(f"{n}.png", n + 1, SIDE, SIDE) for n in range(4)], np.zeros((0, 8)))
    budget = JpegBudget(4)
    for _ in range(4):
        budget.add(np.zeros((SIDE, SIDE, 3), np.uint8))
    write_prediction_report(tmp_path / "report.html", replace(INFO, score=0.4), bare, detections, budget)
    assert integers(browser.open(tmp_path / "report.html"), "boxes") == [(detections.scores >= 0.4).sum()], "--score of predict"
    assert integers(browser.open(tmp_path / "report.html", "score=0"), "boxes", "listed") == [len(detections), 4]


def test_no_objects_no_detections_and_no_image(tmp_path, browser):
    """No class has an object, there is no detection, and the image file is missing."""
    data = build_dataset("none", str(tmp_path), NASTY, [1, 2, 3], [("a.png", 1, SIDE, SIDE)], np.zeros((0, 8)))
    nothing = concat_detections([])
    analysis = analyse(nothing, data)
    write_evaluation_report(tmp_path / "report.html", INFO, data, nothing, analysis, analysis.metrics)
    assert integers(browser.open(tmp_path / "report.html"), "listed", "boxes") == [1, 0]
