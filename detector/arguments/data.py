"""The arguments of view, anchors, data, convert and options."""

import argparse
import os

from detector.arguments.verb import Verb, add_config, add_path


def add_view(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of view."""
    add_config(parser)
    add_path(parser, "--out", "FILE", "page to write, such as mine.html; default: pages/NAME-view.html, NAME being "
             "run.name")


def add_anchors(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of anchors."""
    add_config(parser)
    add_path(parser, "--out", "FILE", "page to write, such as mine.html; default: pages/NAME-anchors.html, NAME being "
             "run.name")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of data."""
    parser.add_argument("action", choices=("list", "get"), help="list: the data sets, their folders, what is present "
                        "or missing, and licences; get: download, verify, unpack and check one, such as get deeppcb; a "
                        "second start resumes")
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="of get: the data set, such as deeppcb; "
                        "default: none")
    parser.add_argument("--keep", action="store_true", help="of get: keep the archives in ROOT/downloads")
    parser.add_argument("--root", default="data", type=os.path.expanduser, metavar="FOLDER",
                        help="folder that holds all data sets, such as /data; default: data")


def add_convert(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of convert."""
    parser.add_argument("source", metavar="SOURCE", help="folder of the data set, such as /data/bccd")
    parser.add_argument("out", metavar="OUT", help="folder to write, such as /data/bccd-yolo")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help="coco, voc, yolo or per_image_json; no default")
    parser.add_argument("--format", default="auto", metavar="LAYOUT", help="layout of the source, such as voc; "
                        "default: the one that is there")
    parser.add_argument("--split", action="append", default=[], metavar="NAME",
                        help="a split to convert, such as train, repeatable; default: all that are there")
    add_path(parser, "--images", "FOLDER", "folder of the images, such as /data/images; default: by layout")
    parser.add_argument("--copy", action="store_true", help="copy the images; else they are hard links, or on "
                        "another disk symbolic links, which break when the source moves")


def add_annotate(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of annotate."""
    parser.add_argument("source", type=os.path.expanduser, metavar="SOURCE", help="a folder of images such as photos, "
                        "or a data set of any layout that can be read, which is written in place")
    parser.add_argument("--classes", default="", metavar="A,B", help="names of classes, besides those of the data, "
                        "such as head,eye; default: none")
    parser.add_argument("--split", default="", metavar="NAME", help="of a data set with several splits, such as train; "
                        "default: the only one")
    parser.add_argument("--run", default="", type=os.path.expanduser, metavar="RUN", help="what suggests boxes: a "
                        "run, by its folder or its name, such as heads, or coco; default: no suggestions")
    parser.add_argument("--score", type=float, default=0.5, help="lowest score of suggestions, at first, such as 0.3; "
                        "default: 0.5")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on, such as 0.0.0.0; "
                        "default: 127.0.0.1, this machine alone")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="such as 8000; default: 0, any free one")
    parser.add_argument("--follow-links", action="store_true", help="also take files outside SOURCE, by links")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of options."""
    parser.add_argument("prefix", nargs="?", default="", metavar="PREFIX", help="a section such as optim or model.rpn, "
                        "an option, or its name in any section, such as lr; default: all options")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list with one object for each option")
    form.add_argument("--schema", action="store_true", help="print the JSON Schema of a config file, with which a YAML "
                      "editor completes and checks options")


DATA = {
    "view": Verb("CONFIG [key=value ...]", "write a page with the training data, as annotated and as the model gets it",
                 ("view custom/bccd data.root=/data/bccd",), add_view),
    "anchors": Verb("CONFIG [key=value ...]", "tell how well the anchors cover the objects, and propose better ones",
                    ("anchors custom/bccd data.root=/data/bccd",), add_anchors),
    "data": Verb("list | get NAME", "list or download the data sets of the published tables",
                 ("data list", "data get deeppcb --root data"), add_data),
    "convert": Verb("SOURCE --to LAYOUT OUT", "write a data set in another layout; images are linked",
                    ("convert /data/bccd --to yolo /data/bccd-yolo",), add_convert),
    "annotate": Verb("SOURCE", "label images in the browser, helped by a run's detections",
                     ("annotate photos --classes head,eye", "annotate photos --run runs/heads",
                      "annotate /data/bccd --split train"), add_annotate),
    "options": Verb("[PREFIX]", "list the options of a config with default, description and allowed values",
                    ("options optim", "options --schema > fleet-rcnn.schema.json"), add_options,
                    "With `# yaml-language-server: $schema=fleet-rcnn.schema.json` as its first line, a config is "
                    "completed and checked by editors with the YAML language server, such as VS Code."),
}
