"""Whose RANK and WORLD_SIZE count: those of a launcher; those of a shell only once the other ranks have answered."""

import os
import subprocess
import sys

import pytest
from conftest import REPO

from detector.distributed import rank_info
from detector.errors import BadInput

WHOLE = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29999"}
LAUNCHED = {**WHOLE, "TORCHELASTIC_RUN_ID": "7"}


@pytest.fixture
def environ(monkeypatch):
    """Replaces all variables of launchers by those given."""
    def replace(variables: dict[str, str]) -> None:
        starters = {name for names in rank_info.TASK_STARTERS.values() for name in names}
        for name in {*LAUNCHED, *starters}:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(rank_info, "is_interactive", lambda: False)
    return replace


@pytest.mark.parametrize("variables, joined, expected", [
    (LAUNCHED, False, (1, 1, 4)), (WHOLE, True, (1, 1, 4)), (WHOLE, False, (0, 0, 1)), ({}, False, (0, 0, 1)),
    ({"RANK": "1", "WORLD_SIZE": "4"}, True, (0, 0, 1)),              # incomplete: left in a shell
    ({**WHOLE, "RANK": "4"}, True, (0, 0, 1)), ({**WHOLE, "RANK": "one"}, True, (0, 0, 1)),
    ({**WHOLE, "LOCAL_RANK": ""}, True, (1, 0, 4)), ({**WHOLE, "MASTER_PORT": ""}, True, (0, 0, 1))])
def test_the_world_of_a_process(variables, joined, expected, environ, monkeypatch):
    environ(variables)
    monkeypatch.setattr(rank_info, "is_joined", joined)
    assert (rank_info.rank(), rank_info.local_rank(), rank_info.world_size()) == expected


@pytest.mark.parametrize("variables, note", [
    ({"RANK": "1", "WORLD_SIZE": "4"}, "RANK=1 WORLD_SIZE=4 of this shell is ignored (MASTER_ADDR and MASTER_PORT not set)"),
    ({**WHOLE, "RANK": "9"}, "RANK=9 WORLD_SIZE=4 of this shell is ignored (they are no rank of a world)"),
    ({"RANK": "0", "WORLD_SIZE": "1"}, ""), ({"MASTER_ADDR": "localhost"}, ""), (WHOLE, ""), ({}, "")])
def test_variables_without_effect_are_named(variables, note, environ):
    environ(variables)
    assert (note in rank_info.ignored_variables()) if note else rank_info.ignored_variables() == ""


@pytest.mark.parametrize("variables, starter", [
    ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "4"}, "srun"),
    ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "4"}, "mpirun"), ({"PMI_RANK": "0", "PMI_SIZE": "4"}, "mpiexec")])
def test_one_of_several_tasks_that_know_nothing_of_each_other_is_refused_once(variables, starter, environ):
    environ(variables)
    with pytest.raises(BadInput, match=f"{starter} has started this command 4 times, as 4 separate runs"):
        rank_info.refuse_one_of_several_tasks()
    environ({name: "3" if value == "0" and "STEP" not in name else value for name, value in variables.items()})
    with pytest.raises(SystemExit) as ended:
        rank_info.refuse_one_of_several_tasks()
    assert ended.value.code == 2, "the first task speaks for all"


@pytest.mark.parametrize("variables", [
    {}, {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},
    {"SLURM_JOB_ID": "5", "SLURM_PROCID": "3", "SLURM_NTASKS": "8"}])  # left in a shell, or the script of a job
def test_a_single_task_is_not_refused(variables, environ):
    environ(variables)
    rank_info.refuse_one_of_several_tasks()


def test_variables_left_in_a_shell_change_nothing_for_verbs_of_one_process():
    code = ("from detector import load_config, read_dataset, load\n"
            "try:\n    load('/nosuch')\nexcept Exception as error:\n    print(error)\n")
    for command in ([sys.executable, "-c", code], [sys.executable, "-m", "detector", "predict", "/nosuch", "x.jpg"]):
        done = subprocess.run(command, cwd=REPO, env={**os.environ, **WHOLE}, capture_output=True, text=True, timeout=60)
        assert "no such" in done.stdout + done.stderr or "not a run folder" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
