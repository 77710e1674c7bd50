"""The house rules: who may import whom, what is said in one place only, and how large a room may be."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import REPO

LEVELS = {
    0: "arguments errors config.option config.model config.schema config.values records boxes randomness distributed stopping findings "
       "owner commit",
    1: "config.load data.files data.json_text data.workers data.packing data.coco data.voc data.per_image_json data.shapes "
       "data.read data.transforms data.examples data.batches data.canvases data.chunks "
       "model.bodies model.roi_pooling model.input model.weights model.layouts model.weight_files model.coding model.truth "
       "model.anchors model.anchor_plan model.folding model.align model.atlas model.cells model.nms model.sampling model.rpn model.roi "
       "model.reference metrics.coco metrics.voc metrics.analysis metrics.kernel metrics.matching metrics.errors "
       "metrics.operating metrics.bootstrap metrics.visual_genome statistics reach thumbnails "
       "data.visual_genome data.imagenet_det data.catalogue data.download data.unpack",
    2: "step settling start waiting saving status heartbeat checkpoint journal finite draw pictures surroundings inference "
       "data.loader model.build model.compiled optim charts scoring scorer results frames loaded predictions portable seen "
       "page.assemble album report "
       "checks.data checks.machine checks.trial",
    3: "train evaluate predict check export timing view score compare evaluate_weights obtain",
    4: "tables.printed tables.measured tables.lines tables.page tables.models tables.show __main__",
}
LEVEL = {f"detector.{name}": level for level, names in LEVELS.items() for name in names.split()}
ONE_VERB_FROM_ANOTHER = {("detector.training.loop", "detector.evaluation.evaluate"), ("detector.evaluation.evaluate_weights", "detector.evaluation.evaluate")}
# As text: a launcher module, and what it may import.
LAUNCHER_MAY = """
environment: errors
job: config.schema
snapshot: commit config.load errors job
record: config.load config.schema errors
local: errors environment job
watch: config.schema record
torchrun: errors job local record
preflight: config.schema errors findings environment job
inside: errors owner environment job local record watch
submission: config.load errors owner environment job preflight record snapshot
sbatch: config.load errors environment record snapshot submission
cluster: errors inside environment record sbatch submission
reproduce: config.load errors
site: config.load errors job
following: errors environment record submission
checking: errors findings preflight job local record
cli: config.load errors checking cluster following site job local record reproduce sbatch submission torchrun watch
"""
SHARED = ("errors", "findings", "owner", "commit", "config.schema", "config.load")  # of the detector: all that a launcher knows of it
LAUNCHER = {f"launcher.{name}": {"launcher", *(("detector." if word in SHARED else "launcher.") + word
                                               for word in words.split())}
            for name, words in (line.split(":") for line in LAUNCHER_MAY.split("\n") if line)}
# What -> the only files that may say it.
ONLY_HERE = {
    r"SLURM_": {"launcher/rank_env.py", "launcher/backends/submitit.py"},
    r"import submitit": {"launcher/rank_env.py", "launcher/backends/submitit.py"},
    r"torch\.distributed(?!\.run\b)|DistributedDataParallel": {"detector/distributed/collectives.py"},
    r"^\s*(import yaml|from yaml)": {"detector/config/load.py"},
    r"torch\.Generator\(|np\.random\.[A-Z]\w*\(|default_rng\(|manual_seed\(|random\.Random\(":
        {"detector/seeding.py"},
}
SAY_NOTHING = {"utils", "misc", "common", "helpers", "manager", "base", "engine", "core"}
SOURCES = sorted([*(REPO / "detector").rglob("*.py"), *(REPO / "launcher").rglob("*.py")])
ALL = [*SOURCES, *sorted((REPO / "tests").rglob("*.py"))]


def module_of(path) -> str:
    return ".".join(path.relative_to(REPO).with_suffix("").parts)


def imports(path) -> set[str]:
    """Modules of ours that a file imports, at its top or inside a function."""
    known = {module_of(source) for source in SOURCES}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


@pytest.mark.parametrize("path", [p for p in SOURCES if p.name != "__init__.py"], ids=module_of)
def test_imports_go_down(path):
    name = module_of(path)
    if name.startswith("launcher."):
        assert imports(path) <= LAUNCHER[name]
        return
    for other in imports(path):
        assert other.startswith("detector."), f"{name} imports {other}: the detector does not know who launched it"
        same_verb_level = LEVEL[name] == LEVEL[other] == 3 and (name, other) not in ONE_VERB_FROM_ANOTHER
        assert LEVEL[other] <= LEVEL[name] and not same_verb_level, f"{name} imports {other}"


@pytest.mark.parametrize("pattern", ONLY_HERE)
def test_said_in_one_place_only(pattern):
    where = {str(path.relative_to(REPO)) for path in SOURCES
             if any(re.search(pattern, line.split("#")[0]) for line in code_lines(path))}
    assert where <= ONLY_HERE[pattern]


def code_lines(path) -> list[str]:
    """The lines of a file without its docstrings."""
    tree, lines = ast.parse(path.read_text()), path.read_text().splitlines()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            text = node.body[0]
            lines[text.lineno - 1:text.end_lineno] = [""] * (text.end_lineno - text.lineno + 1)
    return lines


@pytest.mark.parametrize("path", ALL, ids=module_of)
def test_rooms_stay_small_and_have_a_name(path):
    text = path.read_text()
    assert path.stem not in SAY_NOTHING
    assert text.count("\n") <= (400 if "tests" in path.parts else 250), "this file asks to be two"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno <= 80, f"{node.name} asks to be two"
    assert max((len(line) for line in text.splitlines()), default=0) <= (140 if "tests" in path.parts else 120)


def test_the_top_level_is_as_agreed():
    names = subprocess.run(["git", "ls-files"], cwd=REPO, capture_output=True, text=True, check=True).stdout.split()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.startswith(".")} == {
        "pyproject.toml", "README.md", "Makefile", "LICENSE", "launcher", "detector", "slurm", "configs", "tests"}


def test_the_command_answers_without_loading_torch():
    code = "import sys, launcher.cli, detector.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO).returncode == 0
