"""The words after `fleet-rcnn` or `python -m detector`: every verb, what it needs, and its options."""

import argparse
from typing import Callable

Verb = Callable[..., argparse.ArgumentParser]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="fleet-rcnn", description="python -m detector VERB ...: what launchers run.")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, about: str, *positional: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=about, description=about)
        for argument in positional:
            sub.add_argument(argument)
        return sub

    for group in (training, scoring, looking, published):
        group(verb)
    verb("options", "every option of a config file, with its default and what is allowed")
    return top


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """What was typed. key=value may stand behind options, too, where argparse by itself takes none any more."""
    top = parser()
    said, rest = top.parse_known_args(arguments)
    takes = next((name for name in ("overrides", "words") if hasattr(said, name)), "")
    if strange := [word for word in rest if not takes or word.startswith("-") or "=" not in word]:
        top.error(f"unrecognized arguments: {' '.join(strange)}")
    if rest:
        setattr(said, takes, [*getattr(said, takes), *rest])
    return said


def training(verb: Verb) -> None:
    train = verb("train", "train a config, or go on with its run", "config")
    train.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    check = verb("check", "say what is wrong with a config and its data, before anything runs", "config")
    check.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    check.add_argument("--json", action="store_true", help="problems, notes and facts for a script")
    check.add_argument("--quick", action="store_true", help="leave out every image and the trial step")
    check.add_argument("--processes", type=int, default=0, metavar="N", help="of the run to be; default: the GPUs here")


def scoring(verb: Verb) -> None:
    evaluate = verb("evaluate", "score a run's checkpoint on its validation data, or weights from elsewhere")
    evaluate.add_argument("run", nargs="?", default="", help="a run folder; not with --weights")
    evaluate.add_argument("overrides", nargs="*", default=[], metavar="key=value")
    evaluate.add_argument("--checkpoint", default="best", help="best, last, or a file")
    evaluate.add_argument("--weights", default="", metavar="FILE", help="another program's weights instead of a run")
    evaluate.add_argument("--recipe", default="", metavar="ROW", help="with --weights: a row of a table, or a config")
    evaluate.add_argument("--report", action="store_true", help="write RUN/report.html, too: a page to look at")
    evaluate.add_argument("--time", action="store_true", help="instead: milliseconds per image, on CPU and GPU")
    score = verb("score", "score any detector's COCO-format results, without a model", "detections", "annotations")
    score.add_argument("--metric", default="coco", choices=("coco", "voc"))
    compare = verb("compare", "is the difference between two evaluated runs real?", "run_a", "run_b")
    compare.add_argument("--resamples", type=int, default=200, help="random draws of the images; default: 200")


def looking(verb: Verb) -> None:
    predict = verb("predict", "draw what a run's detector finds in images, a video or a camera", "run", "source")
    predict.add_argument("--score", type=float, default=0.5, help="least score of what is drawn and written")
    predict.add_argument("--out", default="", help="folder for pictures, JSON and CSV; default: RUN/predictions")
    predict.add_argument("--checkpoint", default="best", help="best, last, or a file")
    predict.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    predict.add_argument("--batch", type=int, default=4, help="images that are predicted at once")
    predict.add_argument("--report", action="store_true", help="write report.html, too: a page to look at")
    predict.add_argument("--frames", type=int, default=0, help="stop after so many images or frames; 0: all")
    view = verb("view", "look at data as the network will see it, or at anchors over it", "what")
    view.add_argument("words", nargs="*", default=[], metavar="CONFIG key=value",
                      help="view CONFIG key=value ...: the data; view anchors CONFIG key=value ...: the anchors")
    view.add_argument("--out", default="", help="page to write; default: view.html or anchors.html")
    export = verb("export", "write a run's detector for other programs, and compare it with the model", "run")
    export.add_argument("--format", default="onnx", choices=("onnx", "torchscript", "weights"))
    export.add_argument("--out", default="", help="file to write; default: RUN/export/detector.*")
    export.add_argument("--checkpoint", default="best", help="best, last, or a file")
    export.add_argument("--images", default="", help="image or folder to compare on; default: the validation data")


def published(verb: Verb) -> None:
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
