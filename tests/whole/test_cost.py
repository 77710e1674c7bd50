"""What a run cost is told at its end and in its files, over all its starts; steps that are not logged exchange nothing for it."""

import json
from pathlib import Path

import pytest
from processes import run, train
from slurm_cluster import read_metrics
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from detector.run.usage import read_cost

pytestmark = pytest.mark.whole
COUNTED = str(Path(__file__).parent / "count_collectives.py")
SHARES = {"steps", "waiting", "evaluation", "saving", "restarts", "start_up"}


def cost_lines(folder) -> list[str]:
    return [line.split(" cost: ")[1] for line in (folder / "log.txt").read_text().splitlines() if " cost: " in line]


def test_a_run_that_was_stopped_and_lost_a_checkpoint_tells_what_it_cost_in_all(tiny, config_file, tmp_path):
    """The checkpoint of step 5 is lost: step 3 was saved before it, so that steps 4 and 5 are trained twice."""
    folder, overrides = tmp_path / "runs" / "tiny", [*tiny, "schedule.steps=7", "run.log_every_steps=2"]
    train(5, config_file, overrides, 2)
    before, stopped = read_cost(folder), json.loads((folder / "results.json").read_text())["cost"]
    assert stopped == before.as_json() and before.images == 5 * 4 and before.restarts == 0 and before.shares["restarts"] == 0
    (folder / "checkpoints" / "step-00000005.pt").unlink()
    statuses, output = run([COUNTED, "train", str(config_file), *overrides], 2, COLLECTIVES=str(tmp_path))
    assert statuses == [0, 0], output

    cost, results = read_cost(folder), json.loads((folder / "results.json").read_text())["cost"]
    assert results == cost.as_json() and (cost.images, cost.restarts, cost.devices) == (7 * 4, 1, before.devices)
    assert set(cost.shares) == SHARES and sum(cost.shares.values()) == pytest.approx(1) and min(cost.shares.values()) >= 0
    assert cost.shares["steps"] > 0 and cost.shares["evaluation"] > 0 and cost.shares["saving"] > 0
    assert cost.hours > before.hours and cost.cpu_hours > 0 and "gpu_hours" not in results
    assert cost_lines(folder) == [before.describe(), cost.describe()] and " lost to 1 restart, " in cost.describe()
    assert output.index("cost: ") < output.index("finished: 7 of 7 steps")  # `jobs` shows the last line
    assert_values_of_logged_steps(folder, cost)

    # Of the steps 4 to 7, the 4th, the 6th and the last are logged. Between two calls of the step: the average of batch norm
    # statistics, and the vote of the next fetch.
    for rank in range(2):
        counts = json.loads((tmp_path / f"rank{rank}").read_text())
        assert len(counts) == 4 and counts[1] == ["all_reduce", "all_reduce"]
        assert counts[0].count("all_gather") > 0

    train(0, config_file, overrides)
    assert read_cost(folder) == cost and len(cost_lines(folder)) == 2, "a start that only finds that all is done costs nothing"


def assert_values_of_logged_steps(folder, cost) -> None:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if line["kind"] == "train"]
    assert [line["step"] for line in logged] == [1, 2, 4, 6, 7]  # the first one, so that one sees a loss soon
    for line in logged:
        assert 0 <= line["data_wait"] <= 1 and line["cpu_share"] >= 0 and line["images_per_s"] > 0
        assert line["rank_spread"] >= 0 and line["slowest_rank"] in (0, 1)
        assert not [name for name in line if name.startswith("gpu")], "there is no GPU"
    timed = {"images_per_s", "data_wait", "memory_gib", "cpu_share", "rank_spread", "slowest_rank"}
    assert not timed & {name for line in read_metrics(folder) for name in line}, "compared between runs that take other times"
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    tags = board.Tags()["scalars"]
    assert {f"total cost/{name}" for name in ("cpu_hours", "images_per_s", *(f"share_{share}" for share in SHARES))} <= set(tags)
    assert {"speed and memory/cpu_share", "speed and memory/rank_spread"} <= set(tags) and "total cost/kwh" not in tags
    assert board.Scalars("total cost/cpu_hours")[-1].value == pytest.approx(cost.cpu_hours, rel=1e-5)
