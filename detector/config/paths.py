"""Options that are paths: ~, $NAME, ${NAME} and ${NAME:-default} are expanded as a shell does it; $$ is a dollar.

A shell itself expands neither `run.folder=~/runs` nor the values in a YAML file. Paths are expanded when a config is
loaded, so that the config in the run folder, and the comparison with it on resume, hold the folders that were used.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import Field
from functools import cache
from operator import attrgetter

from detector.config.options import all_options, replace_options
from detector.config.parsing import format_value
from detector.config.schema import Config

VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<braced>\w+)(?::-(?P<default>[^}]*))?\}|(?P<name>[A-Za-z_]\w*)"
                      r"|(?P<other>[({].*))")
PLAIN_VALUE = re.compile(r"""(?:\$\{[^}]*\}|[^\s,\[\]{}"'])+""")  # of YAML inside of {} or [], without spaces
WRITE_DOLLAR = "Write $$ for a dollar in the name of a folder"


def expand_paths(config: Config, mistakes: list[str]) -> Config:
    """Returns the config with its paths expanded, except for defaults; mistakes are appended to the list."""
    values = {}
    for path, field in path_options().items():
        value = attrgetter(path)(config)
        if value == field.default:  # the home folder in that of data.cache may be missing
            continue
        try:
            values[path] = tuple(map(expand_path, value)) if isinstance(value, tuple) else expand_path(value)
        except ValueError as error:
            mistakes.append(f"{path}={format_value(value)}: {error}")
    return replace_options(config, values)


def expand_path(text: str, environ: Mapping[str, str] | None = None) -> str:
    """Returns a path without ~ at its start and without variables.

    Raises:
        ValueError: a variable is not set, or there is no such home folder.
    """
    environ = os.environ if environ is None else environ

    def value_of(match: re.Match) -> str:
        name = match["braced"] or match["name"]
        if match["dollar"]:
            return "$"
        if match["other"]:
            raise ValueError(f"only $NAME, ${{NAME}} and ${{NAME:-default}} are expanded. {WRITE_DOLLAR}")
        value = environ.get(name) or match["default"]
        if not value:
            raise ValueError(f"the environment variable {name} is {'empty' if name in environ else 'not set'}. "
                             f"{WRITE_DOLLAR}")
        return value
    user = re.match(r"(~[^/]*)?", text)[0]
    home = os.path.expanduser(user)
    if home.startswith("~"):
        raise ValueError(f"no home folder is known for {user}. Write ./{user} for a folder of this name")
    return home + VARIABLE.sub(value_of, text[len(user):])


def quote_hint(text: str, position: int) -> str:
    """Returns a remedy where YAML cannot be read because of a ${NAME} without quotes inside of {} or []; else "".

    Args:
        position: of the first character that YAML cannot read.
    """
    if text[max(position - 1, 0):position + 1] != "${":
        return ""
    values = [match[0] for match in PLAIN_VALUE.finditer(text) if match.start() < position < match.end()]
    return "".join(f'. Put {value} in quotes: "{value}"' for value in values)


def escape_paths(tree: dict) -> dict:
    """Returns the options of a config, as nested dicts, so that paths are read back as they are."""
    escaped = {section: dict(options) if isinstance(options, dict) else options for section, options in tree.items()}
    for path in path_options():
        section, _, name = path.partition(".")
        value = escaped[section][name]
        escaped[section][name] = [escape(item) for item in value] if isinstance(value, list) else escape(value)
    return escaped


def escape(value: str) -> str:
    return value.replace("$", "$$")


def expand_home(options: dict) -> dict:
    """Returns options by path, with ~ expanded in paths: a config that an older version has saved holds ~."""
    return {path: os.path.expanduser(value) if path in path_options() and isinstance(value, str) else value
            for path, value in options.items()}


@cache
def path_options() -> dict[str, Field]:
    """Returns the fields of the options that are paths, by the path of the option."""
    return {path: field for path, field in all_options().items() if field.metadata["path"]}
