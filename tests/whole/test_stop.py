"""A stop request takes effect at any moment, all ranks leave at the same step, and a run that cannot go on ends and says why."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import REPO, finish, run, start, train

pytestmark = pytest.mark.whole
HOOKED = str(Path(__file__).parent / "hooked_run.py")


def status(folder) -> dict:
    return json.loads((folder / "status.json").read_text())


def metrics(folder) -> list[tuple[str, int]]:
    """Returns kind and step of each line in metrics.jsonl."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["kind"], line["step"]) for line in lines]


def until(condition, running, timeout_s: float = 120) -> None:
    """Waits for a condition while all processes run."""
    limit = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < limit and all(process.poll() is None for process in running), finish(running, 10)[1]
        time.sleep(0.05)


def test_a_stop_while_python_starts_ends_with_status_75(tiny, config_file, tmp_path):
    """The launcher starts the process with the signal blocked, and sends it while Python itself starts."""
    old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        process = subprocess.Popen([sys.executable, "-m", "detector", "train", str(config_file), *tiny], cwd=REPO,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old_mask)
    process.send_signal(signal.SIGUSR1)
    statuses, output = finish([process])
    assert statuses == [75] and "stop requested (SIGUSR1) during start-up" in output, output
    folder = tmp_path / "runs" / "tiny"
    assert (status(folder)["state"], status(folder)["by"]) == ("stopped", "SIGUSR1")
    assert [path.name for path in folder.iterdir()] == ["status.json"]


def test_a_loader_that_hangs_on_one_rank_is_reported_and_does_not_delay_a_stop(tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    running = start([HOOKED, "train", str(config_file), *tiny, "run.num_workers=1", "run.hang_timeout_minutes=0.05",
                     "schedule.steps=100", "evaluate.every_epochs=0"], 2, SLOW_RANK="1")

    def late() -> list[str]:  # on a busy machine the start is reported as late, too
        lines = (folder / "log.txt").read_text().splitlines() if (folder / "log.txt").exists() else []
        return [line for line in lines if "is late" in line and "in phase 'loading data'" in line]
    until(late, running)
    assert "rank 1 on " in late()[-1]
    for rank in range(2):
        assert "fetch_batches" in (folder / "heartbeats" / f"rank-{rank:05d}.stacks.txt").read_text()
    requested_at = time.monotonic()
    running[0].send_signal(signal.SIGTERM)
    statuses, output = finish(running)
    assert statuses == [75, 75] and time.monotonic() - requested_at < 20, output
    step = status(folder)["step"]
    assert 0 < step < 100 and f"saved step {step} in " in output and "stop requested (SIGTERM)" in output
    assert status(folder)["state"] == "stopped" and status(folder)["saved_in_s"] > 0
    assert (folder / "checkpoints" / f"step-{step:08d}.pt").is_file()
    assert metrics(folder) == [("train", n) for n in range(1, step + 1)]


def test_a_stop_in_an_evaluation_discards_it_and_the_next_start_repeats_it_first(tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    arguments = ["train", str(config_file), *tiny, "schedule.steps=4"]
    statuses, output = run([HOOKED, *arguments], 2, STOP_IN_EVALUATION="1")
    assert statuses == [75, 75] and "stop requested in the evaluation at step 3" in output, output
    assert metrics(folder) == [("train", 1), ("train", 2), ("train", 3)] and status(folder)["step"] == 3
    output = train(0, config_file, [*tiny, "schedule.steps=4"])
    assert "the evaluation at step 3 was interrupted; it is repeated first" in output and "on 1 process now, 2 before" in output
    assert metrics(folder) == [("train", 1), ("train", 2), ("train", 3), ("evaluation", 3), ("train", 4),
                              ("evaluation", 4)]
    assert status(folder)["state"] == "finished" and status(folder)["seconds_left"] == 0


def test_a_stop_does_not_wait_for_drawings_and_the_evaluation_is_in_metrics_jsonl(tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    running = start([HOOKED, "train", str(config_file), *tiny, "run.num_workers=1", "schedule.steps=7"], 2, SLOW_DRAWING="1")
    until(lambda: (folder / "metrics.jsonl").exists() and ("train", 6) in metrics(folder), running)
    time.sleep(1)  # the evaluation at step 6 waits for the drawings of the one at step 3
    requested_at = time.monotonic()
    running[1].send_signal(signal.SIGTERM)
    statuses, output = finish(running)
    assert statuses == [75, 75] and time.monotonic() - requested_at < 30, output
    assert metrics(folder) == [("train", 1), ("train", 2), ("train", 3), ("evaluation", 3), *(("train", n) for n in (4, 5, 6))]
    output = train(0, config_file, [*tiny, "schedule.steps=7"], 2)
    assert "the evaluation at step 6 was interrupted; it is repeated first" in output
    assert [(kind, step) for kind, step in metrics(folder) if kind == "evaluation"] == [("evaluation", n) for n in (3, 6, 7)]


def test_a_run_that_stopped_early_for_lack_of_patience_keeps_its_files_when_it_is_started_again(tiny, config_file, tmp_path):
    folder, arguments = tmp_path / "runs" / "tiny", [*tiny, "schedule.steps=30", "schedule.early_stopping_patience=1", "optim.lr=1e-9"]
    assert "finished: 6 of 30 steps" in train(0, config_file, arguments)
    kept = {name: (folder / name).read_text() for name in ("config.yaml", "environment.json")}
    for name in kept:
        (folder / name).write_text(kept[name] + "\n")
    assert "finished: 6 of 30 steps" in train(0, config_file, arguments)
    assert {name: (folder / name).read_text() for name in kept} == {name: text + "\n" for name, text in kept.items()}


def test_a_killed_rank_ends_the_other(tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    running = start(["-m", "detector", "train", str(config_file), *tiny, "schedule.steps=1000", "data.val=[]"], 2)
    until(lambda: (folder / "status.json").exists() and status(folder)["state"] == "training", running)
    running[1].kill()
    killed_at = time.monotonic()
    statuses, output = finish(running)
    assert statuses[0] not in (0, 75) and time.monotonic() - killed_at < 30, output
    assert status(folder)["state"] == "failed"


def test_a_killed_loader_worker_costs_no_step_on_any_rank(tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    running = start(["-m", "detector", "train", str(config_file), *tiny, "schedule.steps=1000", "data.val=[]", "run.num_workers=1"], 2)
    until(lambda: (folder / "log.txt").exists() and "step 3/" in (folder / "log.txt").read_text(), running)
    server = int(subprocess.run(["pgrep", "-f", "-P", str(running[1].pid), "forkserver"], capture_output=True, text=True).stdout)
    worker = int(subprocess.run(["pgrep", "-P", str(server)], capture_output=True, text=True).stdout.split()[-1])
    os.kill(worker, signal.SIGKILL)
    statuses, output = finish(running)
    assert statuses == [1, 1] and "Traceback" not in output, output
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "loader worker 0 of rank 1 on " in errors[0] and "SIGKILL while it read " in errors[0], output
    step = status(folder)["step"]
    assert f"saved step {step} in " in output and (folder / "checkpoints" / f"step-{step:08d}.pt").is_file()
    assert metrics(folder) == [("train", n) for n in range(1, step + 1)] and status(folder)["state"] == "failed"


def launch(arguments: list[str], *options: str) -> subprocess.Popen:
    """Starts a training through the launcher, in a process group of its own."""
    return subprocess.Popen([sys.executable, "-m", "launcher.cli", *arguments, "--processes", "2", *options], cwd=REPO, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                            env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("options, number, whole_group", [
    ([], signal.SIGKILL, False),                          # the ranks notice that their launcher is gone
    (["--on", "torchrun"], signal.SIGINT, True)])         # torchrun sends each rank the signal once more
def test_what_ends_the_launcher_is_a_stop_of_all_ranks_that_is_saved_once(options, number, whole_group, tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    launcher = launch(["train", str(config_file), *tiny, "schedule.steps=1000", "data.val=[]"], *options)
    until(lambda: (folder / "log.txt").exists() and "step 3/" in (folder / "log.txt").read_text(), [launcher])
    os.killpg(launcher.pid, number) if whole_group else launcher.send_signal(number)
    (status_of_launcher,), output = finish([launcher])  # the output ends with the last rank
    assert status_of_launcher == (75 if whole_group else -signal.SIGKILL), output
    step = status(folder)["step"]
    assert status(folder)["state"] == "stopped" and output.count(f"saved step {step} in ") == 1 and "Traceback" not in output, output
    assert (folder / "checkpoints" / f"step-{step:08d}.pt").is_file()
    assert metrics(folder) == [("train", n) for n in range(1, step + 1)]


def test_bad_input_under_torchrun_is_one_error_with_status_2(tiny, config_file, tmp_path):
    launcher = launch(["train", str(config_file), *tiny, "data.format=coco", f"data.root={tmp_path}"], "--on", "torchrun")
    statuses, output = finish([launcher])
    assert statuses == [2] and output.count("error: ") == 1 and len(output.splitlines()) <= 3, output


def test_a_second_start_of_a_run_is_refused_while_the_first_runs(tiny, config_file, tmp_path):
    folder = tmp_path / "runs" / "tiny"
    arguments = ["-m", "detector", "train", str(config_file), *tiny, "schedule.steps=1000", "data.val=[]", "run.save_every_steps=2"]
    first = start(arguments)
    until(lambda: (folder / "checkpoints" / "step-00000002.pt").exists(), first)
    statuses, output = run(arguments, 2)
    assert statuses == [2, 2] and output.count(f"{folder} is being trained by process {first[0].pid} on ") == 1, output
    for backend in ([], ["--on", "torchrun"]):
        statuses, output = run(["-m", "launcher.cli", *arguments[2:], "--processes", "1", *backend])
        assert statuses == [2] and output.count(f"{folder} is being trained by process {first[0].pid} on ") == 1, output
        assert len(output.splitlines()) == 1, output
    assert status(folder)["state"] == "training" and "resuming" not in (folder / "log.txt").read_text()
    first[0].kill()
    finish(first)
    step = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    output = train(step + 1, config_file, arguments[4:])
    assert "resuming from" in output and status(folder)["state"] == "stopped"


def test_a_disk_that_fills_up_during_a_background_save_ends_all_ranks_with_one_error(tiny, config_file, tmp_path):
    statuses, output = run([HOOKED, "train", str(config_file), *tiny, "schedule.steps=1000", "run.save_every_steps=2",
                          "data.val=[]"], 2, FILE_LIMIT=str(2**20))
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert statuses == [2, 2] and len(errors) == 1 and "cannot write checkpoint" in errors[0], output
    folder = tmp_path / "runs" / "tiny"
    assert list((folder / "checkpoints").iterdir()) == [] and status(folder)["state"] == "failed"
