"""The run folder, config and job records of a run."""

import json

import pytest

from detector.errors import BadInput
from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.files import read_json
from launcher.run_info import add_job_record, backend_of, job_records, resolve_run


def test_what_a_run_folder_holds(tmp_path):
    assert last_checkpoint_step(tmp_path) == 0 and job_records(tmp_path) == [] and read_json(tmp_path / "x") == {}
    (tmp_path / "checkpoints").mkdir()
    for name in ("step-00000003.pt", "step-00000012.pt", "step-00000099.part", "best.pt"):
        (tmp_path / "checkpoints" / name).touch()
    assert last_checkpoint_step(tmp_path) == 12
    (tmp_path / "x").write_text("[1]")
    assert read_json(tmp_path / "x") == {}
    add_job_record(tmp_path, job="1")
    with open(tmp_path / "slurm" / "jobs.jsonl", "a") as file:
        file.write('{"job": "2", "ve')
    assert [json.loads(json.dumps(line))["job"] for line in job_records(tmp_path)] == ["1"]
    with pytest.raises(BadInput, match="is not a run folder"):
        resolve_run("evaluate", (str(tmp_path),))
    with pytest.raises(BadInput, match="train needs a config file"):
        resolve_run("train", ("--json",))


def test_the_backend_of_a_run_is_that_of_its_last_submission(tmp_path):
    assert backend_of(tmp_path) == "local" and job_records(tmp_path) == []
    add_job_record(tmp_path, job="1", verb="train")  # as written by a version before the key `backend`
    assert backend_of(tmp_path) == "slurm" and job_records(tmp_path)[-1]["job"] == "1"
    add_job_record(tmp_path, job="2", verb="train", backend="sbatch")
    add_job_record(tmp_path, job="2", verb="train", restart=1)  # the start of a job does not repeat it
    assert backend_of(tmp_path) == "sbatch" and job_records(tmp_path)[-1]["job"] == "2"
