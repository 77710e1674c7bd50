"""A run that is stopped at any step and started again ends with the same weights and momentum, bit for bit."""

import json
import shutil
import signal
import time

import pytest
import torch
from processes import finish, start, train
from slurm_cluster import CLOCK_KEYS
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = pytest.mark.whole
STEPS = 7  # two epochs and a bit: ten images in steps of four are three an epoch
RUN = [f"schedule.steps={STEPS}", "schedule.lr_schedule=cosine", "optim.ema_decay=0.9", "augment.color_jitter_prob=0.5",
       "augment.scale_jitter=[0.7,1.4]", "evaluate.every_epochs=1", "batch.repeat_threshold=0.5"]  # 1.11 times as many draws


def final(folder) -> dict:
    return torch.load(folder / "checkpoints" / f"step-{STEPS:08d}.pt", weights_only=True)


def assert_same(a: dict, b: dict) -> None:
    for part in ("model", "ema"):
        assert a[part].keys() == b[part].keys()
        for name in a[part]:
            assert torch.equal(a[part][name], b[part][name]), f"{part} {name}"
    assert a["moments"].keys() == b["moments"].keys() and a["moments"]
    for name, moments in a["moments"].items():
        for key, value in moments.items():
            assert torch.equal(value, b["moments"][name][key]), f"momentum of {name}"


@pytest.fixture(scope="module", params=[1, 2], ids=["1 process", "2 processes"])
def uncut(request, shapes_root, tmp_path_factory):
    """One run from start to end, with that many processes: (processes, overrides, config, its folder)."""
    from conftest import TINY
    tmp = tmp_path_factory.mktemp("uncut")
    config = tmp / "empty.yaml"
    config.write_text("")
    overrides = [*TINY, *RUN, "data.format=shapes", f"data.root={shapes_root}", f"data.cache={tmp / 'cache'}",
                 f"run.folder={tmp}"]
    train(0, config, [*overrides, "run.name=uncut"], request.param)
    return request.param, overrides, config, tmp


@pytest.mark.parametrize("workers", [0, 2])
def test_cut_twice_in_one_epoch_ends_with_the_same_weights(uncut, workers):
    processes, overrides, config, folder = uncut
    overrides = [*overrides, f"run.name=cut-{workers}", f"run.num_workers={workers}"]
    last = str(processes - 1)  # the signal reaches one rank only
    assert "starting from random weights" in train(4, config, overrides, processes, STOPPED_RANK=last)
    assert "after step 4" in train(5, config, overrides, processes, STOPPED_RANK="0")
    assert "after step 5" in train(0, config, overrides, processes)
    assert_same(final(folder / f"cut-{workers}"), final(folder / "uncut"))
    assert_each_step_is_logged_once(folder / f"cut-{workers}", folder / "uncut")


def metrics_of(folder) -> list[dict]:
    """Returns all lines of metrics.jsonl, without what depends on a clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in CLOCK_KEYS} for line in lines]


def assert_each_step_is_logged_once(cut, uncut) -> None:
    """The record of a cut run is that of the uncut one, and TensorBoard has each step once, too."""
    assert metrics_of(cut) == metrics_of(uncut)
    assert [line["step"] for line in metrics_of(cut) if line["kind"] == "train"] == list(range(1, STEPS + 1))
    board = EventAccumulator(str(cut / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("loss/train")] == list(range(1, STEPS + 1))


def test_a_finished_run_says_so_and_exits_0(uncut):
    processes, overrides, config, folder = uncut
    before = final(folder / "uncut")
    (folder / "uncut" / "environment.json").write_text('{"commit": "of the day its figures were measured"}')
    assert f"finished: {STEPS} of {STEPS} steps" in train(0, config, [*overrides, "run.name=uncut"], processes)
    assert_same(final(folder / "uncut"), before)
    assert "of the day its figures" in (folder / "uncut" / "environment.json").read_text()


def test_a_run_cut_in_its_last_evaluation_evaluates_and_does_not_train(uncut):
    processes, overrides, config, folder = uncut
    if processes == 2:
        return  # the record decides, and only rank 0 has one
    lines = (folder / "uncut" / "metrics.jsonl").read_text().splitlines()
    kept = [line for line in lines if not ('"evaluation"' in line and f'"step": {STEPS},' in line)]
    assert len(kept) == len(lines) - 1
    (folder / "uncut" / "metrics.jsonl").write_text("\n".join(kept) + "\n")
    output = train(0, config, [*overrides, "run.name=uncut"])
    assert "it is repeated first" in output and f"evaluation at step {STEPS}" in output
    assert f"step {STEPS}/{STEPS}" not in output, "it trained"
    assert (folder / "uncut" / "metrics.jsonl").read_text().splitlines() == lines


def test_a_real_signal_at_a_random_moment_loses_nothing(uncut):
    processes, overrides, config, folder = uncut
    overrides = [*overrides, f"run.name=signal-{processes}"]
    running = start(["-m", "detector", "train", str(config), *overrides], processes)
    while not (folder / f"signal-{processes}" / "log.txt").exists() and running[0].poll() is None:
        time.sleep(0.05)  # from here on all ranks only take note of signals
    time.sleep(time.time() % 3)
    for process in running:
        process.send_signal(signal.SIGUSR1)
    statuses, output = finish(running)
    assert statuses in ([75] * processes, [0] * processes), output
    train(0, config, overrides, processes)
    assert_same(final(folder / f"signal-{processes}"), final(folder / "uncut"))


def test_killed_at_a_random_moment_it_loses_only_what_was_not_saved(uncut):
    """SIGKILL leaves no time to save: the last checkpoint counts, and the record is cut back to it."""
    processes, overrides, config, folder = uncut
    if processes == 2:
        return  # rank 0 alone writes
    overrides = [*overrides, "run.name=killed", "run.save_every_steps=1"]
    for _ in range(2):
        process, = start(["-m", "detector", "train", str(config), *overrides])
        while not (folder / "killed" / "checkpoints").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(time.time() % 1)
        process.kill()
        finish([process])
    train(0, config, overrides)
    assert_same(final(folder / "killed"), final(folder / "uncut"))
    assert_each_step_is_logged_once(folder / "killed", folder / "uncut")


def test_on_another_number_of_processes_a_step_is_the_same_but_for_rounding(uncut):
    """1 -> 2 -> 1 processes, with three micro-batches a step, which two ranks add up in another order. (Two are added up
    alike, and end with the same bits.) Each change is looked at over one step from the same weights: after more of them
    a proposal or two may be another, and with them the weights, by as much as the CPU's rounding happens to make of it.
    """
    processes, overrides, config, folder = uncut
    if processes == 2:
        return  # it starts on one
    overrides = [*overrides, "batch.size=6", "data.val=[]"]

    def at(name: str, step: int) -> dict:
        return torch.load(folder / name / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)

    def one_step(step: int, before: int, after: int) -> str:
        """The run `elastic` takes a step on other processes; its copy takes it on as many as before."""
        shutil.copytree(folder / "elastic", folder / f"stays-{step}")
        train(step, config, [*overrides, f"run.name=stays-{step}"], before)
        output = train(step, config, [*overrides, "run.name=elastic"], after)
        ours, theirs, start = at("elastic", step), at(f"stays-{step}", step), at("elastic", step - 1)
        for name, moments in theirs["moments"].items():
            gradient = moments["momentum_buffer"]
            apart = float((ours["moments"][name]["momentum_buffer"] - gradient).abs().max())
            assert apart <= 1e-5 * float(gradient.abs().max()), name
            moved = float((theirs["model"][name] - start["model"][name]).abs().max())
            apart = float((ours["model"][name] - theirs["model"][name]).abs().max())
            assert apart <= 1e-5 * moved + 1e-7, name  # 1e-7: float32 around 1
        own, other = metrics_of(folder / "elastic")[-1], metrics_of(folder / f"stays-{step}")[-1]
        assert (own["step"], own["lr"]) == (other["step"], other["lr"]) == (step, own["lr"])
        assert own["loss"] == pytest.approx(other["loss"], abs=1e-6)  # other images would show
        return output
    train(3, config, [*overrides, "run.name=elastic"])
    output = one_step(4, 1, 2)
    assert "on 2 processes now, 1 before: the same images and the same lr at every step" in output
    assert "the gradients of a step are summed in another order" in output
    assert "running statistics" in output  # of batch norms: those of the last steps differ
    assert "on 1 process now, 2 before" in one_step(5, 2, 1)
    train(0, config, [*overrides, "run.name=elastic"])
    train(0, config, [*overrides, "run.name=stays-4"])
    plans = [[(line["step"], line["lr"]) for line in metrics_of(folder / name)] for name in ("elastic", "stays-4")]
    assert plans[0] == plans[1] and len(plans[0]) == STEPS


@pytest.mark.parametrize("change, named", [
    ("model.roi_pooling=pool", "model.roi_pooling"), ("batch.size=2", "batch.size"), ("data.classes=[circle]", "classes")])
def test_going_on_with_another_model_or_batch_is_refused_by_name(uncut, change, named):
    processes, overrides, config, _ = uncut
    if processes == 2:
        return  # decided before the processes meet
    from processes import run
    statuses, output = run(["-m", "detector", "train", str(config), *overrides, "run.name=uncut", change])
    assert statuses == [2] and named in output and "run.name" in output and "Traceback" not in output
