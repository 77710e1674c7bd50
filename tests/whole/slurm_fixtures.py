"""Fixtures of tests on a real Slurm of two nodes. A test file imports those that it uses; each file has a cluster of its own."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import TINY
from slurm_cluster import Cluster, missing

needs_slurm = [pytest.mark.whole, pytest.mark.skipif(bool(missing()), reason=missing())]
STEPS = 15
BACKENDS = {"submitit": ["--on", "slurm"], "torchrun": ["--on", "sbatch"], "srun": ["--on", "sbatch", "--template", "srun"]}
FOUR_PROCESSES = ["--nodes", "2", "--processes", "2"]


@dataclass(frozen=True)
class Runs:
    folder: Path          # folder of the run folders
    arguments: list[str]  # config and overrides of a run, without its name


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with eight GPUs each, which nobody checks."""
    cluster = Cluster(Path(tempfile.mkdtemp(prefix="fleet-test-", dir="/tmp")))  # a short path, as sockets need it
    started_at = time.monotonic()
    error = cluster.up("--gpus", "8", "--kill-wait", "8", "--grace", "10")
    if "namespaces" in error:
        pytest.skip(error.strip())
    assert not error, error
    cluster.up_s = time.monotonic() - started_at
    yield cluster
    cluster.control("down")
    shutil.rmtree(cluster.environ["FLEET_CLUSTER"])


@pytest.fixture(scope="module")
def runs(shapes_root, tmp_path_factory) -> Runs:
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "empty.yaml").write_text("")
    return Runs(folder, [
        str(folder / "empty.yaml"), *TINY, "data.format=shapes", f"data.root={shapes_root}", f"data.cache={folder / 'cache'}",
        f"run.folder={folder}", f"schedule.steps={STEPS}", "run.save_every_steps=3", "evaluate.every_epochs=2"])


@pytest.fixture(scope="module")
def undisturbed(cluster, runs) -> Path:
    """The run that the others are compared with: four processes of torchrun on this machine."""
    cluster.fleet("train", *runs.arguments, "run.name=undisturbed", "--on", "torchrun", "--processes", "4")
    return runs.folder / "undisturbed"
