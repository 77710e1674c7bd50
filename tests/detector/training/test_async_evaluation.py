"""Background evaluation gives the same results in a process of its own and in this one, and reports its errors here."""

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
from detector.training.async_evaluation import BackgroundScorer, Drawings


@pytest.fixture
def config(tiny, config_file):
    return load_config(str(config_file), tiny)


@pytest.fixture
def val(config):
    return read_val(config.data, CLASSES)


def perfect_predictions(val, step: int = 3) -> Predictions:
    detections = Detections(val.image_ids[val.image_of_box()], val.boxes, np.ones(len(val.labels), np.float32), val.labels)
    return Predictions(step, detections, [], np.arange(len(val)), (), 1.0, 0.0)


def scorer_of(val, config, folder, workers: int) -> BackgroundScorer:
    return BackgroundScorer(val, replace(config, run=replace(config.run, num_workers=workers, plots=True)), folder)


def wait_for_drawings(scorer: BackgroundScorer) -> Drawings:
    while scorer.is_drawing():
        time.sleep(0.01)
    return scorer.take_drawings()


def test_a_process_of_its_own_gives_the_same_results(val, config, tmp_path):
    results = []
    for workers in (0, 1):
        folder = tmp_path / str(workers)
        folder.mkdir()
        scorer = scorer_of(val, config, folder, workers)
        assert scorer.take_evaluation() is None  # nothing was started
        scorer.start(perfect_predictions(val))
        with pytest.raises(AssertionError, match="still being scored"):
            scorer.start(perfect_predictions(val))
        assert scorer.is_scoring() == (workers == 1)  # else it is done here and now
        results.append((scorer.take_evaluation(), wait_for_drawings(scorer)))
        assert not scorer.is_scoring() and scorer.take_drawings() is None
        scorer.start(perfect_predictions(val, step=4))  # again, in the same process
        assert scorer.take_evaluation().step == 4 and scorer.take_evaluation() is None
        scorer.close()
    (scored, drawings), (scored_there, drawings_there) = results
    assert scored.metrics["AP"] == 1 and drawings.step == drawings_there.step == 3
    assert replace(scored, elapsed_s=0) == replace(scored_there, elapsed_s=0)
    assert drawings.images == drawings_there.images and [image.name for image in drawings.images][-1] == "plots/confusion"
    assert all(a[0] == b[0] and np.array_equal(a[1], b[1]) for a, b in zip(drawings.pr_curves, drawings_there.pr_curves, strict=True))
    for name in ("results.json", "detections.json"):
        assert (tmp_path / "1" / name).is_file()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_is_raised_once_and_the_next_evaluation_works(val, config, tmp_path, workers):
    scorer, predictions = scorer_of(val, config, tmp_path, workers), perfect_predictions(val)
    scorer.start(replace(predictions, indices=np.zeros(len(val), np.int64)))
    while scorer.error is None:
        time.sleep(0.01)
    with pytest.raises(AssertionError, match="evaluated twice"):
        scorer.take_evaluation()
    assert scorer.error is None
    scorer.start(perfect_predictions(val))
    assert scorer.take_evaluation().metrics["AP"] == 1
    scorer.close()


def test_the_process_ignores_stop_signals_and_after_its_death_this_process_scores(val, config, tmp_path):
    scorer = scorer_of(val, config, tmp_path, 1)
    scorer.start(perfect_predictions(val))
    scorer.take_evaluation()
    process, = scorer.pool._processes
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.kill(process, number)
    scorer.start(perfect_predictions(val))
    assert scorer.take_evaluation().metrics["AP"] == 1
    os.kill(process, signal.SIGKILL)
    scorer.start(perfect_predictions(val, step=5))
    assert scorer.error is None
    evaluation = scorer.take_evaluation()
    assert (evaluation.step, evaluation.metrics["AP"]) == (5, 1) and scorer.take_drawings() is None
    assert len(scorer.notes) == 1 and "was killed (the usual cause is a lack of memory" in scorer.notes[0]
    scorer.start(perfect_predictions(val, step=6))  # in a new process
    assert scorer.take_evaluation().step == 6 and list(scorer.pool._processes) != [process] and len(scorer.notes) == 1
    scorer.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stopped_run_does_not_wait_for_drawings(val, config, tmp_path, workers, monkeypatch):
    scorer = scorer_of(val, config, tmp_path, workers)
    scorer.start(perfect_predictions(val))
    assert scorer.take_evaluation().metrics["AP"] == 1
    if workers:
        scorer.drawing.result()
        slow = scorer.pool.submit(time.sleep, 60)
        while not slow.running():
            time.sleep(0.01)
        scorer.drawing = slow
    else:
        monkeypatch.setattr(async_evaluation, "draw", lambda *_: pytest.fail("drawings were made"))
    scorer.drop_drawings()
    assert scorer.take_drawings() is None
    started_at = time.monotonic()
    scorer.close()
    assert time.monotonic() - started_at < 30
