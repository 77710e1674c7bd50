"""Scoring beside the steps: the same in a process of its own and in this one; what goes wrong there is heard here."""

import os
import signal
import time
from dataclasses import replace

import numpy as np
import pytest

from detector.config.load import load_config
from detector.data.formats.shapes import CLASSES
from detector.data.read import read_val
from detector.evaluation.scoring import Predictions
from detector.structures import Detections
from detector.training import async_evaluation
from detector.training.async_evaluation import Drawn, Scorer


@pytest.fixture
def config(tiny, config_file):
    return load_config(str(config_file), tiny)


@pytest.fixture
def val(config):
    return read_val(config.data, CLASSES)


def truth_of(val, step: int = 3) -> Predictions:
    """A detector that finds everything."""
    found = Detections(val.image_ids[val.image_of_box()], val.boxes, np.ones(len(val.labels), np.float32), val.labels)
    return Predictions(step, found, np.zeros((0, 6)), np.arange(len(val)), (), 1.0, 0.0)


def scorer_of(val, config, folder, workers: int) -> Scorer:
    return Scorer(val, replace(config, run=replace(config.run, num_workers=workers)), folder)


def drawn(scorer: Scorer) -> Drawn:
    while scorer.is_drawing():
        time.sleep(0.01)
    return scorer.drawn()


def test_in_a_process_of_its_own_it_gives_the_same(val, config, tmp_path):
    given = []
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        folder.mkdir()
        scorer = scorer_of(val, config, folder, workers)
        assert scorer.wait() is None  # nothing was started
        scorer.start(truth_of(val))
        with pytest.raises(AssertionError, match="still being scored"):
            scorer.start(truth_of(val))
        assert scorer.busy() == (workers == 1)  # else it is done here and now
        given.append((scorer.wait(), drawn(scorer)))
        assert not scorer.busy() and scorer.drawn() is None
        scorer.start(truth_of(val, step=4))  # again, in the same process
        assert scorer.wait().step == 4 and scorer.wait() is None
        scorer.close()
    (scored, here), (there_scored, there) = given
    assert scored.metrics["AP"] == 1 and here.step == there.step == 3
    assert replace(scored, elapsed_s=0) == replace(there_scored, elapsed_s=0)
    assert here.pictures == there.pictures and [picture.name for picture in here.pictures][-1] == "analysis/confusion"
    assert all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(here.curves, there.curves, strict=True))
    for name in ("results.json", "detections.json"):
        assert (tmp_path / "1" / name).is_file()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_is_heard_once_and_the_next_evaluation_works(val, config, tmp_path, workers):
    scorer, twice = scorer_of(val, config, tmp_path, workers), truth_of(val)
    scorer.start(replace(twice, seen=np.zeros(len(val), np.int64)))
    while scorer.error is None:
        time.sleep(0.01)
    with pytest.raises(AssertionError, match="evaluated twice"):
        scorer.wait()
    assert scorer.error is None
    scorer.start(truth_of(val))
    assert scorer.wait().metrics["AP"] == 1
    scorer.close()


def test_the_process_leaves_stop_signals_to_its_parent_and_its_death_is_heard(val, config, tmp_path):
    scorer = scorer_of(val, config, tmp_path, 1)
    scorer.start(truth_of(val))
    scorer.wait()
    process, = scorer.pool._processes
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(process, number)
    scorer.start(truth_of(val))
    assert scorer.wait().metrics["AP"] == 1
    os.kill(process, signal.SIGKILL)
    with pytest.raises(Exception, match="terminated abruptly"):
        scorer.start(truth_of(val))
        scorer.wait()
    scorer.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_nobody_waits_for_drawings_when_a_run_ends(val, config, tmp_path, workers, monkeypatch):
    scorer = scorer_of(val, config, tmp_path, workers)
    scorer.start(truth_of(val))
    assert scorer.wait().metrics["AP"] == 1
    if workers:
        scorer.drawing.result()
        slow = scorer.pool.submit(time.sleep, 60)
        while not slow.running():
            time.sleep(0.01)
        scorer.drawing = slow
    else:
        monkeypatch.setattr(async_evaluation, "draw", lambda *_: pytest.fail("it was drawn"))
    scorer.forget_drawing()
    assert scorer.drawn() is None
    started_at = time.monotonic()
    scorer.close()
    assert time.monotonic() - started_at < 30
