"""What errors and notes advise exists: every verb, --option and key=value in a text of the sources is tried."""

import ast
import re
import shlex
from pathlib import Path

import pytest
from conftest import REPO

from detector.arguments.verb import flags_of, parser_of
from detector.arguments.verbs import parse
from detector.config.aliases import HABITS, OLD_NAMES
from detector.config.load import apply_override, build
from detector.config.options import all_options
from detector.config.schema import Config
from launcher.arguments import GROUPS, VERBS
from launcher.resources import attach_option_values
from launcher.sbatch_options import KNOWN

ANY = "ANY"  # stands for a value that is known when the text is made
SOURCES = sorted([*(REPO / "detector").rglob("*.py"), *(REPO / "launcher").rglob("*.py")])
OPTIONS, SECTIONS = all_options(), {path.rpartition(".")[0] for path in all_options()} - {""}
FLAGS = {"--version", *(flag for name, verb in VERBS.items() for flag in flags_of(parser_of(name, verb)))}
COMMAND = re.compile(r"fleet-rcnn ((?:[a-z]+|--help|--version)(?: [^`\n]*)?)`")
LOOSE_COMMAND = re.compile(r"fleet-rcnn ([a-z]+)")
OF_OTHER_PROGRAMS = {"--shm-size", "--master-port", "--porcelain", "--port", "--nproc-per-node", "--signals-to-handle",
                     "--standalone", "--me", "--all", "--exact", "--nv", "--container-image",
                     "--backend-store-uri"}  # docker, torchrun, git, mlflow, squeue, sinfo, apptainer, ...
ALIASES = "detector/config/aliases.py"
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
SETTING = re.compile(rf"\b((?:{'|'.join(sorted(SECTIONS, key=len, reverse=True))})\.[a-z_0-9]+)=(\[[^\]]*\]|[^\s,;)`'\"]*)")
NAME = re.compile(r"(?<![\w/.-])((?:run|data|batch|augment|model|optim|schedule|evaluate)(?:\.[a-z_0-9]+)+)(?![\w/(])")


def texts_of(path: Path) -> list[str]:
    """Returns the texts of a file without its docstrings; what an f-string puts in is ANY."""
    tree, texts = ast.parse(path.read_text()), []
    skipped = {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef))
               and ast.get_docstring(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
            texts.append("".join(part.value if isinstance(part, ast.Constant) else ANY for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            texts.append(node.value)
    return texts


TEXTS = {str(path.relative_to(REPO)): texts_of(path) for path in SOURCES}


def occurrences(pattern: re.Pattern) -> list[tuple[str, ...]]:
    return sorted({(file, *(match.groups() or (match.group(),))) for file, texts in TEXTS.items() for text in texts
                   for match in pattern.finditer(text)})


def excluding(items: list[tuple[str, ...]], *files: str) -> list[tuple[str, ...]]:
    return [item for item in items if item[0] not in files]


def test_the_sources_name_commands_options_and_settings():
    assert len(occurrences(COMMAND)) > 20 and len(occurrences(FLAG)) > 150
    assert len(occurrences(SETTING)) > 100 and len(occurrences(NAME)) > 200


@pytest.mark.parametrize("file, command", occurrences(COMMAND), ids=str)
def test_a_command_that_is_advised_parses(file, command):
    verb, *rest = arguments = attach_option_values(shlex.split(command))
    if rest and "--help" not in rest and verb != ANY:
        parse(arguments, GROUPS)
    else:
        assert verb in (*VERBS, "--help", "--version", ANY)


@pytest.mark.parametrize("file, verb", occurrences(LOOSE_COMMAND), ids=str)
def test_a_verb_that_is_advised_exists(file, verb):
    assert verb in VERBS


@pytest.mark.parametrize("file, flag", excluding(occurrences(FLAG), "detector/tables/html.py"), ids=str)  # it holds CSS
def test_an_option_that_is_advised_exists(file, flag):
    of_slurm = file.startswith("launcher/") and any(flag[2:] in options for options in KNOWN.values())
    assert flag in FLAGS or flag in OF_OTHER_PROGRAMS or of_slurm


@pytest.mark.parametrize("file, path, value", occurrences(SETTING), ids=str)
def test_a_setting_that_is_advised_is_allowed(file, path, value):
    value = ANY if value.startswith("...") else value.rstrip(":.")
    tree, is_known = {}, ANY not in value and "{" not in value and value != "["
    mistakes = apply_override(tree, f"{path}={value if is_known else ''}")
    config = build(Config, tree, "", [] if not is_known else mistakes)
    assert path in OPTIONS and not mistakes and config


@pytest.mark.parametrize("file, name", excluding(occurrences(NAME), ALIASES), ids=str)
def test_an_option_that_is_named_exists(file, name):
    assert name in OPTIONS or name in SECTIONS or name in ("data.yaml", "data.yml")


def test_old_names_lead_to_options_that_exist():
    assert {*OLD_NAMES.values(), *HABITS.values()} <= set(OPTIONS)
