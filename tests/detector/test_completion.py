"""Completion in a shell, by the protocol of argcomplete: verbs, options, key=value, and names of configs and runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

from detector.arguments.completion import settings


@pytest.fixture
def complete(tmp_path):
    """Returns the completions of a command line, typed in a folder with the run cells and the file mine.yaml."""
    (tmp_path / "runs" / "cells").mkdir(parents=True)
    (tmp_path / "runs" / "cells" / "config.yaml").write_text("")
    (tmp_path / "mine.yaml").write_text("")

    def completions(line: str) -> list[str]:
        answer = tmp_path / "answer"
        subprocess.run([sys.executable, "-m", "launcher.start"], cwd=tmp_path, check=True, capture_output=True, text=True, env={
            **os.environ, "PYTHONPATH": str(REPO), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
            "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "zsh", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9"})
        return [text.partition(":")[0].strip() for text in answer.read_text().splitlines()]
    return completions


@pytest.mark.parametrize("line, some", [
    ("fleet-rcnn ", {"train", "jobs", "reproduce", "options"}), ("fleet-rcnn tr", {"train"}),
    ("fleet-rcnn train cu", {"custom/bccd", "custom/coco_tiny"}),
    ("fleet-rcnn train m", {"mine.yaml"}), ("fleet-rcnn train cel", {"cells"}), ("fleet-rcnn evaluate c", {"cells"}),
    ("fleet-rcnn compare cells ce", {"cells"}), ("fleet-rcnn predict cells --sc", {"--score"}),
    ("fleet-rcnn train mine.yaml --gp", {"--gpus", "--gpu-type"}),
    ("fleet-rcnn train mine.yaml optim.gr", {"optim.grad_clip_norm="}), ("fleet-rcnn reproduce voc07-v", {"voc07-vgg16-g8-b16"}),
    ("fleet-rcnn options model.rp", {"model.rpn"}), ("fleet-rcnn score a b --metric ", {"coco", "voc"}), ("fleet-rcnn logs ce", {"cells"})])
def test_what_may_stand_there_is_offered(line, some, complete):
    offered = set(complete(line))
    assert some <= offered
    typed = line.rpartition(" ")[2]
    assert all(text.startswith(typed) for text in offered)


def test_nothing_is_offered_for_a_word_that_nothing_starts_with(complete):
    assert complete("fleet-rcnn evaluate zzz") == []


def test_values_are_offered_behind_a_key():
    assert settings("run.device=") == ["run.device=auto", "run.device=cpu", "run.device=cuda"]
    assert settings("optim.lr=") == ["optim.lr=auto"] and settings("data.root=") == []
    assert "optim.lr=" in settings("") and "optim.lr=" in settings("wrong=")


def test_bash_completes_a_verb(tmp_path):
    register = Path(sys.executable).parent / "register-python-argcomplete"
    if not shutil.which("bash") or not register.exists():
        pytest.skip("no bash, or argcomplete is not installed beside this interpreter")
    program = tmp_path / "fleet-rcnn"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom launcher.start import main\nsys.exit(main())\n")
    program.chmod(0o755)
    script = (f'eval "$({register} fleet-rcnn)"\n'
              'COMP_LINE="fleet-rcnn reprod"; COMP_POINT=17; COMP_WORDS=(fleet-rcnn reprod); COMP_CWORD=1\n'
              '_python_argcomplete fleet-rcnn; echo "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPO)})
    assert done.stdout.split() == ["reproduce"], done.stderr
