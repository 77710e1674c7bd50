"""usage.json: what each start of a run used, and what the run cost in all."""

import json
import time
from dataclasses import replace

import pytest

from detector.run import usage
from detector.run.environment import RankInfo
from detector.run.usage import PhaseClock, Start, UsageRecord, cost_of, format_amount, read_cost

HOUR = 3600.0
GPU_START = Start(at=0.0, until=HOUR, ranks=8, gpus=8, device="NVIDIA H100", cores=64, global_batch=16, first_step=0, step=900,
                  seconds={"start_up": 60.0, "steps": 3240.0, "evaluation": 240.0, "saving": 60.0}, waiting_s=90.0, energy_j=7.2e6)
CPU_START = replace(GPU_START, ranks=2, gpus=0, device="cpu", cores=2, energy_j=None)
RANKS = [RankInfo(0, "n1", "cpu", (0, 1)), RankInfo(1, "n1", "cpu", (0, 1)), RankInfo(2, "n2", "cpu", (0, 1))]


def test_gpu_hours_energy_and_shares_of_one_start():
    cost = cost_of([GPU_START])
    assert (cost.hours, cost.gpu_hours, cost.cpu_hours, cost.kwh) == (1.0, 8.0, None, 2.0)
    assert (cost.images, cost.images_per_s, cost.restarts) == (900 * 16, 4.0, 0)
    assert cost.shares == pytest.approx({"steps": 3150 / HOUR, "waiting": 90 / HOUR, "evaluation": 240 / HOUR,
                                         "saving": 60 / HOUR, "restarts": 0.0, "start_up": 60 / HOUR})
    assert cost.short() == "8 GPU-h, 2 kWh"
    assert cost.describe() == ("8 GPU-hours (8 x NVIDIA H100 for 1 h), 2 kWh, 4 images/s over all; of the time 88% steps, 2% waiting "
                               "for data, 7% evaluation, 2% saving, 2% start-up")


def test_without_a_gpu_core_hours_count_and_energy_that_is_not_known_is_left_out():
    cost = cost_of([CPU_START])
    assert (cost.gpu_hours, cost.cpu_hours, cost.kwh) == (None, 2.0, None)
    assert cost.short() == "2 CPU-h" and cost.describe().startswith("2 CPU-hours (2 CPU cores for 1 h), 4 images/s over all; ")
    assert not {"kwh", "gpu_hours"} & {*cost.as_json(), *cost.numbers()}


def test_energy_is_not_known_if_one_start_does_not_know_its_own():
    assert cost_of([GPU_START, replace(GPU_START, energy_j=None)]).kwh is None
    assert cost_of([GPU_START, GPU_START]).kwh == 4.0


def test_a_stop_that_saved_its_last_step_loses_the_next_start_up_only():
    cost = cost_of([replace(GPU_START, ended=True), replace(GPU_START, first_step=900, step=1800)])
    assert cost.shares["restarts"] * 2 * HOUR == pytest.approx(60) and cost.images == 1800 * 16 and cost.restarts == 1
    assert sum(cost.shares.values()) == pytest.approx(1) and "1% lost to 1 restart, " in cost.describe()


def test_steps_that_are_trained_again_count_as_lost_and_their_images_once():
    killed, again = GPU_START, replace(GPU_START, first_step=600, step=900)
    cost = cost_of([killed, again])
    assert cost.shares["restarts"] * 2 * HOUR == pytest.approx(3240 / 3 + 60) and cost.images == 900 * 16
    assert cost.shares["waiting"] * 2 * HOUR == pytest.approx(90 * 2 / 3 + 90)
    assert sum(cost.shares.values()) == pytest.approx(1)


def test_a_later_start_from_an_even_earlier_checkpoint_loses_steps_of_all_before():
    starts = [GPU_START, replace(GPU_START, first_step=600, step=1200), replace(GPU_START, first_step=300, step=1500)]
    cost = cost_of(starts)
    assert cost.images == (300 + 0 + 1200) * 16 and sum(cost.shares.values()) == pytest.approx(1)
    assert cost.shares["restarts"] * 3 * HOUR == pytest.approx(3240 * 2 / 3 + 3240 + 2 * 60)


def test_a_start_that_was_killed_before_its_first_step_is_lost():
    killed = replace(GPU_START, step=0, seconds={"start_up": 30.0, "steps": 10.0}, waiting_s=0.0)
    assert cost_of([killed]).shares["restarts"] == 0
    shares = cost_of([killed, GPU_START]).shares
    assert shares["restarts"] * (HOUR + 40) == pytest.approx(10 + 60) and sum(shares.values()) == pytest.approx(1)


def test_starts_on_other_devices_are_told_apart():
    cost = cost_of([GPU_START, replace(GPU_START, gpus=4, first_step=900, step=1000), replace(CPU_START, first_step=1000, step=1001)])
    assert (cost.gpu_hours, cost.cpu_hours) == (12.0, 2.0)
    assert cost.describe().startswith("12 GPU-hours and 2 CPU-hours (8 x NVIDIA H100 and 4 x NVIDIA H100 and 2 CPU cores for 3 h), ")


@pytest.mark.parametrize("value, text", [(0.0, "0"), (0.0004, "<0.001"), (0.0123456, "0.012"), (3.216, "3.22"), (99.96, "100"),
                                         (412.3, "412"), (12345.6, "12346")])
def test_amounts_have_three_digits(value, text):
    assert format_amount(value) == text


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"starts": [{"at": 1}]}', '{"starts": 3}', '{"starts": []}'])
def test_a_run_without_a_readable_record_has_no_cost(content, tmp_path):
    if content is not None:
        (tmp_path / "usage.json").write_text(content)
    assert read_cost(tmp_path) is None


def test_the_record_of_a_start_is_rewritten_and_those_before_stay(tmp_path):
    for first_step in (0, 10):
        record = UsageRecord(tmp_path, is_main=True, began_at=time.monotonic() - HOUR)
        record.begin(RANKS, first_step, global_batch=4)
        record.clock.enter("steps")
        for step in (first_step + 5, first_step + 10):
            cost = record.write(step=step, ended=step == 10)
    starts = usage.read_starts(tmp_path)
    assert [(start.first_step, start.step, start.ranks, start.gpus, start.cores) for start in starts] == [
        (0, 10, 3, 0, 4), (10, 20, 3, 0, 4)]
    assert [start.ended for start in starts] == [True, False] and starts[0].at == pytest.approx(starts[0].until - HOUR, abs=60)
    assert read_cost(tmp_path) == cost and cost.cpu_hours == pytest.approx(8, rel=0.1)


def test_a_gpu_that_two_ranks_share_counts_once(tmp_path):
    record = UsageRecord(tmp_path, is_main=True)
    record.begin([RankInfo(rank, "n1", "NVIDIA H100", (rank,), gpu) for rank, gpu in enumerate("aab")], 0, 4)
    assert (record.current.gpus, record.current.ranks, record.current.device) == (2, 3, "NVIDIA H100")


def test_other_ranks_write_nothing_and_a_disk_that_is_full_ends_nothing(tmp_path):
    (tmp_path / "a file").write_text("")
    for folder, is_main in ((tmp_path, False), (tmp_path / "a file" / "run", True)):
        record = UsageRecord(folder, is_main)
        record.begin(RANKS, 0, 4)
        assert record.write(step=1).hours > 0 and read_cost(folder) is None


@pytest.mark.parametrize("heartbeat, unseen_s", [
    ({"step": 7, "phase": "step", "at": 130.0}, 30.0), ({"step": 5, "phase": "evaluating", "at": 160.0}, 60.0),
    ({"step": 7, "phase": "step", "at": 130.0, "alive_at": 150.0}, 50.0),
    ({"step": 7, "phase": "step", "at": 90.0}, 0.0),          # older than the entry
    ({"step": 0, "phase": "reading annotations", "at": 9000.0}, 0.0), ({"step": 5, "phase": "start-up", "at": 9000.0}, 0.0),
    ({}, 0.0)])
def test_the_time_between_the_last_entry_and_a_kill_is_found_in_the_heartbeat(heartbeat, unseen_s, tmp_path):
    (tmp_path / "heartbeats").mkdir()
    (tmp_path / "heartbeats" / "rank-00000.json").write_text(json.dumps(heartbeat))
    killed = replace(CPU_START, until=100.0, step=5)
    assert usage.with_unseen_time(killed, tmp_path).unseen_s == unseen_s
    assert usage.with_unseen_time(replace(killed, ended=True), tmp_path).unseen_s == 0.0


def test_a_phase_inside_of_another_is_not_counted_twice(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = PhaseClock("start_up", began_at=95.0)
    clock.enter("steps")
    now[0] += 2
    with clock.during("saving"):
        now[0] += 1
        with pytest.raises(ValueError), clock.during("evaluation"):
            now[0] += 10
            raise ValueError
    now[0] += 3
    assert clock.seconds() == {"start_up": 5.0, "steps": 5.0, "saving": 1.0, "evaluation": 10.0}
