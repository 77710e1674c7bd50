"""The arguments of evaluate, compare, score and tables."""

import argparse
import os

from detector.arguments.verb import Verb, add_checkpoint, add_overrides, add_path, add_run


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of evaluate."""
    add_run(parser, nargs="?", default="", help="a run, by its folder, such as runs/bccd, or by its name below runs/, "
            "such as bccd; default: none, with --weights")
    add_overrides(parser)
    add_checkpoint(parser)
    add_path(parser, "--weights", "FILE", "evaluate weights of another program, such as r50.pth; default: the run's")
    parser.add_argument("--recipe", default="", metavar="ROW", help="of --weights: the row of a table, or the config, "
                        "that describes their model, such as custom/bccd; default: none")
    parser.add_argument("--report", action="store_true", help="also write report.html with images and curves")
    parser.add_argument("--json", action="store_true", help="print metrics, classes, folder and notes as one JSON "
                        "object")
    parser.add_argument("--time", action="store_true",
                        help="measure milliseconds per image on CPU and GPU instead of evaluating")


def add_score(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of score."""
    parser.add_argument("detections", metavar="DETECTIONS", help="detections in COCO's result format, such as "
                        "detections.json")
    parser.add_argument("annotations", metavar="ANNOTATIONS", help="the objects in COCO's format, such as "
                        "instances_val2017.json")
    parser.add_argument("--metric", default="coco", choices=("coco", "voc"), help="coco: AP over ten IoU thresholds; "
                        "voc: AP at IoU 0.5; default: coco")


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of compare."""
    for dest, metavar in (("run_a", "RUN_A"), ("run_b", "RUN_B")):
        add_run(parser, dest, metavar, help="an evaluated run, by folder or name, such as runs/bccd, or a folder of an "
                "evaluation, such as runs/bccd/evaluations/trainval")
    parser.add_argument("--resamples", type=int, default=200, metavar="N", help="bootstrap samples of the images, such "
                        "as 1000; default: 200, of which five lie beyond each end of a 95 %% interval")
    parser.add_argument("--json", action="store_true", help="print both sides and all differences as one JSON object")


def add_tables(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of tables."""
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print Markdown")
    form.add_argument("--csv", action="store_true", help="print CSV")
    form.add_argument("--html", metavar="FILE", nargs="?", const="", help="write a page, such as rows.html; default of "
                      "FILE: pages/tables.html")
    form.add_argument("--models", action="store_true", help="parameters and operations of each row's model instead")
    parser.add_argument("--row", default="", help="only this row, such as voc07-res101-g8-b16; default: all")
    parser.add_argument("--runs", default="runs", type=os.path.expanduser, metavar="FOLDER",
                        help="folder of the run folders, such as /shared/runs; default: runs")


EVALUATION = {
    "evaluate": Verb("RUN [key=value ...]", "evaluate a run's checkpoint on its validation data",
                     ("evaluate bccd --report", "evaluate runs/bccd data.val=test",
                      "evaluate --weights r50.pth --recipe coco/resnet50_fpn"), add_evaluate,
                     "With other data or another metric the results are beside those of the run, in "
                     "RUN/evaluations/NAME."),
    "score": Verb("DETECTIONS ANNOTATIONS", "score detections in COCO's result format, of any detector",
                  ("score detections.json instances_val2017.json",), add_score),
    "compare": Verb("RUN_A RUN_B", "test whether the difference between two evaluated runs is significant",
                    ("compare runs/a runs/b", "compare a b --resamples 1000"), add_compare,
                    "Reads the detections of both, no model, and tells the 95 % interval of the difference in AP."),
    "tables": Verb("", "print the published tables beside what was measured in run folders",
                   ("tables --markdown", "tables --row voc07-res101-g8-b16 --html rows.html"), add_tables),
}
