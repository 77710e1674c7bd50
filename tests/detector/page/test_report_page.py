"""The report in a real browser: it opens without a fault, its sliders and filters change what is drawn, names are text."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detector.album import Film
from detector.metrics.analysis import ERRORS, analyse
from detector.records import CROWD, DIFFICULT, Dataset, Detections, assemble
from detector.report import About, report_evaluation, report_predictions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: the report was not opened in a browser")
NASTY = ["<script>document.title='taken'</script>", "\"quoted\" 'names' & </script><b>bold</b>", "plain"]
SIDE = 300


def opened(path: Path, address: str = "") -> dict[str, str]:
    """What the page says of itself (data-* of its root) with this state in its address; and its text as "dom"."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--enable-logging=stderr", "--dump-dom",
             "--virtual-time-budget=5000", f"--user-data-dir={path.parent / 'browser'}")
    done = subprocess.run([CHROMIUM, *flags, f"file://{path}#{address}"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "HOME": str(path.parent)})
    assert "CONSOLE" not in done.stderr, done.stderr
    root = re.search(r"<html[^>]*>", done.stdout).group(0)
    said = dict(re.findall(r'data-([a-z]+)="([^"]*)"', root))
    assert said.get("ready") == "yes" and "fault" not in said, (said, done.stderr[-2000:])
    return {**said, "dom": done.stdout}


def random_case(root: Path, images: int = 30) -> tuple[Dataset, Detections]:
    """Objects with crowds and difficult ones among them, and detections that err in every way."""
    draw = np.random.default_rng(0)
    rows, found = [], []
    for image in range(images):
        Image.new("RGB", (SIDE, SIDE), "grey").save(root / f"{image}.png")
        for _ in range(int(draw.integers(0, 6))):
            label, (x, y), (w, h) = int(draw.integers(1, 4)), draw.uniform(0, 200, 2), draw.uniform(10, 100, 2)
            rows.append((image, label, draw.choice([0, 0, 0, CROWD, DIFFICULT]), w * h, x, y, x + w, y + h))
            for _ in range(int(draw.integers(0, 4))):
                box = np.array([x, y, x + w, y + h]) + draw.normal(0, 8, 4)
                found.append((image, label if draw.random() < .7 else draw.integers(1, 4), draw.uniform(.05, 1), *box))
        found += [(image, draw.integers(1, 4), draw.uniform(.05, .6), x, x, x + 40, x + 30) for x in draw.uniform(0, 200, 2)]
    data = assemble("test", str(root), NASTY, [1, 2, 3], [(f"{i}.png", i + 1, SIDE, SIDE) for i in range(images)], np.array(rows))
    table = np.array(found)
    boxes = np.clip(table[:, 3:], 0, SIDE).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return data, Detections(table[:, 0].astype(np.int64) + 1, boxes, table[:, 2].astype(np.float32), table[:, 1].astype(np.int32))


ABOUT = About(NASTY[0], (NASTY[1],), "a command", 0.7)


@pytest.fixture(scope="module", params=["coco", "voc"])
def case(request, tmp_path_factory):
    """(page, dataset, detections, analysis)"""
    root = tmp_path_factory.mktemp(request.param)
    data, found = random_case(root)
    analysis = analyse(found, data, request.param)
    about = About(ABOUT.title, ABOUT.facts, ABOUT.made, ABOUT.nms_iou, request.param)
    report_evaluation(root / "report.html", about, data, found, analysis, analysis.metrics)
    return root / "report.html", data, found, analysis


def test_it_opens_and_tells_what_was_counted(case):
    path, data, found, analysis = case
    said = opened(path)
    kinds = dict(zip(ERRORS, analysis.image_errors.sum(axis=0).tolist()))
    wrong = sum(kinds[kind] for kind in ("localisation", "class", "both", "duplicate", "background"))
    assert (int(said["right"]), int(said["wrong"]), int(said["missed"])) == (kinds["right"], wrong, kinds["missed"])
    assert int(said["listed"]) == len(data) and len(set(kinds.values())) > 3 and min(kinds.values()) > 0


def test_the_page_judges_as_the_analysis_does(case):
    """What it computes anew when the overlap is moved is, with all detections left, what was computed before."""
    path, _, _, _ = case
    said = opened(path)
    assert said["otherwise"] == "0" and int(said["judged"]) > 100


def test_sliders_and_filters_change_what_is_drawn(case):
    path, data, found, analysis = case
    all_of_it = opened(path, "score=0")
    above, none = opened(path, "score=0.5"), opened(path, "score=1")
    drawn = [int(said["boxes"]) for said in (all_of_it, above, none)]
    assert drawn[0] > drawn[1] > drawn[2] == 0 and int(none["right"]) == 0
    assert int(none["missed"]) == (data.flags == 0).sum()
    assert int(opened(path, "score=0&nms=0.2")["boxes"]) < drawn[0]
    one = opened(path, "score=0&class=3")
    assert int(one["right"]) + int(one["wrong"]) <= (found.labels == 3).sum() and int(one["boxes"]) < drawn[0]
    kind = opened(path, "score=0&error=duplicate")
    assert int(kind["boxes"]) < drawn[0] and "c-duplicate" in kind["dom"] and 'class="box c-right' not in kind["dom"]
    assert int(kind["listed"]) == len({int(i) for i in found.image_ids[analysis.detection_error == ERRORS.index("duplicate")]})
    assert opened(path, "page=2")["page"] == "2" and opened(path, "page=99")["page"] == "2"
    assert "<dialog" in all_of_it["dom"] and re.search(r"<dialog[^>]* open", opened(path, "open=3")["dom"])
    assert opened(path, "theme=dark")["theme"] == "dark"


def test_names_are_text(case):
    dom = opened(case[0], "score=0")["dom"]
    assert "taken</title>" not in dom and "<title>&lt;script&gt;" in dom
    assert "<b>bold" not in dom and "&lt;b&gt;bold" in dom and dom.count("<script>") == 1


def test_moved_overlap_is_that_of_torchvision(case):
    """The page's own non-maximum suppression, beside torchvision's."""
    import torch
    from torchvision.ops import batched_nms
    path, data, found, _ = case
    kept = 0
    for image in data.image_ids:
        rows = np.flatnonzero(found.image_ids == image)
        boxes, scores, labels = (torch.from_numpy(column[rows]) for column in (found.boxes, found.scores, found.labels))
        kept += len(batched_nms(boxes, scores, labels, 0.3)) if len(rows) else 0
    said = opened(path, "score=0&nms=0.3")
    assert int(said["alive"]) == kept < len(found)


def test_predictions_without_ground_truth(tmp_path):
    data, found = random_case(tmp_path, images=4)
    bare = assemble("p", "", NASTY, [1, 2, 3], [(f"{n}.png", n + 1, SIDE, SIDE) for n in range(4)], np.zeros((0, 8)))
    film = Film()
    for _ in range(4):
        film.add(np.zeros((SIDE, SIDE, 3), np.uint8))
    report_predictions(tmp_path / "report.html", ABOUT, bare, found, film)
    said = opened(tmp_path / "report.html", "score=0")
    assert int(said["boxes"]) == len(found) and int(said["listed"]) == 4


def test_nothing_at_all(tmp_path):
    """No class has an object and nothing was found."""
    data = assemble("none", str(tmp_path), NASTY, [1, 2, 3], [("a.png", 1, SIDE, SIDE)], np.zeros((0, 8)))
    found = random_case(tmp_path, images=1)[1]
    nothing = Detections(*(column[:0] for column in (found.image_ids, found.boxes, found.scores, found.labels)))
    analysis = analyse(nothing, data)
    report_evaluation(tmp_path / "report.html", ABOUT, data, nothing, analysis, analysis.metrics)
    assert opened(tmp_path / "report.html")["listed"] == "1"
