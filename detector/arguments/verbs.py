"""All verbs of the detector by name, and the parsing of a command line."""

import argparse
from collections.abc import Mapping

from detector import __version__
from detector.arguments.data import DATA
from detector.arguments.evaluation import EVALUATION
from detector.arguments.inference import INFERENCE
from detector.arguments.training import TRAINING
from detector.arguments.unknown import Advice, advice_of_detector, refuse_unknown_options, refuse_unknown_verb
from detector.arguments.verb import (
    PROGRAM,
    Verb,
    end_options,
    fill_parser,
    help_formatter,
    paragraph,
    parser_of,
    refuse,
)
from detector.config.aliases import print_once
from detector.config.names import named_run
from detector.errors import BadInput

GROUPS: dict[str, dict[str, Verb]] = {"training": TRAINING, "evaluation": EVALUATION, "a trained detector": INFERENCE,
                                      "data and options": DATA}
VERBS = {name: verb for group in GROUPS.values() for name, verb in group.items()}
ENDING = ("CONFIG is a YAML file, or a config that ships with the package, by name, such as custom/bccd. RUN is a run, "
          f"by its folder or its name. `{PROGRAM} VERB --help` describes a verb with its arguments. Exit status: 0 "
          "done, 1 failed, 2 bad input, 75 stopped early (the same command resumes), 130 Ctrl-C. `eval "
          f'"$(register-python-argcomplete {PROGRAM})"` in ~/.bashrc or ~/.zshrc turns on completion.')


def build_parser(groups: Mapping[str, Mapping[str, Verb]] = GROUPS) -> argparse.ArgumentParser:
    """Returns a parser with a sub-parser for each verb: for the help of all, and for completion.

    Args:
        groups: verbs by name, by the title of their group.
    """
    top = argparse.ArgumentParser(prog=PROGRAM, usage=f"{PROGRAM} VERB ... [options]", allow_abbrev=False,
                                  formatter_class=help_formatter, epilog=paragraph(ENDING),
                                  description="Trains Faster R-CNN object detectors.\n\n" + list_of_verbs(groups))
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}", help="print the version")
    parsers = top.add_subparsers(dest="verb", required=True, metavar="VERB", help=argparse.SUPPRESS)
    for group in groups.values():
        for name, verb in group.items():
            fill_parser(parsers.add_parser(name), name, verb)
    return top


def list_of_verbs(groups: Mapping[str, Mapping[str, Verb]]) -> str:
    """Returns the verbs of each group with what they do, within the width of the terminal."""
    return "\n\n".join("\n".join([f"{title}:", *(
        paragraph(verb.summary, " " * 13).replace(" " * 13, f"  {name:10} ", 1) for name, verb in group.items())])
        for title, group in groups.items())


def parse(arguments: list[str], groups: Mapping[str, Mapping[str, Verb]] = GROUPS,
          advice: Advice = advice_of_detector) -> argparse.Namespace:
    """Returns the parsed command line; key=value and other positional arguments may stand anywhere among options.
    Behind `--` all arguments are positional. The name of a run below runs/ becomes its folder.

    Prints help or version and ends the process where the user wants that.

    Args:
        groups: verbs by name, by the title of their group.
        advice: see `refuse_unknown_options`.

    Raises:
        BadInput: with every unknown option at once; a verb or an argument is missing or wrong.
    """
    verbs = {name: verb for group in groups.values() for name, verb in group.items()}
    arguments = end_options(arguments)
    if arguments[:1] == ["help"]:
        arguments = [*arguments[1:2], "--help"]
    if {"-h", "--help", "--version"} & set(arguments[:1]):
        build_parser(groups).parse_args(arguments[:1])
    if not arguments:
        raise BadInput(f"a VERB is missing, one of {', '.join(verbs)}. `{PROGRAM} --help` describes them")
    name, *rest = arguments
    refuse_unknown_verb(name, verbs)
    parser = parser_of(name, verbs[name])
    if {"-h", "--help"} & set(rest):
        parser.parse_args(["--help"])
    refuse_unknown_options(name, rest, parser, advice)
    args, unknown = parser.parse_known_intermixed_args(rest)
    if unknown:
        refuse(name, f"{' '.join(unknown)}: no such argument")
    args.verb = name
    for dest in {"run", "run_a", "run_b"} & set(vars(args)):
        setattr(args, dest, named_run(getattr(args, dest)))
    if args.verb == "view" and args.config == "anchors":
        use_anchors_verb(args)
    return args


def use_anchors_verb(args: argparse.Namespace) -> None:
    """Changes `view anchors CONFIG` of version 0.1 to `anchors CONFIG`, in place."""
    if not args.overrides or "=" in args.overrides[0]:
        raise BadInput("view anchors: a config is missing, such as: fleet-rcnn anchors custom/bccd data.root=/data")
    print_once(["view anchors is now called anchors"])
    args.verb, args.config, args.overrides = "anchors", args.overrides[0], args.overrides[1:]
