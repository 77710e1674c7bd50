"""Answers to verbs and options that do not exist: what was probably meant, and what other tools' habits are here."""

import argparse
import difflib
from collections.abc import Callable, Iterable

from detector.arguments.verb import PROGRAM, flags_of
from detector.config.aliases import OLD_NAMES, advice_for_flag
from detector.config.options import all_options
from detector.config.parsing import did_you_mean
from detector.errors import BadInput, combine_mistakes

Advice = Callable[[str, str, argparse.ArgumentParser], str]  # (option, value or "", parser) -> what to write instead
# Verbs of other tools -> the command here.
VERB_HABITS = {"val": "evaluate", "eval": "evaluate", "test": "evaluate", "validate": "evaluate", "detect": "predict",
               "infer": "predict", "inference": "predict", "fit": "train", "resume": "train", "status": "jobs",
               "list": "jobs", "kill": "cancel", "stop": "cancel", "version": "--version",
               "config": "options", "settings": "options", "download": "data get"}
# Options of other tools that name the config file or the image; here it is an argument.
CONFIG_FLAGS = ("config", "config-file", "cfg")
# Options of other tools -> the option here, of the verbs that have it.
FLAG_HABITS = {"conf": "--score", "conf-thres": "--score", "threshold": "--score", "confidence-threshold": "--score",
               "batch-size": "--batch", "output": "--out", "output-dir": "--out", "project": "--out", "name": "--out",
               "ckpt": "--checkpoint", "max-frames": "--frames", "include": "--format", "imgsz": "--padded-size",
               "f": "--follow", "tail": "-n", "lines": "-n", "w": "--watch"}
# Options of other tools that are positional arguments here -> the argument, of the verbs that have it.
ARGUMENT_HABITS = {"source": "source", "input": "source", "image": "source", "weights": "run", "model": "run",
                   "checkpoint-dir": "run", "data": "config"}
# Options of other tools -> the option of a config that means the same in an evaluation.
EVALUATION_HABITS = {"batch-size": "evaluate.batch_size", "batch": "evaluate.batch_size", "imgsz": "evaluate.min_size",
                     "conf": "evaluate.score_thresh", "conf-thres": "evaluate.score_thresh",
                     "metric": "evaluate.metric", "iou": "evaluate.nms_thresh", "max-det": "evaluate.max_detections",
                     "split": "data.val", "tta": "evaluate.tta", "augment": "evaluate.tta"}
# Options of other tools that are no option here -> what does the same.
WITHOUT_OPTION = {"all": "the names of the runs"}


def refuse_unknown_verb(verb: str, verbs: Iterable[str]) -> None:
    """Raises BadInput if there is no such verb, with the verb that was probably meant."""
    verbs = list(verbs)
    if verb in verbs:
        return
    close = VERB_HABITS.get(verb) or next(iter(difflib.get_close_matches(verb, verbs, n=1)), "")
    hint = f" (did you mean `{PROGRAM} {close}`?)" if close else ""
    raise BadInput(f"no such verb: {verb}{hint}. Verbs: {', '.join(verbs)}. `{PROGRAM} --help` describes them")


def refuse_unknown_options(verb: str, arguments: list[str], parser: argparse.ArgumentParser, advice: Advice) -> None:
    """Raises BadInput with what to write instead of each unknown option.

    Args:
        arguments: the command line behind the verb.
        parser: of the verb.
        advice: returns what to write instead of an option, from its name, its value ("" if unknown) and the parser.
    """
    flags, mistakes = flags_of(parser), []
    for index, word in enumerate(arguments):
        flag, _, value = word.partition("=")
        if not is_flag(word) or flag in flags or (word[1] != "-" and word[:2] in flags):
            continue
        following = arguments[index + 1] if index + 1 < len(arguments) else "-"
        if not value and not following.startswith("-") and "=" not in following:
            value = following
        mistakes.append(f"{word}: no such option{advice(flag.lstrip('-'), value, parser)}")
    if mistakes:
        raise combine_mistakes(verb, mistakes)


def is_flag(argument: str) -> bool:
    """Returns whether an argument is an option: it starts with a dash and is not a negative number."""
    return argument.startswith("-") and not argument[1:2].isdigit() and argument not in ("-", "--")


def advice_of_detector(name: str, value: str, parser: argparse.ArgumentParser) -> str:
    """Returns what to write instead of an option that a verb does not have, to be read behind "no such option".

    Args:
        name: of the option, without dashes before it.
        value: empty if unknown.
        parser: of the verb.
    """
    dashed, flags = name.replace("_", "-"), flags_of(parser)
    arguments = {action.dest: action.metavar for action in parser._actions if not action.option_strings}
    if FLAG_HABITS.get(dashed) in flags:
        return f" (did you mean {FLAG_HABITS[dashed]}?)"
    takes_options = "overrides" in arguments
    if takes_options and "run" in arguments and dashed in EVALUATION_HABITS:
        return f"; write {EVALUATION_HABITS[dashed]}={value or '...'}"
    if takes_options and (answer := option_instead(name, value)):
        return f"; {answer}"
    if "config" in arguments and dashed in CONFIG_FLAGS:
        return f"; write the config file without an option: {parser.prog} {value or 'CONFIG'}"
    if ARGUMENT_HABITS.get(dashed) in arguments:
        return f"; write {arguments[ARGUMENT_HABITS[dashed]]} without an option: {parser.prog} {value or '...'}"
    if takes_options and (advice := advice_for_flag(f"--{name}={value}" if value else f"--{name}")):
        return f"; {advice}"
    if "names" in arguments and dashed in WITHOUT_OPTION:
        return f" (did you mean {WITHOUT_OPTION[dashed]}?)"
    if hint := did_you_mean(f"--{dashed}", flags):
        return hint
    if takes_options:
        return ("; options of a config are written key=value, and `fleet-rcnn options` lists them"
                + did_you_mean(name.replace("-", "_"), all_options()))
    return f". Options: {', '.join(flag for flag in flags if flag != '-h')}"


def option_instead(name: str, value: str) -> str:
    """Returns the key=value to write instead of `--name value`; empty if there is no option of a config of this name.

    The name may be an old one.
    """
    path = name.replace("-", "_")
    path = OLD_NAMES.get(path, path)
    return f"write {path}={value or '...'}" if path in all_options() else ""
