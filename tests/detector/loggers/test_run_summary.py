"""The first and the last lines of a training."""

import json
import shlex
from pathlib import Path

import pytest

from detector.loggers.run_header import run_header
from detector.loggers.run_summary import next_commands, run_summary
from detector.loggers.styled_lines import plain_lines


def make_run(folder: Path, *evaluations: dict) -> Path:
    """Returns a run folder with these evaluations in its record and a checkpoint of each."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"kind": "evaluation", **line}) + "\n" for line in evaluations))
    for name in [f"step-{line['step']:08d}.pt" for line in evaluations] + ["best.pt"] * bool(evaluations):
        (folder / "checkpoints" / name).touch()
    start = {"at": 0.0, "until": 90.0, "ranks": 1, "gpus": 0, "device": "cpu", "cores": 2, "global_batch": 4, "first_step": 0, "step": 45,
             "seconds": {"steps": 90.0}}
    (folder / "usage.json").write_text(json.dumps({"starts": [start]}))
    return folder


CLASSES = {"cat": {"AP": 0.2, "AP50": 0.4}, "dog": {"AP": 0.3, "AP50": 0.5}}
BEST = {"step": 40, "AP": 0.25, "AP50": 0.45, "loss": 1.0, "per_class": CLASSES}
LAST = {"step": 80, "AP": 0.01, "AP50": 0.02, "loss": 3.0, "per_class": {}}


def test_the_end_tells_the_best_and_the_last_evaluation_with_their_checkpoints(tmp_path):
    run = make_run(tmp_path / "run", BEST, LAST)
    lines = plain_lines(run_summary(run, 80, 100, "AP", "photo.jpg"))
    assert lines[0] == f"finished: 80 of 100 steps are done; results are in {run}"
    assert lines[1].split() == "best AP 0.2500 at step 40 AP50 0.4500 loss 1.0000 checkpoints/best.pt".split()
    assert lines[2].split() == "last AP 0.0100 at step 80 AP50 0.0200 loss 3.0000 checkpoints/step-00000080.pt".split()
    assert lines[3].split() == "time 0:01:30 180 images 2.0 images/s over all".split()
    assert [line.split() for line in lines[4:7]] == [["classes", "at", "step", "40", "AP", "AP50"], ["dog", "0.300", "0.500"],
                                                     ["cat", "0.200", "0.400"]]
    assert "metrics.jsonl (all numbers)" in lines[7] and "plots" not in lines[7]
    assert lines[8].split(maxsplit=1) == ["next", f"fleet-rcnn evaluate {run} --report"]
    assert len(lines) == 11


def test_a_best_evaluation_that_is_the_last_is_told_once(tmp_path):
    lines = plain_lines(run_summary(make_run(tmp_path / "run", LAST, BEST), 40, 40, "AP"))
    assert lines[1].startswith("best, last  AP 0.2500") and lines[2].startswith("time")


def test_a_run_without_evaluations_or_record_has_an_end_too(tmp_path):
    lines = plain_lines(run_summary(tmp_path, 2, 2, "AP", "a photo.jpg"))
    assert [line.split()[0] for line in lines] == ["finished:", "time", "files", "next", "fleet-rcnn"]
    assert lines[3].endswith(f"fleet-rcnn predict {tmp_path} 'a photo.jpg'")


@pytest.mark.parametrize("width", [60, 80, 140, 200])
def test_the_end_fits_the_terminal_but_for_commands_that_are_to_be_copied(width, tmp_path):
    lines = run_summary(make_run(tmp_path / "run", BEST, LAST), 80, 100, "AP", "photo.jpg")(width)
    wide = [line.plain for line in lines if line.cell_len > width]
    assert all("fleet-rcnn" in line or str(tmp_path) in line for line in wide)


def test_every_command_is_one_that_exists(tmp_path):
    from detector.arguments.verbs import parse
    commands = next_commands(tmp_path / "a run", "a photo.jpg", has_evaluation=True)
    verbs = [parse(shlex.split(command)[1:]).verb for command in commands]
    assert verbs == ["evaluate", "predict", "export"]


def test_the_header_has_its_titles_beside_the_first_sentence_of_each_section():
    block = run_header({"data": ["one two three four", "five"], "notes": ["", ""], "device": ["rank  host", "0     a"]})
    assert plain_lines(block) == ["data    one two three four", "        five", "device  rank  host", "        0     a"]
    narrow = [line.plain for line in block(20)]
    assert narrow[1:-1] == ["data    one two", "        three four", "        five", "device  rank  host", "        0     a"]
    assert plain_lines(run_header({})) == [] == run_header({})(80)
