"""Resources from four layers: the command line, over the cluster file of the user, over SBATCH_*, over the defaults.

In each layer a resource may be stated as a field of Resources or as the option of sbatch that means the same.
"""

import argparse
import dataclasses
import math
import os
import re
import shlex
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path

from detector.config.load import build, read_with_base
from detector.config.parsing import convert, format_value
from detector.errors import BadInput, combine_mistakes
from launcher.clean_environment import site_defaults
from launcher.job import Resources
from launcher.option_fields import EXCLUSIVE_KEYS, parse_gpus, parse_signal, statements_of
from launcher.sbatch_options import REFUSED, option_text, parse_options

PATHS = ("shared", "python")  # fields in which ~ and $VAR are replaced, as in srun
CLUSTER_FIELDS = tuple(field.name for field in fields(Resources) if field.name not in ("processes", "nodes", "gpus"))
Layer = dict[str, object]                  # key, as in launcher.option_fields -> value


def add_resource_options(group: argparse._ArgumentGroup) -> None:
    """Adds an option for each field of Resources; the value of an option that is not given is None."""
    types = typing.get_type_hints(Resources)
    for field in fields(Resources):
        flag = f"--{field.name.replace('_', '-')}"
        about = f"{field.metadata['description']}; default: {describe_default(field.default)}"
        if types[field.name] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=about)
        elif typing.get_origin(types[field.name]) is tuple:
            group.add_argument(flag, action="append", metavar="TEXT", help=f"may be given several times: {about}")
        else:
            metavar = "TEXT" if types[field.name] is str else "N"
            group.add_argument(flag, metavar=metavar, help=about)


def describe_default(value: object) -> str:
    """Returns the default of a resource for a help text."""
    return "on" if value is True else f"{value:g}" if isinstance(value, (int, float)) else "none"


def attach_option_values(arguments: list[str], options: Collection[str] = ()) -> list[str]:
    """Returns the command line with `--sbatch --qos=long` as `--sbatch=--qos=long`, which argparse takes.

    Args:
        options: `--on slurm` becomes `--on=slurm` for those, so that also a parser without them takes no value of
            theirs for an argument of its own.
    """
    attached, rest = [], list(arguments)
    while rest:
        argument = rest.pop(0)
        is_open = rest and argument in (("--sbatch", "--srun") if rest[0].startswith("-") else options)
        attached.append(f"{argument}={rest.pop(0)}" if is_open else argument)
    return attached


def build_resources(args: argparse.Namespace, is_cluster: bool) -> Resources:
    """Returns the resources of a job.

    Args:
        args: the options of `add_resource_options`, and `cluster`, the cluster file named by the user.
        is_cluster: the job runs on a cluster, so that the user's own cluster file applies without being named.

    Raises:
        BadInput: with every mistake of file and command line at once.
    """
    file = find_cluster_file(args.cluster) if is_cluster or args.cluster else None
    from_args = {field.name: getattr(args, field.name) for field in fields(Resources)}
    from_args = {name: str(value).lower() if isinstance(value, bool) else value for name, value in from_args.items()
                 if value is not None}
    mistakes: list[str] = []
    layers = [site_layer(site_defaults(), mistakes) if is_cluster else {},
              stated_layer(read_with_base(file) if file else {}, lambda key, value: f"{key}: {value}", mistakes),
              stated_layer(from_args, lambda key, value: f"--{key.replace('_', '-')} {value}", mistakes)]
    resources = resolve(merge_layers(layers), mistakes)
    if mistakes:
        raise combine_mistakes(f"cluster file {file} and options" if file else "options", mistakes)
    return resources


def site_layer(options: Mapping[str, str], mistakes: list[str]) -> Layer:
    """Returns what SBATCH_* of the shell states."""
    layer = {}
    for name, value in options.items():
        try:
            if name in REFUSED:
                raise ValueError(f"it cannot be stated, because {REFUSED[name]}")
            layer.update(statements_of(name, value))
        except ValueError as error:
            mistakes.append(f"environment variable for sbatch --{name}, {value!r}: {error}")
    return layer


def stated_layer(tree: dict, spelling: Callable[[str, object], str], mistakes: list[str]) -> Layer:
    """Returns what a cluster file or a command line states.

    Args:
        tree: fields of Resources, among them sbatch with a list of options.
        spelling: returns a field and its value as the user has written them.
        mistakes: to which mistakes are appended, also two statements that contradict each other.
    """
    stated: dict[str, tuple[object, str]] = {}
    for key, value, text in [*field_statements(tree, spelling, mistakes), *option_statements(tree, mistakes)]:
        for other in next((group for group in EXCLUSIVE_KEYS if key in group), (key,)):
            if other in stated and not (other == key and is_same(stated[key][0], value)):
                mistakes.append(f"{stated[other][1]} and {text} contradict each other. Leave out one of them")
        stated[key] = (value, text)
    return {key: value for key, (value, _) in stated.items()}


def container_mistakes(command: str, statement: str) -> list[str]:
    """Returns why a container's command cannot be split into words; `statement`: the text of the user."""
    try:
        is_empty = not shlex.split(command)
    except ValueError as error:
        return [f"{statement}: {str(error).lower()}. Close every quote"]
    remedy = "Write one, such as apptainer exec --nv torch.sif"
    return [f"{statement}: no command. {remedy}"] if command and is_empty else []


def field_statements(tree: dict, spelling: Callable[[str, object], str],
                     mistakes: list[str]) -> list[tuple[str, object, str]]:
    """Returns (key, value, text of the user) for each field, without sbatch."""
    statements = []
    for key, value in tree.items():
        if key in PATHS and isinstance(value, str):
            value = expand(key, value, mistakes)
        if key == "container" and isinstance(value, str):
            value = expand_homes(value)  # the node replaces its variables
            mistakes += container_mistakes(value, spelling(key, value))
        if key == "srun":
            options = parse_or_report(key, value, mistakes)
            value = [expand(key, option_text(name, option_value), mistakes) for name, option_value in options]
        if key == "gpus" and ":" in str(value):
            try:
                value, gpu_type = parse_gpus(str(value))
                statements.append(("gpu_type", gpu_type, spelling(key, f"{gpu_type}:{value}")))
            except ValueError as error:
                mistakes.append(f"{spelling(key, value)}: {error}")
                continue
        if key != "sbatch":
            statements.append((key, value, spelling(key, value)))
    return statements


def option_statements(tree: dict, mistakes: list[str]) -> list[tuple[str, object, str]]:
    """Returns (key, value, text of the user) for each option of sbatch."""
    statements = []
    for name, value in parse_or_report("sbatch", tree.get("sbatch", []), mistakes):
        text = f"--sbatch={option_text(name, value)}"
        try:
            statements += [(key, stated, text) for key, stated in statements_of(name, value)]
        except ValueError as error:
            mistakes.append(f"{text}: {error}")
    return statements


def parse_or_report(program: str, texts: object, mistakes: list[str]) -> list[tuple[str, str]]:
    """Returns the options in a list of texts; their mistakes are appended to the list."""
    try:
        return parse_options(convert(texts, tuple[str, ...]), program)
    except ValueError as error:
        mistakes.append(f"{program}={format_value(texts)}: {error}")
    except BadInput as error:
        mistakes.extend(error.mistakes)
    return []


def is_same(value: object, other: object) -> bool:
    """Returns whether two values are equal as numbers or as texts."""
    try:
        return math.isclose(float(str(value)), float(str(other)))
    except ValueError:
        return str(value) == str(other)


def expand(key: str, text: str, mistakes: list[str]) -> str:
    """Returns a path, or a command, with ~ and environment variables replaced; undefined ones are mistakes."""
    names = ["".join(groups) for groups in re.findall(r"\$(?:(\w+)|\{(\w+)\})", text)]
    undefined = [name for name in names if name not in os.environ]
    if undefined:
        mistakes.append(f"{key}={text}: the environment variable {undefined[0]} is not set where the job is submitted. "
                        "Set it, or write the path itself")
    return expand_homes(os.path.expandvars(text))


def expand_homes(text: str) -> str:
    """Returns a path, or a command, with each ~ replaced."""
    home = os.path.expanduser("~")
    return re.sub(r"(?:^|(?<=[\s=:,]))~(?=[/\s:,]|$)", lambda match: home, text)


def merge_layers(layers: list[Layer]) -> Layer:
    """Returns all layers as one; a layer removes what the lower ones state about the same resource."""
    merged: Layer = {}
    for layer in layers:
        replaced = {key for group in EXCLUSIVE_KEYS if set(group) & set(layer) for key in group}
        merged = {key: value for key, value in merged.items() if key not in replaced} | layer
    return merged


def resolve(statements: Layer, mistakes: list[str]) -> Resources:
    """Returns the resources that the statements make together; mistakes are appended to the list."""
    options = {key.removeprefix("--"): value for key, value in statements.items() if key.startswith("--")}
    own = {key: value for key, value in statements.items() if not key.startswith("--")}
    resources = build(Resources, own, "", mistakes)
    changes: dict[str, object] = {}
    if "gpus" in options:  # of the whole job
        changes["gpus"], rest = divmod(options.pop("gpus"), resources.nodes)
        if rest:
            mistakes.append(f"--sbatch=--gpus: {changes['gpus'] * resources.nodes + rest} GPUs cannot be divided among "
                            f"{resources.nodes} nodes. Write --gpus N, the number of GPUs per node")
    resources = dataclasses.replace(resources, **changes)
    if "cpus-per-gpu" in options:
        cores, rest = divmod(options.pop("cpus-per-gpu") * resources.gpus, resources.processes_per_node)
        if rest or not cores:
            mistakes.append("--sbatch=--cpus-per-gpu: each process must get the same number of cores, and a GPU. Write "
                            "--cores N, the number of cores per process")
        resources = dataclasses.replace(resources, cores=cores)
    if "signal" in options:
        resources = dataclasses.replace(resources, notice_s=parse_signal(str(options["signal"]))[1])
    hours = math.inf if "time" in options else resources.hours
    return dataclasses.replace(
        resources, hours=hours, sbatch=tuple(option_text(name, str(value)) for name, value in options.items()))


def find_cluster_file(named: str) -> Path | None:
    """Returns the file named by the user, or ~/.config/fleet-rcnn/cluster.yaml, or None if there is none.

    Raises:
        BadInput: the named file does not exist.
    """
    if named:
        if not Path(named).is_file():
            raise BadInput(f"--cluster {named}: no such file. configs/cluster/example.yaml shows its keys")
        return Path(named)
    default = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "fleet-rcnn" / "cluster.yaml"
    return default if default.is_file() else None
