"""The READMEs are right: their commands are understood, their paths exist, every file is in the tree."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO, TINY
from PIL import Image

from detector.arguments.verbs import parse
from detector.config.load import load_config
from launcher import cli
from launcher.arguments import GROUPS

pytestmark = pytest.mark.whole
READMES = [REPO / folder / "README.md"
           for folder in ("", "detector", "detector/annotation", "detector/inference", "launcher", "slurm", "configs", "tests",
                          "tests/benchmarks")]
PROGRAMS = ("fleet-rcnn", "torchrun", "make", "tensorboard", "python", "pytest", "slurm/local-cluster")
LINE = re.compile(rf"^    ((?:{'|'.join(PROGRAMS)}) .*)$", re.MULTILINE)
INLINE = re.compile(rf"`((?:{'|'.join(PROGRAMS)}) [^`]+)`")


def commands_of(text: str) -> list[str]:
    """Returns the commands that a README shows, in code blocks and in text, without their comments."""
    return [re.split(r" +# ", command)[0].strip() for pattern in (LINE, INLINE) for command in pattern.findall(text)]


COMMANDS = sorted({command for path in READMES for command in commands_of(path.read_text())})


# Lines that write a config, which later commands name.
ECHOES = [line for path in READMES for line in re.findall(r"^    (echo .* > .*|echo .* >> .*)$", path.read_text(), re.MULTILINE)]


def test_there_are_commands_of_every_program():
    assert {command.split()[0] for command in COMMANDS} == set(PROGRAMS)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, tmp_path, monkeypatch):
    if written := [line for line in ECHOES if line.rpartition("> ")[2] in command]:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["bash", "-c", "\n".join(written)], check=True)
    program, *words = shlex.split(command.partition(" > ")[0])
    if program == "make":
        assert re.search(rf"^{words[0]}:", (REPO / "Makefile").read_text(), re.MULTILINE)
    elif program == "pytest":
        assert (REPO / words[-1]).exists()
    elif program == "python" and words[0].endswith(".py"):
        assert (REPO / words[0]).exists()
        if len(words) > 1 and words[1].startswith("configs/"):
            load_config(words[1], words[2:])
    elif program == "slurm/local-cluster":
        assert re.search(rf"^def {words[0]}\(|[\"']{words[0]}[\"']", (REPO / program).read_text(), re.MULTILINE)
    elif program == "torchrun":
        understand(words[words.index("detector") + 1:])
    elif program == "fleet-rcnn":
        understand(words)


def understand(words: list[str]) -> None:
    """Parses the arguments of `fleet-rcnn` or `python -m detector`, and loads the config that they name."""
    if words[0].startswith("-") or len(words) == 1 and words[0] in cli.VERBS:
        return
    if "--help" in words:
        return
    args = parse(cli.attach_option_values(words), GROUPS)
    if words[0] == "reproduce":
        load_config(f"tables/{args.row}", args.overrides)
    elif "overrides" in args and "config" in args:
        load_config(args.config, args.overrides)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target


def test_the_tree_in_the_tour_names_every_module_and_no_other():
    text = (REPO / "detector" / "README.md").read_text()
    tree = re.search(r"^    detector/$.*?\n\n", text, re.MULTILINE | re.DOTALL).group()
    named, folders = set(), []
    for indent, name in re.findall(r"^    ( *)(\S+)", tree, re.MULTILINE):
        folders = folders[:len(indent) // 2]
        if name.endswith("/"):
            folders.append(name)
        else:
            named.add("".join(folders) + name)
    modules = {path.relative_to(REPO) for folder in ("detector", "launcher") for path in (REPO / folder).rglob("*.py")}
    files = {str(path) for path in modules if path.name != "__init__.py"}
    packages = {name for name in named if name.endswith("__init__.py")}
    assert named - packages == files
    assert all(Path(name) in modules for name in packages)


def test_the_first_page_is_short():
    assert len((REPO / "README.md").read_text().splitlines()) <= 170


def run(*command: str) -> str:
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_check_train_evaluate_predict_one_after_another(tiny, tmp_path, shapes_root):
    fleet = [sys.executable, "-m", "launcher.cli"]
    config, overrides = "configs/shapes/demo.yaml", [*tiny, "schedule.steps=2"]
    folder = tmp_path / "runs" / "tiny"
    assert "no problem found" in run(*fleet, "check", config, *overrides)
    assert "finished: 2 of 2 steps" in run(*fleet, "train", config, *overrides)
    for name in ("config.yaml", "environment.json", "log.txt", "metrics.jsonl", "results.json", "detections.json",
                 "checkpoints/step-00000002.pt", "checkpoints/best.pt"):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").iterdir()) and list((folder / "pictures").iterdir())

    assert "AP50" in run(*fleet, "evaluate", str(folder))
    assert "5 images" in run(*fleet, "predict", str(folder), str(shapes_root / "val"), "--score", "0.01")
    predictions = folder / "predictions" / "val"
    names = [image["file_name"] for image in json.loads((predictions / "images.json").read_text())["images"]]
    assert len(names) == 5 and all((predictions / name).is_file() for name in names)
    image = next(iter((shapes_root / "val").iterdir()))
    run(*fleet, "predict", str(folder), str(image), "--score", "1", "--out", str(tmp_path / "out"))  # no detection
    assert Image.open(tmp_path / "out" / image.name).size == Image.open(image).size


def test_real_data_in_each_format_is_read_and_checked(bccd, heads, coco_tiny, tmp_path):
    for arguments in (["custom/bccd", f"data.root={bccd}"],
                      ["custom/bccd", "data.format=per_image_json", f"data.root={heads}", "data.train=0:16",
                       "data.val=16:20"],
                      ["custom/coco_tiny", f"data.root={coco_tiny}", "data.val=val2017"]):
        output = run(sys.executable, "-m", "launcher.cli", "check", *arguments, f"data.cache={tmp_path}")
        assert "no problem found" in output


def test_real_photographs_train_and_are_scored(bccd, config_file, tmp_path):
    overrides = [*TINY, "data.format=voc", f"data.root={bccd}", f"data.cache={tmp_path}", f"run.folder={tmp_path}",
                 "schedule.steps=2", "run.name=cells", "evaluate.metric=voc"]
    assert "AP_11point" in run(sys.executable, "-m", "launcher.cli", "train", str(config_file), *overrides)
