"""What README.md says is so: its commands run, its tree is the tree."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from conftest import REPO, TINY
from PIL import Image

from detector.config.load import load_config
from launcher.cli import parser

pytestmark = pytest.mark.whole
TEXT = (REPO / "README.md").read_text()
COMMANDS = [line.split("  #")[0].strip() for line in TEXT.splitlines()
            if re.match(r"    (fleet-rcnn|torchrun|make|tensorboard) ", line)]
COMMANDS += re.findall(r"`((?:python|pytest|fleet-rcnn) [^`]+)`", TEXT)


def test_there_are_commands_of_every_kind():
    assert {command.split()[0] for command in COMMANDS} == {
        "fleet-rcnn", "torchrun", "make", "tensorboard", "python", "pytest"}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_things_that_exist(command):
    program, *words = shlex.split(command)
    if program == "make":
        assert re.search(rf"^{words[0]}:", (REPO / "Makefile").read_text(), re.MULTILINE)
    elif program in ("python", "pytest"):
        assert (REPO / words[0]).exists()
        if words[0].endswith(".py") and len(words) > 1 and not words[1].startswith("--"):
            load_config(words[1], words[2:])
    elif "reproduce" in words:
        row = words[words.index("reproduce") + 1]
        load_config(f"tables/{row}", [word for word in words if "=" in word])
    elif "train" in words:
        _, rest = parser().parse_known_args(words[words.index("train"):])
        load_config(rest[0], rest[1:])


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_check_train_evaluate_predict_one_after_another(tiny, tmp_path, shapes_root):
    fleet = [sys.executable, "-m", "launcher.cli"]
    config, overrides = "configs/shapes/demo.yaml", [*tiny, "schedule.steps=2"]
    folder = tmp_path / "runs" / "tiny"
    assert "no problem found" in run(*fleet, "check", config, *overrides)
    assert "finished: 2 of 2 steps" in run(*fleet, "train", config, *overrides)
    for name in ("config.yaml", "environment.json", "log.txt", "metrics.jsonl", "results.json", "detections.json",
                 "checkpoints/step-00000002.pt", "checkpoints/best.pt"):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").iterdir()) and list((folder / "pictures").iterdir())

    assert "AP50" in run(*fleet, "evaluate", str(folder))
    assert "5 images" in run(*fleet, "predict", str(folder), str(shapes_root / "val"), "--score", "0.01")
    found = [image["file_name"] for image in json.loads((folder / "predictions" / "images.json").read_text())["images"]]
    assert len(found) == 5 and all((folder / "predictions" / name).is_file() for name in found)
    one = next(iter((shapes_root / "val").iterdir()))
    run(*fleet, "predict", str(folder), str(one), "--score", "1", "--out", str(tmp_path / "out"))  # nothing is found
    assert Image.open(tmp_path / "out" / one.name).size == Image.open(one).size


def test_real_data_in_each_format_is_read_and_checked(bccd, heads, coco_tiny, tmp_path):
    for arguments in (["custom/bccd", f"data.root={bccd}"],
                      ["custom/bccd", "data.format=per_image_json", f"data.root={heads}", "data.train=0:16",
                       "data.val=16:20"],
                      ["custom/coco_tiny", f"data.root={coco_tiny}", "data.val=val2017"]):
        said = run(sys.executable, "-m", "launcher.cli", "check", *arguments, f"data.cache={tmp_path}")
        assert "no problem found" in said


def test_real_photographs_train_and_are_scored(bccd, config_file, tmp_path):
    overrides = [*TINY, "data.format=voc", f"data.root={bccd}", f"data.cache={tmp_path}", f"run.folder={tmp_path}",
                 "schedule.steps=2", "run.name=cells", "evaluate.metric=voc"]
    assert "AP_11point" in run(sys.executable, "-m", "launcher.cli", "train", str(config_file), *overrides)


def test_the_tree_names_every_file():
    tree = TEXT.split("## The tree")[1]
    for folder in ("launcher", "detector"):
        for path in (REPO / folder).rglob("*.py"):
            if path.name != "__init__.py":
                assert path.name in tree, f"README's tree does not name {path.relative_to(REPO)}"
    for name in re.findall(r"\b[\w/]+\.py\b", tree):
        assert list((REPO / "detector").rglob(name.split("/")[-1])) or (REPO / "launcher" / name).exists(), name
