"""The lock of a submission, and what a submission that failed leaves behind: nothing of its own."""

import threading

import pytest

from detector.errors import BadInput
from detector.run.files import SUBMISSION_LOCK_FILE
from launcher import submission_lock
from launcher.slurm_commands import SubmissionInterrupted, SubmissionUnanswered
from launcher.submission_lock import lock_run, missing_folders, remove_if_failed


def test_one_submission_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(submission_lock, "WAIT_S", 0.2)
    with lock_run(tmp_path):
        with pytest.raises(BadInput, match="being submitted by another process"), lock_run(tmp_path):
            pass
    with lock_run(tmp_path):  # released
        pass


def test_a_lock_file_that_its_owner_removed_is_made_anew(tmp_path):
    """A submission that sbatch refused removes the file, for which another one waits already."""
    entered = threading.Event()

    def wait_for_lock() -> None:
        with lock_run(tmp_path):
            entered.set()
            assert (tmp_path / SUBMISSION_LOCK_FILE).is_file()
    with lock_run(tmp_path):
        waiting = threading.Thread(target=wait_for_lock)
        waiting.start()
        (tmp_path / SUBMISSION_LOCK_FILE).unlink()
        assert not entered.wait(0.01) or (tmp_path / SUBMISSION_LOCK_FILE).is_file()
    waiting.join(10)
    assert entered.is_set()


@pytest.mark.parametrize("exists", [False, True])
def test_a_submission_that_failed_leaves_only_what_was_there(exists, tmp_path):
    run = tmp_path / "new" / "runs" / "a"
    if exists:
        (run / "slurm").mkdir(parents=True)
        (run / "config.yaml").touch()
        (run / "slurm" / "jobs.jsonl").touch()
    before = sorted(tmp_path.rglob("*"))
    missing = missing_folders(run)
    with pytest.raises(ValueError), lock_run(run), remove_if_failed(run, missing):
        (run / "code").mkdir()
        (run / "code" / "x.py").touch()
        (run / "slurm" / "config.yaml").touch()
        raise ValueError
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("error", [SubmissionUnanswered("the job may be in the queue"), SubmissionInterrupted()])
def test_a_submission_whose_answer_was_lost_keeps_the_files_that_its_job_needs(error, tmp_path):
    with pytest.raises(type(error)), lock_run(tmp_path), remove_if_failed(tmp_path, []):
        (tmp_path / "code").mkdir()
        raise error
    assert (tmp_path / "code").is_dir()


def test_folders_that_hold_another_run_stay(tmp_path):
    run = tmp_path / "new" / "a"
    missing = missing_folders(run)
    with pytest.raises(KeyboardInterrupt), lock_run(run), remove_if_failed(run, missing):
        (tmp_path / "new" / "b").mkdir()
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "b"]
