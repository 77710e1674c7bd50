"""The scripts: as in tests/golden/, whole, and such that bash takes them.

After a change that is meant, `python tests/launcher/test_sbatch.py` writes them anew; read the difference.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from launcher.backends import sbatch, submitit
from launcher.job import Job, Resources
from launcher.submission import Submission

COPY: list[Path] = []
NAMES = ("torchrun-gpus", "srun-gpus", "array-gpus", "torchrun-cpus", "srun-cpus", "array-cpus", "evaluate")
GOLDEN = Path(__file__).resolve().parents[2] / "golden"
WANTED = Resources(nodes=2, gpus=8, cores=8, memory_gib=200, hours=24, partition="gpu", account="vision", constraint="h100|a100",
                   modules=("cuda/12.8",), setup=("export NCCL_SOCKET_IFNAME=ib0",), python="/venv/bin/python",
                   container="apptainer exec --nv /images/torch.sif", sbatch=("--qos=long", "--exclusive"))
PLAIN = Resources(nodes=2, processes=2, python="/venv/bin/python")


def submission(wanted: Resources, name: str = "r50", verb: str = "train") -> Submission:
    run = Path("/shared/runs") / name
    arguments = (f"{run}/slurm/config.yaml",) if verb == "train" else (str(run), "evaluate.max_detections=300")
    return Submission(Job(verb, arguments, wanted), run, wanted.cores or 3, "fleet-rcnn train coco/resnet50_fpn --on ...",
                      f"{run}/slurm/%j.log", Path("/home/me/my project"), COPY[0])


@pytest.fixture(scope="module", autouse=True)
def code():
    """The copy of the code that a submission takes; a script starts it by its folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "__main__.py").touch()
        COPY.append(Path(folder))
        yield
        COPY.pop()


def plain(text: str) -> str:
    return text.replace(str(COPY[0]), "/shared/runs/r50/code").replace(sys.executable, "/venv/bin/python")


def scripts() -> dict[str, str]:
    found = {}
    for name, wanted in (("gpus", WANTED), ("cpus", PLAIN)):
        for template in sbatch.TEMPLATES:
            found[f"{template}-{name}"] = sbatch.render(submission(wanted), template)
        rows = [submission(wanted, "a"), submission(wanted, "b c")]
        found[f"array-{name}"] = sbatch.render_array(rows)
    found["evaluate"] = sbatch.render(submission(PLAIN, verb="evaluate"), "srun")
    return {name: plain(text) for name, text in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_scripts_are_as_they_were(name):
    assert scripts()[name] == (GOLDEN / f"{name}.sbatch").read_text()


def test_there_is_a_golden_file_for_each_script_and_no_other():
    assert {path.stem for path in GOLDEN.glob("*.sbatch")} == {*NAMES, "submitit-gpus", "submitit-cpus"} == {
        *scripts(), "submitit-gpus", "submitit-cpus"}


@pytest.mark.parametrize("name, wanted", [("gpus", WANTED), ("cpus", PLAIN)])
def test_submitits_script_is_as_it_was(name, wanted, monkeypatch):
    assert submitits(wanted, monkeypatch) == (GOLDEN / f"submitit-{name}.sbatch").read_text()


def submitits(wanted: Resources, monkeypatch) -> str:
    monkeypatch.setattr("shutil.which", lambda name, *_: f"/usr/bin/{name}")  # submitit looks for srun
    return plain(submitit.render(submission(wanted))) + "\n"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sbatch")), ids=lambda path: path.stem)
def test_bash_takes_them_and_nothing_is_left_to_fill_in(path):
    text = path.read_text()
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""
    assert "{{" not in text and "gpus-per-task" not in text and "localhost" not in text
    for wanted in ("--requeue", "--open-mode=append", "--signal=USR2@120", "--kill-on-bad-exit=1", "scontrol show hostnames"):
        assert wanted in text, wanted
    cores = {word.split("=")[1] for word in text.split() if word.startswith("--cpus-per-task=")}
    assert len(cores) == 1 and text.count("--cpus-per-task=") == 2, "srun does not take them over by itself"


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        Path(place, "__main__.py").touch()
        COPY.append(Path(place))
        for kind, said in [*scripts().items(), ("submitit-gpus", submitits(WANTED, patch)), ("submitit-cpus", submitits(PLAIN, patch))]:
            (GOLDEN / f"{kind}.sbatch").write_text(said)
