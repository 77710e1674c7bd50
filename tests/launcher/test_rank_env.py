"""torchrun's variables, made from those of a task of srun."""

import pytest

from detector.errors import BadInput
from launcher.rank_env import SlurmJob, current_slurm_job, parse_tasks_per_node, task_environment

TASK = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_NODEID": "1", "SLURM_JOB_ID": "20017",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "n[1-2]", "MASTER_ADDR": "n1"}


def test_a_task_of_srun_gets_torchruns_variables():
    environment = task_environment(TASK)
    assert {name: environment[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")} == {
        "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "n1", "MASTER_PORT": "10257"}
    assert task_environment({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "SLURM_PROCID": "7"})["RANK"] == "0"  # set by torchrun


@pytest.mark.parametrize("lacking", ["SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_JOB_ID"])
def test_a_task_without_a_variable_of_srun_is_refused(lacking):
    with pytest.raises(BadInput, match=lacking):
        task_environment({key: value for key, value in TASK.items() if key != lacking})


def test_two_jobs_on_one_node_have_two_ports():
    ports = {task_environment({**TASK, "SLURM_JOB_ID": str(number)})["MASTER_PORT"] for number in range(1, 2001)}
    assert len(ports) == 2000 and all(1024 < int(port) < 32768 for port in ports)


def test_an_array_task_has_the_name_that_scontrol_takes():
    job = current_slurm_job({**TASK, "SLURM_ARRAY_JOB_ID": "20000", "SLURM_ARRAY_TASK_ID": "4", "SLURM_RESTART_COUNT": "2"})
    assert job == SlurmJob(20017, "20000_4", 2, "n[1-2]") and current_slurm_job({}) is None


@pytest.mark.parametrize("text, counts", [("2", [2]), ("2(x3),1", [2, 2, 2, 1]), ("1,8(x2)", [1, 8, 8])])
def test_parse_tasks_per_node(text, counts):
    assert parse_tasks_per_node(text) == counts
