"""Completion in a shell (argcomplete): verbs, options, key=value, configs and runs by name."""

import argparse
from collections.abc import Callable, Iterable, Mapping

from detector.config.names import config_names, run_names
from detector.config.options import all_options


def configs_and_runs() -> list[str]:
    """Returns what CONFIG may be, besides a file."""
    return [*config_names(), *run_names()]


def rows() -> list[str]:
    """Returns the rows of the published tables."""
    return [name.removeprefix("tables/") for name in config_names() if name.startswith("tables/")]


def rows_and_configs() -> list[str]:
    """Returns what --recipe may be."""
    return [*rows(), *config_names()]


def sections_and_options() -> list[str]:
    """Returns what PREFIX of `options` may be."""
    options = all_options()
    return sorted({*options, *(path.rpartition(".")[0] for path in options)} - {""})


def settings(prefix: str) -> list[str]:
    """Returns the beginnings of key=value; behind the key, the allowed values where they have names."""
    options, key = all_options(), prefix.partition("=")[0]
    if "=" not in prefix or key not in options:
        return [f"{path}=" for path in options]
    metadata = options[key].metadata
    return [f"{key}={value}" for value in (*metadata["choices"], *(["auto"] if metadata["auto"] else []))]


# Positional arguments and options by their dest -> the names that they may have. Others are files.
NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "config": configs_and_runs, "run": run_names, "run_a": run_names, "run_b": run_names, "names": run_names,
    "recipe": rows_and_configs, "row": rows, "prefix": sections_and_options}


def complete(parser: argparse.ArgumentParser) -> None:
    """Prints what completes the command line that a shell has put into the environment, and ends the process."""
    import argcomplete
    from argcomplete.completers import FilesCompleter
    files = FilesCompleter()
    parsers = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in (action for group in parsers for verb in group.choices.values() for action in verb._actions):
        if action.dest == "overrides":
            action.completer = lambda prefix, **_: settings(prefix)  # type: ignore[attr-defined]
        elif action.dest in NAMES:
            action.completer = lambda prefix, names=NAMES[action.dest], **_: [  # type: ignore[attr-defined]
                *names(), *files(prefix)]
    argcomplete.autocomplete(parser)
