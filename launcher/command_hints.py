"""Answers to options of other launchers and of sbatch: what to write instead."""

import argparse

from detector.arguments.unknown import CONFIG_FLAGS, advice_of_detector, option_instead
from detector.arguments.verb import flags_of
from launcher.sbatch_options import OPTIONS, REFUSED, SHORT, VALUE, option_text

# Options of other launchers -> the option here.
FLAG_HABITS = {"num-gpus": "--gpus", "nproc-per-node": "--processes", "num-machines": "--nodes", "nnodes": "--nodes",
               "output-dir": "run.folder=FOLDER", "eval-only": "`fleet-rcnn evaluate RUN`"}
# Options of sbatch -> options here that mean the same, in other units.
SBATCH_FIELDS = {"time": "hours", "mem": "memory-gib", "mem-per-cpu": "memory-per-core-gib", "cpus-per-task": "cores",
                 "gpus-per-node": "gpus", "gres": "gpus"}


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


def advice_of_launcher(name: str, value: str, parser: argparse.ArgumentParser) -> str:
    """Returns what to write instead of an option that a verb does not have; see `advice_of_detector`."""
    dashed = name.replace("_", "-")
    if "--on" in flags_of(parser) and not option_instead(name, value) and dashed not in CONFIG_FLAGS:
        if dashed in FLAG_HABITS:
            return f"; write {FLAG_HABITS[dashed]}"
        if advice := advice_for_sbatch(dashed, value):
            return f"; {advice}"
    return advice_of_detector(name, value, parser)
