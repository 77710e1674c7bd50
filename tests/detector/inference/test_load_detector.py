"""Checkpoints of a run are named by path or by their name in its folder; a config of a newer version is recognised."""

import os
from pathlib import Path

import pytest
import torch

from detector.config.load import from_dict
from detector.errors import BadInput
from detector.inference.load_detector import find_checkpoint, load_detector, open_detector

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path, monkeypatch) -> str:
    """Returns the name of a run with two checkpoints, both empty files; the current folder is that above runs/."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "cells" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("step-00000001.pt", "step-00000002.pt"):
        (folder / name).touch()
    return "cells"


def test_a_checkpoint_is_named_by_its_name_in_the_run_folder(run):
    folder = Path("runs/cells/checkpoints")
    for which, name in (("step-00000001.pt", "step-00000001.pt"), ("last.pt", "step-00000002.pt"), ("last", "step-00000002.pt")):
        assert find_checkpoint(run, which) == folder / name
    (folder / "best.pt").touch()
    for which in ("", "best", "best.pt"):
        assert find_checkpoint(run, which) == folder / "best.pt"
    assert find_checkpoint(run, "last.pt") == folder / "step-00000002.pt"
    assert find_checkpoint(run, str(folder / "step-00000001.pt")) == folder / "step-00000001.pt"
    Path("last.pt").touch()
    assert find_checkpoint(run, "last.pt") == Path("last.pt")  # a path comes first


def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(run):
    with pytest.raises(BadInput, match="no such checkpoint: step-3.pt. In runs/cells/checkpoints: step-00000002.pt, step-00000001.pt. "
                                       "Name one of them, best, or last"):
        find_checkpoint(run, "step-3.pt")
    for path in Path("runs/cells/checkpoints").iterdir():
        os.remove(path)
    with pytest.raises(BadInput, match="no such checkpoint: step-3.pt. There is none in runs/cells/checkpoints: has this run trained"):
        find_checkpoint(run, "step-3.pt")
    with pytest.raises(BadInput, match="no such run folder: none"):
        find_checkpoint("none", "step-3.pt")


def test_a_checkpoint_of_a_newer_version_says_so(untrained_run):
    path = find_checkpoint(untrained_run)
    content = torch.load(path, weights_only=True)
    content["config"]["model"]["deform"] = True
    foreign = path.with_name("newer.pt")
    torch.save(content, foreign)
    message = (r"^config in \S*newer.pt, probably written by a newer version of Fleet R-CNN \(update this one to read it\): "
               r"model.deform: no such option$")
    with pytest.raises(BadInput, match=message):
        load_detector(foreign, CPU)
    with pytest.raises(BadInput, match=message):  # without the advice for weights of other programs
        open_detector(str(foreign), "", CPU)


def test_a_wrong_value_alone_is_of_no_newer_version():
    with pytest.raises(BadInput, match="^config: seed='many'") as caught:
        from_dict({"seed": "many"}, "config")
    assert "newer" not in str(caught.value)
