"""The argument parser of `python -m detector` and, behind the launcher, of `fleet-rcnn`; and what each verb runs."""

import argparse
import re
from collections.abc import Callable
from os.path import expanduser

from detector import __version__, train
from detector.config.aliases import advice_for_flag, print_once
from detector.config.fields import AUTO
from detector.config.load import load_config
from detector.config.options import all_options
from detector.config.parsing import allowed_values
from detector.distributed.stop_signal import StopRequest
from detector.errors import OK, STOPPED, BadInput

AddVerb = Callable[..., argparse.ArgumentParser]  # (name, description, *positional arguments) -> its parser


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of all verbs."""
    parser = argparse.ArgumentParser(prog="fleet-rcnn", description="python -m detector VERB ...: what launchers run.")
    parser.add_argument("--version", action="version", version=f"fleet-rcnn {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def add_verb(name: str, description: str, *positional: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=description, description=description)
        for argument in positional:
            verb.add_argument(argument)
        return verb

    for add_group in (add_training, add_evaluation, add_inspection, add_inference, add_data_and_tables):
        add_group(add_verb)
    add_verb("options", "print every option of a config with its default, description and allowed values")
    return parser


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Returns the parsed command line (default: that of this process).

    Overrides (key=value) may also stand behind flags, where argparse by itself takes no positional argument any more.
    """
    parser = build_parser()
    args, rest = parser.parse_known_args(arguments)
    takes_overrides = hasattr(args, "overrides")
    unknown = [word for word in rest if not takes_overrides or word.startswith("-") or "=" not in word]
    if unknown:
        advice = [f"{word}: {advice_for_flag(word)}" for word in unknown if advice_for_flag(word)]
        parser.error("; ".join([f"unrecognized arguments: {' '.join(unknown)}", *advice]))
    if rest:
        args.overrides = [*args.overrides, *rest]
    if args.verb == "view" and args.config == "anchors":
        use_anchors_verb(parser, args)
    return args


def use_anchors_verb(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Changes `view anchors CONFIG` of version 0.1 to `anchors CONFIG`, in place."""
    if not args.overrides or "=" in args.overrides[0]:
        parser.error("view anchors: a config is missing, such as: fleet-rcnn anchors custom/bccd data.root=/data")
    print_once(["view anchors is now called anchors"])
    args.verb, args.config, args.overrides = "anchors", args.overrides[0], args.overrides[1:]


def add_overrides(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("overrides", nargs="*", default=[], metavar="key=value")


def add_training(add_verb: AddVerb) -> None:
    train = add_verb("train", "train a config, or resume its run", "config")
    add_overrides(train)
    check = add_verb("check", "report problems of a config and its data before anything runs", "config")
    add_overrides(check)
    check.add_argument("--json", action="store_true", help="problems, notes and facts as JSON")
    check.add_argument("--quick", action="store_true", help="skip decoding all images and the trial step")
    check.add_argument("--processes", type=int, default=0, metavar="N",
                       help="processes of the planned run; default: the GPUs of this machine")


def add_evaluation(add_verb: AddVerb) -> None:
    evaluate = add_verb("evaluate", "evaluate a run's checkpoint on its validation data, or weights of another program")
    evaluate.add_argument("run", nargs="?", default="", help="a run folder; not with --weights")
    add_overrides(evaluate)
    evaluate.add_argument("--checkpoint", default="best", help="best, last, or a file")
    evaluate.add_argument("--weights", default="", type=expanduser, metavar="FILE",
                          help="weights of another program, instead of a run")
    evaluate.add_argument("--recipe", default="", metavar="ROW", help="with --weights: a row of a table, or a config")
    evaluate.add_argument("--report", action="store_true", help="also write report.html with images and curves")
    evaluate.add_argument("--time", action="store_true",
                          help="measure milliseconds per image on CPU and GPU instead of evaluating")
    score = add_verb("score", "score any detector's COCO-format results, without a model", "detections", "annotations")
    score.add_argument("--metric", default="coco", choices=("coco", "voc"))
    compare = add_verb("compare", "test whether two evaluated runs differ significantly", "run_a", "run_b")
    compare.add_argument("--resamples", type=int, default=200,
                         help="bootstrap samples of the images; default: 200, of which five lie beyond each end of a "
                         "95 %% interval")


def add_inspection(add_verb: AddVerb) -> None:
    view = add_verb("view", "statistics and images of the training data, annotated and as fed to the model", "config")
    anchors = add_verb("anchors", "how well the anchors cover the training objects, and a proposal", "config")
    for name, verb in (("view", view), ("anchors", anchors)):
        add_overrides(verb)
        verb.add_argument("--out", default="", type=expanduser,
                          help=f"page to write; default: pages/NAME-{name}.html, NAME being run.name")


def add_inference(add_verb: AddVerb) -> None:
    predict = add_verb("predict", "draw detections in images, a video or a camera stream")
    predict.add_argument("run", help="a run folder; coco or coco:BUILDER, torchvision's COCO detectors, such "
                         "as coco:fasterrcnn_mobilenet_v3_large_fpn; or a file of weights with --config")
    predict.add_argument("source", help="an image, a folder, a video, or camera:0, which shows a window where there "
                         "is a display")
    predict.add_argument("--config", default="", metavar="CONFIG", help="of a file of weights: a row of the tables, a "
                         "shipped config or a YAML file, such as coco/resnet50_fpn or voc07-res101-g1-b1")
    predict.add_argument("--score", type=float, default=0.5, help="lowest score that is drawn and written")
    predict.add_argument("--out", default="", type=expanduser,
                         help="folder for images, JSON and CSV, renewed by each call; default: predictions/SOURCE in "
                         "the run folder, or in the current one where there is no run")
    predict.add_argument("--checkpoint", default="best", help="best, last, or a file")
    predict.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    predict.add_argument("--batch", type=int, default=4, help="images in one forward pass")
    predict.add_argument("--report", action="store_true", help="also write report.html with the images")
    predict.add_argument("--frames", type=int, default=0, help="stop after this many images or frames; 0: all")
    predict.add_argument("--slice", type=int, default=0, metavar="PIXELS", help="also search overlapping tiles of this "
                         "size, for small objects in large images, such as 640; default: only the whole image")
    predict.add_argument("--overlap", type=float, default=0.2, help="of neighboring tiles, 0 to 0.9; default: 0.2")
    export = add_verb("export", "write a detector for other programs, and compare it with the model")
    export.add_argument("run", help="a run folder, coco, coco:BUILDER, or a file of weights; as in predict")
    export.add_argument("--config", default="", metavar="CONFIG", help="of a file of weights, as in predict")
    export.add_argument("--format", default="onnx", choices=("onnx", "pt2", "torchscript", "weights", "safetensors"))
    export.add_argument("--padded-size", default="", metavar="HEIGHTxWIDTH", help="of onnx and pt2: size of the "
                        "network's input, such as 800x1333 for landscape images; default: a square that all fit in")
    export.add_argument("--out", default="", type=expanduser, help="file to write; default: RUN/export/detector.*")
    export.add_argument("--checkpoint", default="best", help="best, last, or a file")
    export.add_argument("--images", default="", type=expanduser,
                        help="image or folder to compare on; default: the validation data")


def add_data_and_tables(add_verb: AddVerb) -> None:
    data = add_verb("data", "list or download the data sets of the published tables").add_subparsers(
        dest="action", required=True, metavar="list | get NAME")
    list_verb = data.add_parser("list", help="the data sets, their folders, what is present or missing, and licences")
    get_verb = data.add_parser("get", help="download, verify, unpack and check a data set; a second start resumes")
    get_verb.add_argument("name")
    get_verb.add_argument("--keep", action="store_true", help="keep the archives in ROOT/downloads")
    for verb in (list_verb, get_verb):
        verb.add_argument("--root", default="data", type=expanduser,
                          help="folder that holds all data sets; default: data")
    convert = add_verb("convert", "write a data set in another layout; images are linked", "source", "out")
    convert.add_argument("--to", required=True, metavar="LAYOUT", help="coco, voc, yolo or per_image_json")
    convert.add_argument("--format", default="auto", help="layout of the source; default: the one that is there")
    convert.add_argument("--split", action="append", default=[], metavar="NAME",
                         help="a split to convert, repeatable; default: all that are there")
    convert.add_argument("--images", default="", type=expanduser, metavar="FOLDER",
                         help="folder of the images; default: by layout")
    convert.add_argument("--copy", action="store_true", help="copy the images; else they are hard links, or on "
                         "another disk symbolic links, which break when the source moves")
    tables = add_verb("tables", "print the published tables beside what was measured in run folders")
    form = tables.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true")
    form.add_argument("--csv", action="store_true")
    form.add_argument("--html", metavar="FILE", nargs="?", const="", help="default: pages/tables.html")
    form.add_argument("--models", action="store_true", help="parameters and operations of each row's model instead")
    tables.add_argument("--row", default="", help="only this row")
    tables.add_argument("--runs", default="runs", type=expanduser, help="folder of the run folders; default: runs")


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
        done = evaluate_run(args.run, args.overrides, args.checkpoint, lambda: stop.requested, args.report)
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
    if args.report:
        raise BadInput(f"--report with {'--weights' if args.weights else '--time'}: the report is of a run's own "
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
    compare(args.run_a, args.run_b, args.resamples)


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
        print(list_datasets(args.root))
    else:
        download_dataset(args.name, args.root, args.keep)


def run_convert(args: argparse.Namespace) -> None:
    from detector.data.convert import convert
    print(convert(args.source, args.to, args.out, args.format, args.split, args.images, args.copy))


def run_tables(args: argparse.Namespace) -> None:
    from detector.tables.show import show
    show(args.row, args.runs, args.html, args.markdown, args.csv, args.models)


def run_options(_args: argparse.Namespace) -> None:
    for path, field in all_options().items():
        allowed = allowed_values(field.metadata)
        default = "auto" if field.metadata["auto"] and field.default in (AUTO, (AUTO,)) else repr(field.default)
        print(f"{path} = {default}\n    {field.metadata['description']}" + (f" [{allowed}]" if allowed else ""))


# Verbs of one process -> function; it returns an exit status, or None for 0.
SINGLE = {"check": run_check, "evaluate": run_evaluate, "score": run_score, "compare": run_compare, "view": run_view,
          "anchors": run_anchors, "predict": run_predict, "export": run_export, "data": run_data,
          "convert": run_convert, "tables": run_tables, "options": run_options}
