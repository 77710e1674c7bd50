"""The first error in the log of a job, among the many lines that follow it."""

import pytest

from launcher.log_errors import first_error, memory_line

START = "Slurm job 7 on n[1-2]: train a, 0 steps are saved\n"
TRACEBACK = "Traceback (most recent call last):\n  File \"x.py\", line 3, in f\n    raise\n{}\n"
LOST = TRACEBACK.format("RuntimeError: [gloo/transport/tcp/pair.cc:525] Read error [10.0.0.2]:5123: Connection reset by peer")


@pytest.mark.parametrize("log, error", [
    ("", ""), (f"{START}step 1/9\n", ""),
    (f"{START}error: data.root=/x: no such folder\nsrun: error: n1: task 0: Exited with exit code 2\n", "data.root=/x: no such folder"),
    (START + TRACEBACK.format("ValueError: no box") + LOST + "srun: error: n1: task 1: Exited\n", "ValueError: no box"),
    (START + LOST + TRACEBACK.format("torch.OutOfMemoryError: CUDA out of memory. Tried") + "torchrun failed\n",
     "torch.OutOfMemoryError: CUDA out of memory. Tried"),
    (START + LOST, LOST.splitlines()[-1]),  # nothing else is known
    (START + "[rank1]: Traceback (most recent call last):\n[rank1]:   File \"x\"\n[rank1]: KeyError: 'cat'\n", "KeyError: 'cat'"),
    (START + "error: the restart before\nrequeue requested\n" + START + "error: this one\n", "this one"),
    (START + TRACEBACK.format("RuntimeError: rank 3: ValueError: no box") + TRACEBACK.format("ValueError: no box"), "ValueError: no box"),
    ("/var/spool/job7/slurm_script: line 9: module: command not found\nslurmstepd: error: more\n",
     "/var/spool/job7/slurm_script: line 9: module: command not found"),
    ("FATAL:   could not open image /x/torch.sif: no such file\n", "FATAL:   could not open image /x/torch.sif: no such file"),
    (f"{START}error: no room\n{START}not started again: no progress since restart 1, which also began at step 4\n", "no room"),
    (f"{START}not started again: all 3 restarts are used\n", "not started again: all 3 restarts are used")])
def test_the_first_error_of_the_last_start_is_the_cause(log, error, tmp_path):
    (tmp_path / "7.log").write_text(log)
    assert first_error(tmp_path / "7.log") == error


def test_a_log_that_is_missing_or_binary_has_no_error(tmp_path):
    assert first_error(tmp_path / "none.log") == ""
    (tmp_path / "7.log").write_bytes(b"\xff\xfe\x00step\n\xe7\x8c")
    assert first_error(tmp_path / "7.log") == ""


def test_the_message_of_the_oom_killer_is_told(tmp_path):
    (tmp_path / "7.log").write_text(f"{START}slurmstepd: error: Detected 1 oom_kill event in StepId=7.0. Some of the tasks were killed.\n")
    assert memory_line(tmp_path / "7.log") == "Detected 1 oom_kill event in StepId=7.0"


def test_what_a_terminal_would_obey_is_left_out(tmp_path):
    log = tmp_path / "7.log"
    log.write_bytes(f"{START}error: \x1b[31mno room\x07\n".encode())
    assert first_error(log) == "no room"
