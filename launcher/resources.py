"""Resources from three layers: the command line, over the cluster file of the user, over the defaults."""

import argparse
import os
import typing
from dataclasses import fields
from pathlib import Path

from detector.config.load import build, read_with_base
from detector.errors import BadInput, combine_mistakes
from launcher.job import Resources


def add_resource_options(group: argparse._ArgumentGroup) -> None:
    """Adds an option for each field of Resources; the value of an option that is not given is None."""
    types = typing.get_type_hints(Resources)
    for field in fields(Resources):
        flag, about = f"--{field.name.replace('_', '-')}", field.metadata["description"]
        if types[field.name] is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, help=about)
        elif typing.get_origin(types[field.name]) is tuple:
            group.add_argument(flag, action="append", metavar="TEXT", help=f"{about}; may be given several times")
        else:
            metavar = "TEXT" if types[field.name] is str else "N"
            group.add_argument(flag, metavar=metavar, help=about)


def build_resources(args: argparse.Namespace, is_cluster: bool) -> Resources:
    """Returns the resources of a job.

    Args:
        args: the options of `add_resource_options`, and `cluster`, the cluster file named by the user.
        is_cluster: the job runs on a cluster, so that the user's own cluster file applies without being named.

    Raises:
        BadInput: with every mistake of file and command line at once.
    """
    file = find_cluster_file(args.cluster) if is_cluster or args.cluster else None
    from_file = read_with_base(file) if file else {}
    from_args = {field.name: getattr(args, field.name) for field in fields(Resources)}
    from_args = {name: str(value).lower() if isinstance(value, bool) else value for name, value in from_args.items()
                 if value is not None}
    mistakes: list[str] = []
    resources = build(Resources, {**from_file, **from_args}, "", mistakes)
    if mistakes:
        raise combine_mistakes(f"cluster file {file} and options" if file else "options", mistakes)
    return resources


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
