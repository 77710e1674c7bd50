"""python -m detector VERB ...: what torchrun and every launcher run."""

import argparse
import errno
import os
import signal
import sys
import traceback
from typing import Callable

from detector import errors
from detector.config.load import all_options, folder_of, load_config
from detector.stopping import SIGNALS, StopRequest

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)  # full, over quota, read-only, not allowed


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fleet-rcnn", description=__doc__)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, *positional: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about, description=about)
        for argument in positional:
            sub.add_argument(argument)
        return sub

    train = verb("train", "train a config, or go on with its run", "config")
    train.add_argument("overrides", nargs="*", metavar="key=value")
    check = verb("check", "say what is wrong with a config and its data, before anything runs", "config")
    check.add_argument("overrides", nargs="*", metavar="key=value")
    check.add_argument("--json", action="store_true", help="problems, notes and facts for a script")
    check.add_argument("--quick", action="store_true", help="leave out every image and the trial step")
    check.add_argument("--processes", type=int, default=0, metavar="N", help="of the run to be; default: the GPUs here")
    evaluate = verb("evaluate", "score a run's checkpoint on its validation data", "run")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value")
    evaluate.add_argument("--checkpoint", default="best", help="best, last, or a file")
    predict = verb("predict", "draw what a run's detector finds in images", "run", "source")
    predict.add_argument("--score", type=float, default=0.5, help="least score of what is drawn and written")
    predict.add_argument("--out", default="", help="folder for pictures and JSON; default: RUN/predictions")
    predict.add_argument("--checkpoint", default="best", help="best, last, or a file")
    predict.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    verb("options", "every option of a config file, with its default and what is allowed")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and gives the exit status: 0 done, 2 bad input, 75 stopped early, 1 everything else."""
    said = parser().parse_args(arguments)
    if said.verb not in ("train", "evaluate"):
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
    except OSError as error:
        if error.errno not in DISK:
            raise
        print(f"error: cannot write {error.filename or 'a file'}: {error.strerror}. Make room, or name another folder "
              "(run.folder, data.cache, --out)", file=sys.stderr)
        return errors.BAD_INPUT
    except errors.NotFinite as error:
        print(f"error: {error}", file=sys.stderr)
        return errors.FAILED
    except Exception:
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            raise
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(errors.FAILED)  # at once: its peers may wait in a collective, and an orderly end would wait for them


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
    if said.verb == "check":
        from detector.check import check
        return check(said.config, said.overrides, said.json, said.quick, said.processes)
    from detector.distributed import choose_device
    from detector.predict import predict
    predict(said.run, said.source, choose_device(said.device), said.score, said.out, said.checkpoint)
    return errors.OK


def run_together(said: argparse.Namespace, stop: StopRequest) -> int:
    """A verb of all ranks, which they leave together when one of them is asked to stop."""
    if said.verb == "evaluate":
        from detector.evaluate import evaluate_run
        done = evaluate_run(said.run, said.overrides, said.checkpoint, lambda: stop.asked)
        return errors.OK if done else errors.STOPPED
    from detector.distributed import process_group
    from detector.train import Outcome, train
    config = load_config(said.config, said.overrides)
    with process_group(config.run.device, config.run.timeout_minutes, folder_of(config) / "heartbeats") as device:
        return errors.OK if train(config, device, stop) is Outcome.FINISHED else errors.STOPPED


if __name__ == "__main__":
    sys.exit(main())
