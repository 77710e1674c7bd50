"""The batch scripts are those of tests/golden/, and valid bash.

After an intended change, `python tests/launcher/backends/test_sbatch.py` rewrites the golden files; read the difference.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from launcher import cli, partitions
from launcher.backends import sbatch, submitit
from launcher.job import TEMPLATES, Job, Resources
from launcher.submission import Submission

SNAPSHOT: list[Path] = []
NAMES = ("torchrun-gpus", "srun-gpus", "array-gpus", "torchrun-cpus", "srun-cpus", "array-cpus", "evaluate")
GOLDEN = Path(__file__).resolve().parents[2] / "golden"
GPU_RESOURCES = Resources(nodes=2, gpus=8, cores=8, memory_gib=200, hours=24, partition="gpu", account="vision", constraint="h100|a100",
                   modules=("cuda/12.8",), setup=("export NCCL_SOCKET_IFNAME=ib0",), python="/venv/bin/python",
                   container="apptainer exec --nv --containall --bind /shared /images/torch.sif", sbatch=("--qos=long", "--exclusive"))
CPU_RESOURCES = Resources(nodes=2, processes=2, python="/venv/bin/python")


def submission(resources: Resources, name: str = "r50", verb: str = "train") -> Submission:
    run = Path("/shared/runs") / name
    arguments = (f"{run}/slurm/config.yaml",) if verb == "train" else (str(run), "evaluate.max_detections=300")
    return Submission(Job(verb, arguments, resources), run, resources.cores or 3, "fleet-rcnn train coco/resnet50_fpn --on ...",
                      f"{run}/slurm/%j.log", Path("/home/me/my project"), SNAPSHOT[0])


@pytest.fixture(scope="module", autouse=True)
def code():
    """The code snapshot of a submission; a script runs it by its folder."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "__main__.py").touch()
        SNAPSHOT.append(Path(folder))
        yield
        SNAPSHOT.pop()


def without_paths(text: str) -> str:
    return text.replace(str(SNAPSHOT[0]), "/shared/runs/r50/code").replace(sys.executable, "/venv/bin/python")


def scripts() -> dict[str, str]:
    rendered = {}
    for name, resources in (("gpus", GPU_RESOURCES), ("cpus", CPU_RESOURCES)):
        for template in TEMPLATES:
            rendered[f"{template}-{name}"] = sbatch.fill_template(template, sbatch.template_values(submission(resources)))
        rows = [submission(resources, "a"), submission(resources, "b c")]
        rendered[f"array-{name}"] = sbatch.array_script(rows)
    rendered["evaluate"] = sbatch.fill_template("srun", sbatch.template_values(submission(CPU_RESOURCES, verb="evaluate")))
    return {name: without_paths(text) for name, text in rendered.items()}


@pytest.mark.parametrize("name", NAMES)
def test_scripts_are_the_golden_files(name):
    assert scripts()[name] == (GOLDEN / f"{name}.sbatch").read_text()


def test_there_is_a_golden_file_for_each_script_and_no_other():
    assert {path.stem for path in GOLDEN.glob("*.sbatch")} == {*NAMES, "submitit-gpus", "submitit-cpus"} == {
        *scripts(), "submitit-gpus", "submitit-cpus"}


@pytest.mark.parametrize("name, resources", [("gpus", GPU_RESOURCES), ("cpus", CPU_RESOURCES)])
def test_the_script_of_submitit_is_the_golden_file(name, resources, monkeypatch):
    assert submitit_script(resources, monkeypatch) == (GOLDEN / f"submitit-{name}.sbatch").read_text()


def submitit_script(resources: Resources, monkeypatch) -> str:
    monkeypatch.setattr("shutil.which", lambda name, *_: f"/usr/bin/{name}")  # submitit looks for srun
    return without_paths(submitit.render(submission(resources))) + "\n"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.sbatch")), ids=lambda path: path.stem)
def test_scripts_are_valid_bash_with_every_placeholder_filled(path):
    text = path.read_text()
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""
    assert "{{" not in text and "gpus-per-task" not in text and "localhost" not in text
    for part in ("--requeue", "--open-mode=append", "--signal=USR2@120", "--kill-on-bad-exit=1", "scontrol show hostnames"):
        assert part in text, part
    cores = {word.split("=")[1] for word in text.split() if word.startswith("--cpus-per-task=")}
    assert len(cores) == 1 and text.count("--cpus-per-task=") == 2, "srun does not take --cpus-per-task from sbatch"


def test_options_of_srun_typed_gpus_and_memory_per_core_are_in_every_script(monkeypatch):
    resources = Resources(gpus=2, gpu_type="a100", memory_per_core_gib=0.5, python="/p",
                          srun=("--container-image=nvcr.io#torch", "--mpi=none"),
                          sbatch=("--no-requeue", "--signal=USR1@300", "--comment=a \\ b", "--job-name=mine", "--time=UNLIMITED"))
    values = sbatch.template_values(submission(resources))
    texts = [*(sbatch.fill_template(template, values) for template in TEMPLATES), sbatch.array_script([submission(resources)] * 2, 4),
             submitit_script(resources, monkeypatch)]
    for text in texts:
        lines = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
        names = [line.split("=")[0] for line in lines]
        assert len(names) == len(set(names)), "each option is written once"
        assert {"--gpus-per-node=a100:2", "--mem-per-cpu=512M", "--no-requeue", "--signal=USR1@300", "--job-name=mine",
                "--comment='a \\\\ b'", "--time=UNLIMITED"} <= set(lines) and "--requeue" not in names and "--mem" not in names
        assert re.search(r"^srun .*--container-image='?nvcr.io#torch'? --mpi=none", text, re.MULTILINE)
    assert "#SBATCH --array=0-1%4\n" in texts[2]


def test_dry_run_prints_the_script_where_there_is_no_slurm(tmp_path, monkeypatch, capsys):
    for module in (sbatch, partitions):
        monkeypatch.setattr(module, "has_slurm", lambda: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("data: {root: /data}\n")
    assert cli.main(["train", "mine.yaml", "--on", "sbatch", "--gpus", "2", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("#!/bin/bash") and "#SBATCH --gpus-per-node=2" in out and err.startswith("note: this machine has no Slurm")
    assert cli.main(["train", "mine.yaml", "--on", "sbatch", "--gpus", "2"]) == 2
    assert "there is none on" in capsys.readouterr().err and not (tmp_path / "runs").exists()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        Path(folder, "__main__.py").touch()
        SNAPSHOT.append(Path(folder))
        rendered = scripts()
        for kind, resources in (("gpus", GPU_RESOURCES), ("cpus", CPU_RESOURCES)):
            rendered[f"submitit-{kind}"] = submitit_script(resources, patch)
        for name, text in rendered.items():
            (GOLDEN / f"{name}.sbatch").write_text(text)
