"""What a job may use: the defaults, over them one's own cluster file, over that the command line."""

import argparse
import os
import typing
from dataclasses import fields
from pathlib import Path

from detector.config.load import build, read_with_base
from detector.errors import BadInput, listed
from launcher.job import Resources


def add_options(parser: argparse._ArgumentGroup) -> None:
    """An option for each field of Resources; what is not said stays None."""
    types = typing.get_type_hints(Resources)
    for field in fields(Resources):
        flag, about = f"--{field.name.replace('_', '-')}", field.metadata["about"]
        if types[field.name] is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=about)
        elif typing.get_origin(types[field.name]) is tuple:
            parser.add_argument(flag, action="append", metavar="TEXT", help=f"{about}; may be said several times")
        else:
            metavar = "TEXT" if types[field.name] is str else "N"
            parser.add_argument(flag, metavar=metavar, help=about)


def resources(said: argparse.Namespace, on_slurm: bool) -> Resources:
    """Raises BadInput with all mistakes at once."""
    file = cluster_file(said.cluster) if on_slurm or said.cluster else None
    stated = read_with_base(file) if file else {}
    typed = {field.name: getattr(said, field.name) for field in fields(Resources)}
    typed = {name: str(value).lower() if isinstance(value, bool) else value for name, value in typed.items()
             if value is not None}
    mistakes: list[str] = []
    built = build(Resources, {**stated, **typed}, "", mistakes)
    if mistakes:
        raise listed(f"cluster file {file} and options" if file else "options", mistakes)
    return built


def cluster_file(named: str) -> Path | None:
    """As named, else the user's own where there is one."""
    if named:
        if not Path(named).is_file():
            raise BadInput(f"--cluster {named}: no such file. configs/cluster/example.yaml shows what it holds")
        return Path(named)
    own = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "fleet-rcnn" / "cluster.yaml"
    return own if own.is_file() else None
