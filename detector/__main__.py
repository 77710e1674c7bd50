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
    evaluate = verb("evaluate", "score a run's checkpoint on its validation data, or weights from elsewhere")
    evaluate.add_argument("run", nargs="?", default="", help="a run folder; not with --weights")
    evaluate.add_argument("overrides", nargs="*", metavar="key=value")
    evaluate.add_argument("--checkpoint", default="best", help="best, last, or a file")
    evaluate.add_argument("--weights", default="", metavar="FILE", help="another program's weights instead of a run")
    evaluate.add_argument("--recipe", default="", metavar="ROW", help="with --weights: a row of a table, or a config")
    evaluate.add_argument("--time", action="store_true", help="instead: milliseconds per image, on CPU and GPU")
    evaluate.add_argument("--report", action="store_true", help="write RUN/report.html, too: a page to look at")
    predict = verb("predict", "draw what a run's detector finds in images, a video or a camera", "run", "source")
    predict.add_argument("--score", type=float, default=0.5, help="least score of what is drawn and written")
    predict.add_argument("--out", default="", help="folder for pictures, JSON and CSV; default: RUN/predictions")
    predict.add_argument("--checkpoint", default="best", help="best, last, or a file")
    predict.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    predict.add_argument("--batch", type=int, default=4, help="images that are predicted at once")
    predict.add_argument("--frames", type=int, default=0, help="stop after so many images or frames; 0: all")
    predict.add_argument("--report", action="store_true", help="write report.html, too: a page to look at")
    view = verb("view", "look at data as the network will see it, or at anchors over it", "what")
    view.add_argument("words", nargs="*", metavar="CONFIG key=value",
                      help="view CONFIG key=value ...: the data; view anchors CONFIG key=value ...: the anchors")
    view.add_argument("--out", default="", help="page to write; default: view.html or anchors.html")
    export = verb("export", "write a run's detector for other programs, and compare it with the model", "run")
    export.add_argument("--format", default="onnx", choices=("onnx", "torchscript", "weights"))
    export.add_argument("--out", default="", help="file to write; default: RUN/export/detector.*")
    export.add_argument("--checkpoint", default="best", help="best, last, or a file")
    export.add_argument("--images", default="", help="image or folder to compare on; default: the validation data")
    data = verb("data", "the data sets of the published tables: list them, or get one").add_subparsers(
        dest="action", required=True, metavar="list | get NAME")
    listing = data.add_parser("list", help="which there are, where they go, what is there, what is missing, licence")
    get = data.add_parser("get", help="download, verify, unpack and check one; a second start goes on")
    get.add_argument("name")
    get.add_argument("--keep", action="store_true", help="leave the archives in ROOT/downloads")
    for sub in (listing, get):
        sub.add_argument("--root", default="data", help="folder that holds all data sets; default: data")
    tables = verb("tables", "the published tables: printed, and measured in run folders")
    form = tables.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true")
    form.add_argument("--csv", action="store_true")
    form.add_argument("--html", metavar="FILE", nargs="?", const="tables.html", help="default: tables.html")
    form.add_argument("--models", action="store_true", help="parameters and operations of each row's model instead")
    tables.add_argument("--row", default="", help="this row alone")
    tables.add_argument("--runs", default="runs", help="folder of the run folders; default: runs")
    verb("options", "every option of a config file, with its default and what is allowed")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb and gives the exit status: 0 done, 2 bad input, 75 stopped early, 1 everything else."""
    said = parser().parse_args(arguments)
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
    if said.verb == "data":
        from detector import obtain
        print(obtain.listing(said.root)) if said.action == "list" else obtain.get(said.name, said.root, said.keep)
        return errors.OK
    if said.verb == "tables":
        from detector.tables.show import show
        show(said.row, said.runs, said.html, said.markdown, said.csv, said.models)
        return errors.OK
    if said.verb == "check":
        from detector.check import check
        return check(said.config, said.overrides, said.json, said.quick, said.processes)
    if said.verb == "view":
        from detector.view import view
        view(said.what, said.words, said.out)
        return errors.OK
    if said.verb == "export":
        from detector.export import export
        export(said.run, said.format, said.out, said.checkpoint, said.images)
        return errors.OK
    if said.verb == "evaluate" and said.weights:
        from detector.evaluate_weights import evaluate_weights
        if not said.recipe:
            raise errors.BadInput("--weights needs --recipe: a row of the tables, or a config, that says what they are "
                                  "the weights of")
        evaluate_weights(said.weights, said.recipe, [word for word in (said.run, *said.overrides) if word])
        return errors.OK
    if said.verb == "evaluate":
        from detector.timing import time_run
        time_run(said.run, said.overrides, said.checkpoint)
        return errors.OK
    from detector.predict import predict
    return predict(said.run, said.source, said.device, said.score, said.out, said.checkpoint, said.batch, said.frames,
                   said.report)


def run_together(said: argparse.Namespace, stop: StopRequest) -> int:
    """A verb of all ranks, which they leave together when one of them is asked to stop."""
    if said.verb == "evaluate":
        if not said.run:
            raise errors.BadInput("evaluate what? Name a run folder, such as runs/bccd, or --weights FILE --recipe ROW")
        from detector.evaluate import evaluate_run
        done = evaluate_run(said.run, said.overrides, said.checkpoint, lambda: stop.asked, said.report)
        return errors.OK if done else errors.STOPPED
    from detector.distributed import process_group
    from detector.train import Outcome, train
    config = load_config(said.config, said.overrides)
    with process_group(config.run.device, config.run.timeout_minutes, folder_of(config) / "heartbeats") as device:
        return errors.OK if train(config, device, stop) is Outcome.FINISHED else errors.STOPPED


if __name__ == "__main__":
    sys.exit(main())
