"""Annotation files are read as json reads them, but for outlines, which become null."""

import gc
import json
import subprocess
import sys

import pytest

from detector.data.formats.json_text import gc_paused, parse_annotations


@pytest.mark.parametrize("outline", ["[[1.5, 2, 3e-2, -4]]", "[]", "[[1,2],[3,4]]", "[ [ 1 ,\n 2 ] ]", "[[1, 2], []]"])
@pytest.mark.parametrize("after", ["", ', "area": 3.5', ', "bbox": [1, 2, 3, 4]', ',\n"more": [[5]]'])
def test_outlines_become_null_and_nothing_else_does(outline, after):
    text = f'{{"annotations": [{{"id": 7, "segmentation": {outline}{after}}}, {{"segmentation" :{outline}}}], "last": [8, [9]]}}'
    plain = json.loads(text)
    for note in plain["annotations"]:
        note["segmentation"] = None
    assert parse_annotations(text.encode()) == plain


@pytest.mark.parametrize("content", [
    {"name": '"segmentation": [1, 2]'}, {'"segmentation': [1, 2]}, {'of "segmentation"': [[1, 2]]}, ["segmentation", [1, 2]],
    {"segmentation": {"counts": [1, 2], "size": [3, 4]}}, {"segmentation": "[1, 2]"}, {"segmentation": None},
    {"segmentations": [[1, 2]]}, {"name": "ü \\ \" \n [1, 2]"}, [], {}, 1.5, "segmentation", None])
def test_everything_else_is_unchanged(content):
    for text in (json.dumps(content), json.dumps(content, ensure_ascii=False), json.dumps(content, indent=1)):
        assert parse_annotations(text.encode()) == content


def test_a_mistake_is_told_with_its_place_in_the_whole_text():
    text = '{"a": {"segmentation": [[1, 2, 3, 4]]},\n "b": nothing}'
    with pytest.raises(json.JSONDecodeError) as plain:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as ours:
        parse_annotations(text.encode())
    assert str(ours.value) == str(plain.value)
    with pytest.raises(UnicodeDecodeError):
        parse_annotations(b'{"a": "\xff"}')


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_it_was(on):
    before = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        with pytest.raises(KeyError), gc_paused():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == on
    finally:
        (gc.enable if before else gc.disable)()


def test_the_server_of_the_workers_is_asked_for_without_torch():
    code = "import sys, detector.data.workers as w; w.worker_context(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
