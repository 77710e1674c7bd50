"""An evaluation that was scored beside the steps goes on record; what the record says of the run."""

import time

from detector import checkpoint, distributed
from detector.checkpoint import TrainState
from detector.journal import best_of, out_of_patience
from detector.scorer import Drawn
from detector.scoring import Evaluation
from detector.step import Run


def settle(run: Run) -> None:
    """The evaluation that is being scored goes on record, and marks the best. Collective; what went wrong in it raises
    on all ranks.

    It comes before all that is later than the evaluation and stays: a line of the record, a checkpoint, the end. Its
    drawings come when they are there.
    """
    def note() -> None:
        evaluation = run.scorer.wait()
        if evaluation is not None:
            put_on_record(run, evaluation)
        pictures = run.scorer.drawn()
        if pictures is not None:
            put_on_board(run, pictures)
    if run.scorer.busy():
        run.heart.beat("scoring")  # else a long one is told of as a step that stands still
    distributed.only_on_main(note)


def settle_drawings(run: Run) -> bool:
    """Waits for the drawings of the last evaluation as well; False if any rank was asked to stop. Collective."""
    settle(run)
    run.heart.beat("drawing")
    while True:
        drawing, asked = distributed.any_rank(run.scorer.is_drawing(), run.stop.asked)
        if asked:
            return False
        if not drawing:
            settle(run)
            return True
        time.sleep(0.05)


def put_on_record(run: Run, evaluation: Evaluation) -> None:
    """The best comes first and the record last: what is on record needs not be done again."""
    run.saver.wait()
    folder, record = run.journal.folder, run.journal.evaluations(run.config.evaluate.best)
    reached = evaluation.step, evaluation.metrics[run.config.evaluate.best]
    if best_of([*record, reached]) == reached or not (folder / "checkpoints" / "best.pt").exists():
        checkpoint.mark_best(folder, checkpoint.file_of(folder, evaluation.step))
    run.journal.evaluation(evaluation.step, evaluation.metrics, evaluation.per_class)
    for message in evaluation.unreadable:
        run.journal.say(f"could not be read, a grey picture stands in: {message}")


def put_on_board(run: Run, drawn: Drawn) -> None:
    """After the record: an evaluation that is done again would be on the board twice."""
    for picture in drawn.pictures:
        run.journal.picture(drawn.step, picture)
    for name, counts in drawn.curves:
        run.journal.precision_recall(drawn.step, name, counts)
    run.journal.board.flush()


def evaluated(state: TrainState, run: Run) -> bool:
    """Is the evaluation of this step on record? Rank 0's record counts."""
    on_record = run.journal.evaluations(run.config.evaluate.best)
    return distributed.from_main(str(any(step == state.step for step, _ in on_record))) == "True"


def finished_early(run: Run) -> bool:
    """Has the metric stopped getting better for too long? Rank 0's record counts."""
    if not run.config.schedule.patience:
        return False
    settle(run)
    on_record = run.journal.evaluations(run.config.evaluate.best)
    return distributed.from_main(str(out_of_patience(on_record, run.config.schedule.patience))) == "True"
