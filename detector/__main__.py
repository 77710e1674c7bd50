"""python -m detector VERB ...: what torchrun and every launcher run."""

import argparse
import errno
import os
import signal
import sys
import traceback
from typing import Callable

from detector import errors
from detector.cli import parse
from detector.config.load import all_options, load_config, run_folder
from detector.data.workers import worker_context
from detector.distributed.stop_signal import SIGNALS, StopRequest

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # full, over quota, read-only, not allowed


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and gives the exit status: 0 done, 2 bad input, 75 stopped early, 1 everything else."""
    said = parse(arguments)
    together = said.verb == "train" or said.verb == "evaluate" and not (said.time or said.weights)
    if not together:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # whoever started this may have blocked them
        return tell_errors(lambda: run(said))
    with StopRequest() as stop:  # before torch is imported: that takes seconds, in which a stop may come
        status = tell_errors(lambda: run_together(said, stop))
        stop.ignore_from_here()
        return status


def tell_errors(function: Callable[[], int]) -> int:
    """The exit status of `function`, or of the error that it raised; what the user can mend is one clear line."""
    try:
        return function()
    except errors.BadInput as error:
        if int(os.environ.get("LOCAL_RANK", 0)) == 0:  # all ranks of a machine know the same
            print(f"error: {error}", file=sys.stderr)
        return errors.BAD_INPUT
    except BrokenPipeError:  # the reader of our output has had enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter fails again at its end
        return alone(errors.FAILED)
    except OSError as error:
        if error.errno not in DISK:
            return unforeseen()
        print(f"error: cannot write {error.filename or 'a file'}: {error.strerror}. Make room, or name another folder "
              "(run.folder, data.cache, --out)", file=sys.stderr)
        return alone(errors.BAD_INPUT)
    except errors.NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return errors.FAILED
    except Exception:
        return unforeseen()


def unforeseen() -> int:
    """The error that is being handled, as Python tells of it."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        raise
    traceback.print_exc()
    return alone(errors.FAILED)


def alone(status: int) -> int:
    """Of an error that this rank may have alone. With peers the process ends here and now: they may wait in a
    collective, and an orderly end would wait for them."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stderr.flush()
        os._exit(status)
    return status


def run(said: argparse.Namespace) -> int:
    """A verb of one process."""
    # torch is imported where it is needed, so that --help and mistakes in a config answer at once
    if said.verb == "options":
        for path, field in all_options().items():
            low, high = field.metadata["low"], field.metadata["high"]
            bounds = [f">= {low}"] * (low is not None) + [f"<= {high}"] * (high is not None)
            allowed = " | ".join(field.metadata["choices"]) or ", ".join(bounds)
            print(f"{path} = {field.default!r}\n    {field.metadata['about']}" + (f" [{allowed}]" if allowed else ""))
        return errors.OK
    if said.verb == "data":
        from detector.data.download import get
        print(get.listing(said.root)) if said.action == "list" else get.get(said.name, said.root, said.keep)
        return errors.OK
    if said.verb == "tables":
        from detector.tables.show import show
        show(said.row, said.runs, said.html, said.markdown, said.csv, said.models)
        return errors.OK
    if said.verb == "check":
        from detector.checks.check import check
        return check(said.config, said.overrides, said.json, said.quick, said.processes)
    if said.verb == "score":
        from detector.evaluation.score_file import score_file
        score_file(said.detections, said.annotations, said.metric)
        return errors.OK
    if said.verb == "compare":
        from detector.evaluation.compare import compare
        compare(said.run_a, said.run_b, said.resamples)
        return errors.OK
    if said.verb == "view":
        from detector.inspection.view import view
        view(said.what, said.words, said.out)
        return errors.OK
    if said.verb == "export":
        from detector.inference.export import export
        export(said.run, said.format, said.out, said.checkpoint, said.images)
        return errors.OK
    if said.verb == "evaluate" and said.report:
        raise errors.BadInput(f"--report with {'--weights' if said.weights else '--time'}: the page is of a run's own "
                              "evaluation; leave one of the two out")
    if said.verb == "evaluate" and said.weights:
        from detector.evaluation.evaluate_weights import evaluate_weights
        if not said.recipe:
            raise errors.BadInput("--weights needs --recipe: a row of the tables, or a config, that says what they are "
                                  "the weights of")
        evaluate_weights(said.weights, said.recipe, [word for word in (said.run, *said.overrides) if word])
        return errors.OK
    if said.verb == "evaluate":
        from detector.inference.latency import time_run
        time_run(said.run, said.overrides, said.checkpoint)
        return errors.OK
    from detector.inference.predict import predict
    return predict(said.run, said.source, said.device, said.score, said.out, said.checkpoint, said.batch, said.frames,
                   said.report)


def run_together(said: argparse.Namespace, stop: StopRequest) -> int:
    """A verb of all ranks, which they leave together when one of them is asked to stop."""
    if said.verb == "evaluate":
        if not said.run:
            raise errors.BadInput("evaluate what? Name a run folder, such as runs/bccd, or --weights FILE --recipe ROW")
        from detector.evaluation.evaluate import evaluate_run
        done = evaluate_run(said.run, said.overrides, said.checkpoint, lambda: stop.requested, said.report)
        return errors.OK if done else errors.STOPPED
    config = load_config(said.config, said.overrides)
    if config.run.num_workers:
        worker_context()  # their server imports torch while this process does
    from detector.distributed.process_group import process_group
    from detector.training.loop import Outcome, train
    with process_group(config.run.device, config.run.timeout_minutes, run_folder(config) / "heartbeats") as device:
        return errors.OK if train(config, device, stop) is Outcome.FINISHED else errors.STOPPED


if __name__ == "__main__":
    sys.exit(main())
