"""The commands of README.md, From photographs to a detector: photographs are labelled, trained on, and labelled with suggestions."""

import contextlib
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from annotation_page import AnnotationPage
from chromium import CHROMIUM, Browser
from conftest import REPO, TINY

pytestmark = [pytest.mark.whole, pytest.mark.slow,
              pytest.mark.skipif(not CHROMIUM, reason="no chromium is installed: nothing was labelled in a browser")]
FLEET = [sys.executable, "-m", "launcher.cli"]
LABELLED = 12
README = (REPO / "README.md").read_text().partition("## From photographs to a detector")[2]
QUICK = [*TINY, "schedule.steps=30", "optim.lr=0.01", "evaluate.every_epochs=100", "data.cache="]


def run(folder: Path, *words: str) -> str:
    done = subprocess.run([*FLEET, *words], cwd=folder, capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    import os
    return {**os.environ, "PYTHONPATH": str(REPO), "PYTHONUNBUFFERED": "1"}


@contextlib.contextmanager
def annotating(folder: Path, browser: Browser, *words: str):
    """Runs `fleet-rcnn annotate`, yields its page, and ends it as Ctrl-C does."""
    process = subprocess.Popen([*FLEET, *words], cwd=folder, stdout=subprocess.PIPE, text=True, env=environment())
    try:
        address = next(match[1] for line in process.stdout if (match := re.match(r"open (http://127.0.0.1:\S+)", line)))
        yield AnnotationPage(browser, address)
        process.send_signal(signal.SIGINT)
        hint = re.search(r"train on it: echo (.*) > photos.yaml && fleet-rcnn train photos.yaml", process.stdout.read())
        config, = shlex.split(hint[1])
        assert yaml.safe_load(config)["data"] == {"root": "photos", "format": "per_image_json", "train": "all", "val": 0.2}
        assert process.wait(30) == 130
    finally:
        process.kill()


def commands() -> list[list[str]]:
    """Returns the commands of the first block of the section."""
    block = re.search(r"\n\n((?:    .*\n)+)", README)[1]
    return [shlex.split(line, comments=True) for line in block.splitlines()]


def label(page: AnnotationPage, targets: list[Path]) -> None:
    for target in targets:
        page.settled()
        page.run("zoomToFit()")
        for box in json.loads(target.read_text())["boxes"]:
            page.draw([max(0, value) for value in box])
        page.settled()
        page.key("n")


def test_from_photographs_to_a_detector_that_helps_to_label(heads, tmp_path):
    photos, images = tmp_path / "photos", sorted((heads / "input").iterdir())[:LABELLED + 2]
    photos.mkdir()
    for path in images:
        shutil.copy(path, photos)
    first, *echoes, check, train, second, _, predict = commands()
    for words in echoes:
        subprocess.run(["bash", "-c", shlex.join(words).replace("'>'", ">").replace("'>>'", ">>")], cwd=tmp_path, check=True)
    with Browser() as browser, annotating(tmp_path, browser, *first[1:]) as page:
        label(page, [heads / "target" / f"{path.stem}.json" for path in images[:LABELLED]])
        page.settled()
        assert page.run("data.images.filter(row => row.state === 'labelled').length") == LABELLED
    for path in images[:LABELLED]:
        true, drawn = (np.array(json.loads((folder / f"{path.stem}.json").read_text())["boxes"])
                       for folder in (heads / "target", photos / "labels"))
        with_limits = np.clip(true, 0, None)
        assert len(true) == len(drawn) and np.median(np.abs(with_limits - drawn)) < 1
    assert "no problem found" in run(tmp_path, *check[1:], *QUICK)
    run(tmp_path, *train[1:], *QUICK)
    files = {path.name: path.read_bytes() for path in (photos / "labels").iterdir()}
    with Browser() as browser, annotating(tmp_path, browser, *second[1:], "--score", "0.05") as page:
        assert page.run("page.index") == LABELLED  # the first that is not labelled
        page.wait("suggestions().length > 0", "JSON.stringify(current())", 120)
        count = page.run("suggestions().length")
        assert {path.name: path.read_bytes() for path in (photos / "labels").iterdir()} == files
        page.key("Enter")
        page.settled()
        saved = json.loads((photos / "labels" / f"{images[LABELLED].stem}.json").read_text())
        assert len(saved["boxes"]) == count and page.run("page.index") == LABELLED + 1
    assert "no problem found" in run(tmp_path, *check[1:], *QUICK)
    (tmp_path / "runs" / "heads").rename(tmp_path / "runs" / "heads2")
    shutil.copytree(photos, tmp_path / "more-photos")
    run(tmp_path, *predict[1:])
    assert len(list((tmp_path / "runs" / "heads2" / "predictions" / "more-photos").glob("*.jpg"))) == len(images)
