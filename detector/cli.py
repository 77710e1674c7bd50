"""Runs the verbs of `python -m detector`; detector/arguments/ declares their arguments."""

import argparse
import json
import re
import shutil
import sys

from detector import train
from detector.config.listing import config_schema, options_as_records, options_as_text, select_options
from detector.config.load import load_config
from detector.distributed.rank_info import rank
from detector.distributed.stop_signal import StopRequest
from detector.errors import OK, STOPPED, BadInput


def is_collective(args: argparse.Namespace) -> bool:
    """Returns whether all ranks run the verb together and stop together; other verbs run in one process."""
    return args.verb == "train" or (args.verb == "evaluate" and not args.time and not args.weights)


def run_collective(args: argparse.Namespace, stop: StopRequest) -> int:
    """Runs train or evaluate on all ranks and returns the exit status; a stop requested on one rank stops all."""
    if args.verb == "evaluate":
        if not args.run:
            raise BadInput("evaluate: a run is missing. Name a run folder, such as runs/bccd, or --weights FILE "
                           "--recipe ROW")
        from detector.evaluation.evaluate_run import evaluate_run
        done = evaluate_run(args.run, args.overrides, args.checkpoint, lambda: stop.requested, args.report,
                            args.json)
        if not done and rank() == 0:
            print(f"stopped ({stop.reason}): nothing was written", flush=True)
        return OK if done else STOPPED
    outcome = train(load_config(args.config, args.overrides), stop)
    from detector.training.loop import Outcome
    return OK if outcome is Outcome.FINISHED else STOPPED


def run_single(args: argparse.Namespace) -> int:
    """Runs a verb of one process and returns the exit status."""
    return SINGLE[args.verb](args) or OK


# Each function imports what it needs when it runs, so that --help and mistakes in a config are answered without torch.

def run_check(args: argparse.Namespace) -> int:
    from detector.checks.check import check
    return check(args.config, args.overrides, args.json, args.quick, args.processes)


def run_evaluate(args: argparse.Namespace) -> None:
    """Runs `evaluate --weights` and `evaluate --time`."""
    for name in ("report", "json"):
        if getattr(args, name):
            raise BadInput(f"--{name} with {'--weights' if args.weights else '--time'}: --{name} is of a run's own "
                           "evaluation; leave out one of the two")
    if args.weights:
        from detector.evaluation.evaluate_weights import evaluate_weights
        if not args.recipe:
            raise BadInput("--weights needs --recipe: a row of the tables, or a config, of the model that the weights "
                           "belong to")
        evaluate_weights(args.weights, args.recipe, [word for word in (args.run, *args.overrides) if word])
    else:
        from detector.inference.latency import measure_latency
        measure_latency(args.run, args.overrides, args.checkpoint)


def run_score(args: argparse.Namespace) -> None:
    from detector.evaluation.score_file import score_file
    score_file(args.detections, args.annotations, args.metric)


def run_compare(args: argparse.Namespace) -> None:
    from detector.evaluation.compare import compare
    compare(args.run_a, args.run_b, args.resamples, args.json)


def run_view(args: argparse.Namespace) -> None:
    from detector.inspection.view import view
    view(args.config, args.overrides, args.out)


def run_anchors(args: argparse.Namespace) -> None:
    from detector.inspection.view import anchors
    anchors(args.config, args.overrides, args.out)


def run_predict(args: argparse.Namespace) -> int:
    from detector.inference.predict import predict
    return predict(args.run, args.source, args.device, args.score, args.out, args.checkpoint, args.batch, args.frames,
                   args.report, args.config, args.slice, args.overlap)


def run_export(args: argparse.Namespace) -> None:
    from detector.inference.export import export
    export(args.run, args.format, args.out, args.checkpoint, args.images, parse_padded_size(args.padded_size),
           args.config)


def parse_padded_size(text: str) -> tuple[int, int] | None:
    """Returns height and width of HEIGHTxWIDTH, such as 800x1333; None for "". Raises BadInput."""
    if not text:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or not all(1 <= int(length) <= 10_000 for length in match.groups()):
        raise BadInput(f"--padded-size {text}: must be HEIGHTxWIDTH in pixels, each from 1 to 10000, such as 800x1333")
    return int(match[1]), int(match[2])


def run_data(args: argparse.Namespace) -> None:
    from detector.data.download.get import download_dataset, list_datasets
    if args.action == "list":
        if args.name:
            raise BadInput(f"data list {args.name}: list shows all data sets. `fleet-rcnn data get {args.name}` "
                           "downloads one")
        print(list_datasets(args.root))
    elif not args.name:
        raise BadInput("data get: a NAME is missing, such as data get deeppcb. `fleet-rcnn data list` shows the names")
    else:
        download_dataset(args.name, args.root, args.keep)


def run_convert(args: argparse.Namespace) -> None:
    from detector.data.convert import convert
    print(convert(args.source, args.to, args.out, args.format, args.split, args.images, args.copy))


def run_annotate(args: argparse.Namespace) -> None:
    from detector.annotation.annotate import annotate
    annotate(args.source, args.classes, args.split, args.run, args.score, args.host, args.port, args.follow_links)


def run_tables(args: argparse.Namespace) -> None:
    from detector.tables.show import show
    show(args.row, args.runs, args.html, args.markdown, args.csv, args.models)


def run_sync(args: argparse.Namespace) -> None:
    from detector.sync.sync import sync
    print("\n".join(sync(args.run, args.to, args.url, args.project)))


def run_options(args: argparse.Namespace) -> None:
    if args.schema:
        print(json.dumps(config_schema(), indent=1))
        return
    options = select_options(args.prefix)
    if args.json:
        print(json.dumps(options_as_records(options), indent=1))
    else:
        print(options_as_text(options, shutil.get_terminal_size().columns if sys.stdout.isatty() else 0))


# Verbs of one process -> function; it returns an exit status, or None for 0.
SINGLE = {"check": run_check, "evaluate": run_evaluate, "score": run_score, "compare": run_compare, "view": run_view,
          "anchors": run_anchors, "predict": run_predict, "export": run_export, "data": run_data,
          "convert": run_convert, "annotate": run_annotate, "tables": run_tables, "options": run_options,
          "sync": run_sync}
