"""The declaration of a verb, and the argparse parser that is made of it."""

import argparse
import os
import shutil
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from detector.errors import BadInput

WIDTHS = (50, 110)  # columns of a help text: the fewest, and the most that are pleasant to read
PROGRAM = "fleet-rcnn"


@dataclass(frozen=True)
class Verb:
    """A verb of the command line.

    Attributes:
        usage: the positional arguments, as the usage line shows them.
        summary: what the verb does, in one line for the list of all verbs.
        examples: command lines without the name of the program.
        add_arguments: adds the arguments to a parser. The help of each names its default and an example.
        details: further sentences for the help of the verb.
    """

    usage: str
    summary: str
    examples: tuple[str, ...]
    add_arguments: Callable[[argparse.ArgumentParser], None]
    details: str = ""


def help_width() -> int:
    """Returns the columns of a help text on this terminal."""
    return max(WIDTHS[0], min(shutil.get_terminal_size().columns - 2, WIDTHS[1]))


def help_formatter(prog: str) -> argparse.HelpFormatter:
    """Returns the formatter of help texts: option and help side by side, in two lines where the option is long."""
    formatter = argparse.RawDescriptionHelpFormatter(prog, max_help_position=24, width=help_width())
    formatter._split_lines = lambda text, width: wrap(" ".join(text.split()), width)  # argparse breaks words at hyphens
    return formatter


def wrap(text: str, width: int, **indents: str) -> list[str]:
    """Returns the lines of a text; no word is broken."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False, **indents)


def paragraph(text: str, indent: str = "") -> str:
    """Returns a text in lines that fit the terminal."""
    return "\n".join(wrap(text, help_width(), initial_indent=indent, subsequent_indent=indent))


def shell_lines(command: str, indent: str = "  ") -> str:
    """Returns a command line in lines that fit the terminal and that a shell joins again."""
    first, *others = wrap(command, help_width() - len(indent) - 6)
    return f" \\\n{indent}    ".join([f"{indent}{first}", *others])


def fill_parser(parser: argparse.ArgumentParser, name: str, verb: Verb) -> argparse.ArgumentParser:
    """Gives a parser the arguments and the help texts of a verb; its mistakes raise BadInput. Returns the parser."""
    parser.usage = f"{PROGRAM} {name} {verb.usage} [options]".replace("  ", " ")
    parser.description = paragraph(f"{verb.summary[0].upper()}{verb.summary[1:]}. {verb.details}".strip())
    parser.epilog = "\n".join(["examples:", *(shell_lines(f"{PROGRAM} {example}") for example in verb.examples)])
    parser.formatter_class = help_formatter
    parser.allow_abbrev = False
    parser.error = partial(refuse, name)
    verb.add_arguments(parser)
    return parser


def parser_of(name: str, verb: Verb) -> argparse.ArgumentParser:
    """Returns the parser of the arguments behind a verb."""
    return fill_parser(argparse.ArgumentParser(prog=f"{PROGRAM} {name}"), name, verb)


def end_options(arguments: list[str]) -> list[str]:
    """Returns a command line without `--`; a later word that starts with a dash, a path, gets ./ before it.

    No parser takes it for an option then, whatever stands around it and however often the command line is passed on.
    """
    if "--" not in arguments:
        return arguments
    end = arguments.index("--")
    return [*arguments[:end], *(f"./{word}" if word.startswith("-") else word for word in arguments[end + 1:])]


def refuse(name: str, message: str) -> NoReturn:
    """Raises BadInput for a mistake that argparse reports."""
    raise BadInput(f"{name}: {message}. `{PROGRAM} {name} --help` shows the arguments")


def flags_of(parser: argparse.ArgumentParser) -> list[str]:
    """Returns the options of a parser, long and short."""
    return [flag for action in parser._actions for flag in action.option_strings]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Adds the positional arguments CONFIG [key=value ...]."""
    parser.add_argument("config", metavar="CONFIG", help="a YAML file such as mine.yaml, or a config that ships with "
                        "the package, by name, such as custom/bccd")
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Adds the positional arguments [key=value ...]."""
    parser.add_argument("overrides", nargs="*", default=[], metavar="key=value",
                        help="options that differ from the config, such as optim.lr=0.005; "
                        f"`{PROGRAM} options` lists all; default: none")


def add_run(parser: argparse.ArgumentParser, dest: str = "run", metavar: str = "RUN", **settings) -> None:
    """Adds the positional argument RUN."""
    parser.add_argument(dest, metavar=metavar, help=settings.pop(
        "help", "a run, by its folder, such as runs/bccd, or by its name below runs/, such as bccd"), **settings)


def add_path(parser: argparse.ArgumentParser, flag: str, metavar: str, about: str) -> None:
    """Adds an option that is a path; ~ is expanded, empty if it is not given."""
    parser.add_argument(flag, default="", type=os.path.expanduser, metavar=metavar, help=about)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Adds the option --checkpoint."""
    parser.add_argument("--checkpoint", default="", metavar="NAME", help="of a run: best, last, or a file such "
                        "as runs/bccd/checkpoints/best.pt; default: best")
