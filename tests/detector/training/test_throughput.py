"""The meter of a run: what a logged step tells, by one exchange between the ranks."""

import json
import math
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector.data.synced_batches import Fetched
from detector.distributed import collectives
from detector.loggers.run_log import RunLog
from detector.run.environment import RankInfo
from detector.run.usage import UsageRecord, read_cost, read_starts
from detector.training import throughput
from detector.training.sensors import GpuReading
from detector.training.throughput import ForwardTimer, RunMeter, first_on_device, gpu_values, report_cost

CPU = torch.device("cpu")


def fetched(wait_s: float) -> Fetched:
    return Fetched([], wait_s, False, False)


def make_meter(folder, ranks: int = 1) -> RunMeter:
    infos = [RankInfo(rank, f"n{rank}", "cpu", (0, 1)) for rank in range(ranks)]
    return RunMeter(UsageRecord(folder, is_main=True), infos, CPU, step=10, global_batch=4)


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_speed_and_waiting_are_those_of_the_steps_alone(tmp_path, clock):
    meter = make_meter(tmp_path)
    clock[0] += 5
    meter.add(fetched(3.0))  # before the first step: start-up
    for phase in ("evaluation", "saving", "evaluation"):
        clock[0] += 1
        with meter.during(phase):
            clock[0] += 7
    meter.add(fetched(1.0))
    clock[0] += 2
    values, messages = meter.measure(step=12)
    assert (values["images_per_s"], values["data_wait"], messages) == (2 * 4 / 5, 1 / 5, [])
    assert 0 <= values["cpu_share"] and set(values) == {"images_per_s", "data_wait", "cpu_share", "memory_gib"}  # no GPU, one rank
    clock[0] += 4
    meter.add(fetched(2.0))
    values, _ = meter.measure(step=13)
    assert (values["images_per_s"], values["data_wait"]) == (1.0, 0.5)
    meter.write(13)
    start, = read_starts(tmp_path)
    assert start.seconds == {"start_up": 5.0, "steps": 9.0, "evaluation": 14.0, "saving": 7.0} and start.waiting_s == 3.0
    assert (start.first_step, start.step, start.energy_j, start.ended) == (10, 13, None, False)


def test_a_start_that_did_nothing_leaves_no_record(tmp_path):
    assert make_meter(tmp_path).finish(10) is None and read_cost(tmp_path) is None


def test_the_end_of_a_start_is_in_the_record(tmp_path):
    meter = make_meter(tmp_path)
    meter.add(fetched(0.0))
    meter.write(10)
    cost = meter.finish(11)
    assert cost == read_cost(tmp_path) and read_starts(tmp_path)[0].ended and cost.images == 4


def test_the_cost_is_a_message_and_in_results_json_where_there_was_an_evaluation(tmp_path, capsys):
    run_log = RunLog(tmp_path, 0, 20, is_main=True)
    report_cost(make_meter(tmp_path), 10, run_log)
    assert capsys.readouterr().out == "", "a start that did nothing costs nothing"
    for results in (None, {"metrics": {"AP": 0.5}, "cost": {"hours": 0.0}}):
        if results:
            (tmp_path / "results.json").write_text(json.dumps(results))
        meter = make_meter(tmp_path)
        meter.write(10)
        report_cost(meter, 11, run_log)
        assert capsys.readouterr().out == f"cost: {read_cost(tmp_path).describe()}\n"
        assert (tmp_path / "results.json").exists() is bool(results)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written == {"metrics": {"AP": 0.5}, "cost": read_cost(tmp_path).as_json()}
    run_log.close()


def test_ranks_exchange_their_readings_once_and_the_record_adds_them(tmp_path, clock, monkeypatch):
    """Of three ranks on three hosts, the second loads slowly."""
    exchanges = []

    def exchange(row):
        exchanges.append(row)
        other = [0.5 + 0.1, 5.0, 6.0, 30.0, *row[4:]]
        return np.array([row, other, [0.1, 0.0, 2.0, 10.0, *row[4:]]])
    monkeypatch.setattr(collectives, "all_gather_row", exchange)
    meter = make_meter(tmp_path, ranks=3)
    meter.energy = SimpleNamespace(read=lambda gpu: 20.0)
    meter.cpu = SimpleNamespace(take_s=lambda: 4.0)
    meter.add(fetched(0.0))
    clock[0] += 10
    meter.forward.elapsed_s = 1.0
    values, _ = meter.measure(20)
    assert values["data_wait"] == 0.5 and values["cpu_share"] == pytest.approx((4 + 6 + 2) / (10 * 6))
    assert values["slowest_rank"] == 1 and values["rank_spread"] == pytest.approx(5.0)
    assert exchanges == [[0.1, 0.0, 4.0, 20.0, *[pytest.approx(math.nan, nan_ok=True)] * 4]]
    meter.write(20)
    start, = read_starts(tmp_path)
    assert (start.energy_j, start.waiting_s, start.cores) == (60.0, 5.0, 6)


def test_gpu_values_are_mean_utilization_largest_memory_and_power_of_all():
    nan = math.nan
    readings = {"utilization": np.array([0.5, 0.9, nan]), "memory_gib": np.array([10.0, 30.0, nan]),
                "power_w": np.array([300.0, 400.0, nan])}
    assert gpu_values(readings) == {"gpu_utilization": 0.7, "gpu_memory_gib": 30.0, "gpu_power_w": 700.0}
    assert gpu_values(dict.fromkeys(("utilization", "memory_gib", "power_w"), np.full(2, nan))) == {}


def measured_on_gpu(sensor, folder, clock, monkeypatch) -> tuple[RunMeter, dict[str, float]]:
    """Returns a meter of one rank on a GPU with this sensor, and the values of its first step."""
    monkeypatch.setattr(throughput, "open_gpu_sensor", lambda device: sensor)
    monkeypatch.setattr(throughput, "peak_memory_gib", lambda device: 3.0)
    meter = RunMeter(UsageRecord(folder, True), [RankInfo(0, "n0", "GPU", (0,), "uuid")], torch.device("cuda", 0), 0, 4)
    meter.forward = ForwardTimer(CPU)
    meter.add(fetched(0.0))
    clock[0] += 1
    return meter, meter.measure(1)[0]


def test_a_gpu_without_a_sensor_gives_no_values_and_no_energy(tmp_path, clock, monkeypatch):
    meter, values = measured_on_gpu(None, tmp_path, clock, monkeypatch)
    assert not [name for name in values if name.startswith("gpu")] and values["memory_gib"] == 3.0
    assert meter.write(1).as_json().keys() >= {"gpu_hours"}
    assert meter.write(1).kwh is None


def test_a_gpu_with_a_sensor_gives_values_and_energy(tmp_path, clock, monkeypatch):
    energies = iter([1000.0, 8_200_000.0])
    sensor = SimpleNamespace(read=lambda: GpuReading(0.9, 20.0, 400.0, next(energies)))
    meter, values = measured_on_gpu(sensor, tmp_path, clock, monkeypatch)
    assert [values[name] for name in ("gpu_utilization", "gpu_memory_gib", "gpu_power_w")] == [0.9, 20.0, 400.0]
    assert meter.write(1).kwh == pytest.approx(8_199_000 / 3.6e6)


def test_the_first_rank_on_a_gpu_and_the_first_on_a_host_tell_its_energy():
    gpus = [RankInfo(rank, f"n{rank // 2}", "GPU", (0,), gpu) for rank, gpu in enumerate(["a", "b", "a", "a"])]
    assert [first_on_device(gpus, rank) for rank in range(4)] == [True, True, True, False]
    cpus = [RankInfo(rank, f"n{rank // 2}", "cpu", (0,)) for rank in range(4)]
    assert [first_on_device(cpus, rank) for rank in range(4)] == [True, False, True, False]


def test_forward_passes_are_timed_on_a_cpu(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    timer = ForwardTimer(CPU)
    for seconds in (1.0, 2.0):
        with timer:
            now[0] += seconds
        now[0] += 10  # the backward pass
    assert timer.take_s() == 3.0 and timer.take_s() == 0.0


def test_forward_passes_are_timed_on_a_gpu_by_events_that_are_read_at_the_end_only(monkeypatch):
    recorded = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            recorded.append(self)

        def elapsed_time(self, end):
            return 250.0 * (recorded.index(end) - recorded.index(self))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    timer = ForwardTimer(torch.device("cuda", 0))
    for _ in range(3):
        with timer:
            pass
    assert timer.take_s() == 0.75 and timer.take_s() == 0.0 and len(recorded) == 6
