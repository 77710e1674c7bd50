"""The structure of the code: order of rooms, no circles, rooms without torch, sizes, and names."""

import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize

import pytest
from conftest import REPO

# From the bottom up: a room imports itself and rooms before it.
ROOMS = ("errors seeding structures config arguments distributed run py_faster_rcnn data metrics model visualization report loggers "
         "inference annotation evaluation training inspection checks tables sync cli __main__").split()
# Importing these loads no torch, because the launcher and --help import them.
TORCH_FREE = ("detector detector.errors detector.config detector.arguments detector.run detector.distributed.rank_info "
              "detector.distributed.stop_signal detector.checks.problems detector.sync detector.cli detector.__main__ launcher").split()
# A pattern, and the only files that may contain it.
ONLY_IN = {
    r"SLURM_": {"detector/distributed/rank_info.py", "launcher/rank_env.py",
                "launcher/clean_environment.py", "launcher/slurm_commands.py", "launcher/backends/submitit.py"},
    r"import submitit": {"launcher/backends/submitit.py"},
    r"torch\.distributed(?!\.run\b)|DistributedDataParallel":
        {"detector/distributed/collectives.py", "detector/distributed/data_parallel.py",
         "detector/distributed/process_group.py", "launcher/torchrun_agent.py"},
    r"^\s*(import yaml|from yaml)": {"detector/config/yaml_files.py"},
    r"torch\.Generator\(|np\.random\.[A-Z]\w*\(|default_rng\(|manual_seed\(|random\.Random\(": {"detector/seeding.py"},
}
VAGUE_FILES = {"utils", "misc", "common", "helpers", "manager", "base", "engine", "core"}
# Names that hold nothing, and private terms of version 0.1, as names of variables, functions and arguments.
BANNED_NAMES = set("""
said found told one what thing some survivors choose grown beat together settle settled seat seats film atlas rivals lonely
body bodies canvas canvases turn turns extent faults mend mended journal heart chance asked words reach wish
""".split())
BANNED_PROSE = (r"\bhouse\b", r"\batlas\b", r"\bseats?\b", r"\bsettl", r"\bsurvivors?\b", r"asked to stop", r"the network sees",
                r"\bcanvas(es)?\b", r"\blonely\b", r"\brivals?\b", r"\bour own\b", r"\bbodies\b", r"\bmend(s|ed|ing)?\b",
                r"\bputs? on record\b", r"\bheart\b")
SOURCES = sorted([*(REPO / "detector").rglob("*.py"), *(REPO / "launcher").rglob("*.py")])
TESTS = sorted((REPO / "tests").rglob("*.py"))
ALIASES = REPO / "detector" / "config" / "aliases.py"


def module_name(path) -> str:
    parts = path.relative_to(REPO).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in SOURCES}


def imports(path, everywhere: bool = True) -> set[str]:
    """Returns our modules that a file imports: everywhere, or only at module level."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names & set(MODULES) - {"detector", "launcher"}


def room(module: str) -> int:
    return ROOMS.index(module.split(".")[1])


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("detector.")])
def test_a_room_imports_rooms_below_it(module):
    for other in imports(MODULES[module]):
        assert other.startswith("detector."), f"{module} imports {other}: the detector does not know who launched it"
        assert room(other) <= room(module), f"{module} imports {other}, which is above it"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: imports(path, everywhere=False) - {module} for module, path in MODULES.items()}
    while free := [module for module, others in graph.items() if not others & set(graph)]:
        for module in free:
            del graph[module]
    assert not graph, f"circles among {', '.join(graph)}"


def test_rooms_without_torch():
    modules = [name for name in MODULES
               if any(name == free or name.startswith(f"{free}.") and free != "detector" for free in TORCH_FREE)]
    assert len(modules) > 40
    code = f"import sys, importlib\nfor name in {modules}:\n    importlib.import_module(name)\n" \
           "    assert 'torch' not in sys.modules, name"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("launcher")])
def test_the_launcher_imports_no_torch_at_module_level(module):
    free = tuple(TORCH_FREE[1:])
    for other in imports(MODULES[module], everywhere=False):
        assert other.startswith(free), f"{module} imports {other}, which imports torch"


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_some_things_are_in_one_place_only(pattern):
    files = {str(path.relative_to(REPO)) for path in SOURCES
             if any(re.search(pattern, line.split("#")[0]) for line in code_lines(path))}
    assert files <= ONLY_IN[pattern]


def code_lines(path) -> list[str]:
    """Returns the lines of a file without its docstrings."""
    tree, lines = ast.parse(path.read_text()), path.read_text().splitlines()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            docstring = node.body[0]
            lines[docstring.lineno - 1:docstring.end_lineno] = [""] * (docstring.end_lineno - docstring.lineno + 1)
    return lines


def functions(path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=module_name)
def test_files_and_functions_stay_small(path):
    is_test, text = path in TESTS, path.read_text()
    assert path.stem not in VAGUE_FILES
    assert text.count("\n") <= (400 if is_test else 300), "split this file"
    for function in functions(path):
        assert function.end_lineno - function.lineno < (80 if is_test else 60), f"split {function.name}"
    assert max((len(line) for line in text.splitlines()), default=0) <= (140 if is_test else 120)


def test_half_of_all_functions_have_ten_lines_or_fewer():
    assert statistics.median(function.end_lineno - function.lineno + 1
                             for path in SOURCES for function in functions(path)) <= 10


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_every_module_has_a_docstring_and_docstrings_name_their_subject(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)):
            first = (ast.get_docstring(node) or "").split(" ")[0]
            assert first not in {"It", "That", "What", "Those", "They", "This", "Whether", "Who", "So", "Unless"}, node


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_no_private_terms_as_names(path):
    if path == ALIASES:
        return
    names = {}
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node, "name", None) if isinstance(node, (ast.FunctionDef, ast.ClassDef)) else \
            node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else \
            node.attr if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self" \
            else None
        if name in BANNED_NAMES:
            names.setdefault(name, node.lineno)
    assert not names


@pytest.mark.parametrize("path", [*SOURCES, *(REPO / "configs").rglob("*.yaml"), *REPO.glob("*.md"),
                                  *REPO.glob("*/*.md")], ids=lambda path: str(path.relative_to(REPO)))
def test_no_private_terms_in_prose(path):
    if path == ALIASES:
        return
    for number, text in prose(path):
        for pattern in BANNED_PROSE:
            assert not re.search(pattern, text, re.IGNORECASE), f"{path}:{number}: {text.strip()[:120]}"


def prose(path):
    """Yields (line, text) of comments and strings of a Python file, or of all lines of another file."""
    text = path.read_text()
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), start=1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING) or token.type == getattr(tokenize, "FSTRING_MIDDLE", -1):
            yield token.start[0], token.string


def test_the_top_level_is_as_agreed():
    names = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.startswith(".")} == {
        "pyproject.toml", "README.md", "Makefile", "LICENSE", "launcher", "detector", "slurm", "configs", "tests"}


def test_the_command_answers_without_loading_torch():
    code = "import sys, launcher.cli, detector.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
