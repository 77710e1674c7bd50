"""A data set in a folder that this user may not enter: the error says so, instead of that nothing is there."""

import os
from pathlib import Path

import pytest

from detector.annotation.open_source import open_source
from detector.checks.machine import nearest_existing_path
from detector.config.schema import Data
from detector.data.convert import convert
from detector.data.formats.detect import detect_format
from detector.data.read import read_splits
from detector.errors import BadInput


@pytest.fixture
def locked(tmp_path, monkeypatch) -> Path:
    """Returns a folder that may not be entered, also where root runs the tests, who may enter any."""
    folder, stat = tmp_path / "locked", os.stat
    (folder / "set").mkdir(parents=True)

    def forbid(path, *args, **options):
        if not isinstance(path, int) and os.fspath(path).startswith(f"{folder}/"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return stat(path, *args, **options)
    monkeypatch.setattr(os, "stat", forbid)
    return folder


@pytest.mark.parametrize("call", [
    lambda root: detect_format(Data(root=root)), lambda root: read_splits(Data(root=root, cache=""), ("train",)),
    lambda root: read_splits(Data(root=root, format="voc", cache=""), ("train",)), lambda root: convert(root, "voc", f"{root}/../../out"),
    lambda root: open_source(root, ["cat"], "", False)])
@pytest.mark.parametrize("name", ["set", "missing"])
def test_a_folder_that_may_not_be_entered_is_not_called_missing(locked, call, name):
    with pytest.raises(BadInput, match=f"^cannot read .*{locked}/{name}: Permission denied. Let this user read it"):
        call(str(locked / name))


def test_nothing_can_be_created_below_a_folder_that_may_not_be_entered(locked):
    assert nearest_existing_path(locked / "runs" / "a") == locked
