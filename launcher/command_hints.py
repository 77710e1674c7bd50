"""Answers to command lines that follow the habits of other tools: the verb or the key=value to write instead."""

import argparse
import difflib
from typing import Iterable

from detector import cli as detector_cli
from detector.config.aliases import OLD_NAMES, advice_for_flag
from detector.config.options import all_options
from detector.config.parsing import did_you_mean
from detector.errors import BadInput, combine_mistakes
from launcher.sbatch_options import OPTIONS, REFUSED, SHORT, VALUE, option_text

# Verbs of other tools -> the command here.
VERB_HABITS = {"val": "evaluate", "eval": "evaluate", "test": "evaluate", "detect": "predict", "infer": "predict",
               "fit": "train", "status": "jobs", "kill": "cancel", "help": "--help"}
# Options of other tools that name the config file; here it is an argument.
CONFIG_FLAGS = ("config", "config-file", "cfg")
# Options of other launchers -> the option here.
FLAG_HABITS = {"num-gpus": "--gpus", "nproc-per-node": "--processes", "num-machines": "--nodes", "nnodes": "--nodes",
               "output-dir": "run.folder=FOLDER", "eval-only": "`fleet-rcnn evaluate RUN`"}
# Options of sbatch -> options here that mean the same, in other units.
SBATCH_FIELDS = {"time": "hours", "mem": "memory-gib", "mem-per-cpu": "memory-per-core-gib", "cpus-per-task": "cores",
                 "gpus-per-node": "gpus", "gres": "gpus"}


def refuse_unknown_verb(verb: str, verbs: Iterable[str]) -> None:
    """Raises BadInput if there is no such verb, with the verb that was probably meant."""
    verbs = list(verbs)
    if verb in verbs:
        return
    close = VERB_HABITS.get(verb) or next(iter(difflib.get_close_matches(verb, verbs, n=1)), "")
    hint = f" (did you mean `fleet-rcnn {close}`?)" if close else ""
    raise BadInput(f"no such verb: {verb}{hint}. Verbs: {', '.join(verbs)}. `fleet-rcnn --help` describes them")


def refuse_unknown_options(verb: str, rest: list[str], launcher_flags: Iterable[str]) -> None:
    """Raises BadInput with what to write instead of each unknown option.

    Args:
        rest: the arguments that are not options of the launcher.
        launcher_flags: the options of the launcher, such as --gpus.
    """
    detector_flags = flags_of_detector(verb)
    mistakes = []
    for index, argument in enumerate(rest):
        flag, _, value = argument.partition("=")
        if not is_flag(argument) or flag in detector_flags:
            continue
        following = rest[index + 1] if index + 1 < len(rest) else "-"
        if not value and not following.startswith("-") and "=" not in following:
            value = following
        mistakes.append(f"{argument}: no such option; "
                        f"{replacement_of(flag.lstrip('-'), value, [*launcher_flags, *detector_flags])}")
    if mistakes:
        raise combine_mistakes(verb, mistakes)


def is_flag(argument: str) -> bool:
    """Returns whether an argument is an option: it starts with a dash and is not a negative number."""
    return argument.startswith("-") and not argument[1:2].isdigit() and argument not in ("-", "--")


def flags_of_detector(verb: str) -> set[str]:
    """Returns the options of a verb in detector/cli.py; none for a verb of the launcher alone."""
    actions = detector_cli.build_parser()._actions
    parsers = next(action.choices for action in actions if isinstance(action, argparse._SubParsersAction))
    return {flag for action in parsers[verb]._actions for flag in action.option_strings} if verb in parsers else set()


def advice_for_sbatch(name: str, value: str) -> str:
    """Returns how to state an option of sbatch here, such as --qos or -p; empty if there is none of this name."""
    name = SHORT.get(name, name)
    if name not in OPTIONS:
        return ""
    if name in REFUSED:
        return f"as an option of sbatch it cannot be stated, because {REFUSED[name]}"
    field = SBATCH_FIELDS.get(name, name)
    if field in ("account", "constraint", "partition", "nodes"):
        return f"write --{field} {value or '...'}"
    own = f", or --{field} N" if name in SBATCH_FIELDS else ""
    value = value or ("..." if OPTIONS[name] is VALUE else "")
    return f"options of sbatch are written --sbatch={option_text(name, value)}{own}"


def replacement_of(name: str, value: str, flags: list[str]) -> str:
    """Returns what to write instead of `--name value`: a key=value, advice, or a similar option.

    Args:
        value: empty if unknown.
        flags: the options that exist.
    """
    path, dashed = name.replace("-", "_"), name.replace("_", "-")
    options = all_options()
    path = OLD_NAMES.get(path, path)
    if path in options:
        return f"write {path}={value or '...'}"
    if dashed in CONFIG_FLAGS:
        return f"write the config file without an option: fleet-rcnn train {value or 'CONFIG'}"
    if dashed in FLAG_HABITS:
        return f"write {FLAG_HABITS[dashed]}"
    if advice := advice_for_sbatch(dashed, value):
        return advice
    if advice := advice_for_flag(f"--{name}={value}" if value else f"--{name}"):
        return advice
    hint = did_you_mean(f"--{dashed}", flags) or did_you_mean(path, options)
    return f"options of a config are written key=value, and `fleet-rcnn options` lists them{hint}"
