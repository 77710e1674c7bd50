"""Sensors: a GPU by its UUID through a stand-in of NVML, the energy counters of processors, the CPU time of workers."""

import math
import time
from types import SimpleNamespace

import pytest
import torch

from detector.data.workers import worker_context
from detector.training import sensors
from detector.training.sensors import CpuTimer, EnergyMeter, GpuReading, GpuSensor, open_gpu_sensor, read_packages


class NVMLError(Exception):
    pass


def stand_in(uuid: str = "GPU-1234", unsupported: tuple[str, ...] = ()) -> SimpleNamespace:
    """Returns a module like pynvml with one GPU, at half its power."""
    def answer(name, value):
        def function(handle):
            assert handle == "the handle"
            if name in unsupported:
                raise NVMLError
            return value
        return function

    def by_uuid(text):
        if text != uuid:
            raise NVMLError
        return "the handle"
    values = {"UtilizationRates": SimpleNamespace(gpu=93, memory=40), "MemoryInfo": SimpleNamespace(used=10 * 2**30),
              "PowerUsage": 350_000, "TotalEnergyConsumption": 7_200_000}
    return SimpleNamespace(NVMLError=NVMLError, nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=by_uuid,
                           **{f"nvmlDeviceGet{name}": answer(name, value) for name, value in values.items()})


@pytest.mark.parametrize("uuid", ["1234", "GPU-1234"])
def test_a_gpu_is_found_by_its_uuid_and_read(uuid):
    assert GpuSensor(stand_in(), uuid).read() == GpuReading(utilization=0.93, memory_gib=10.0, power_w=350.0, energy_j=7200.0)


def test_what_a_gpu_does_not_tell_is_nan():
    reading = GpuSensor(stand_in(unsupported=("TotalEnergyConsumption", "UtilizationRates")), "1234").read()
    assert math.isnan(reading.energy_j) and math.isnan(reading.utilization) and reading.power_w == 350.0


def test_a_gpu_that_nvml_does_not_know_has_no_sensor():
    with pytest.raises(NVMLError):
        GpuSensor(stand_in(), "4321")


def test_without_a_driver_there_is_no_sensor_and_no_error(monkeypatch):
    assert open_gpu_sensor(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="of no GPU of this machine"))
    assert open_gpu_sensor(torch.device("cuda", 0)) is None  # by the real package


def test_the_functions_of_the_stand_in_exist_in_the_real_package():
    import pynvml
    assert all(hasattr(pynvml, name) for name in vars(stand_in()))


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(sensors, "time", SimpleNamespace(monotonic=lambda: now[0], process_time=time.process_time))
    return now


def test_energy_of_a_gpu_is_the_difference_of_its_counter():
    meter = EnergyMeter(GpuReading(power_w=350.0, energy_j=7200.0))
    assert meter.read(GpuReading(power_w=350.0, energy_j=7500.0)) == 300.0
    assert meter.read(GpuReading(power_w=350.0, energy_j=7600.0)) == 400.0


def test_without_a_counter_the_energy_of_a_gpu_is_power_times_time(clock):
    meter = EnergyMeter(GpuReading(power_w=300.0))
    for now, power_w, energy_j in ((110.0, 300.0, 3000.0), (112.0, 100.0, 3200.0)):
        clock[0] = now
        assert meter.read(GpuReading(power_w=power_w)) == energy_j


def test_the_energy_of_a_gpu_that_tells_nothing_is_not_known(tmp_path):
    package(tmp_path, 0, 5_000_000)  # the energy of the processors does not take its place
    assert math.isnan(EnergyMeter(GpuReading(), tmp_path).read(GpuReading()))


def package(powercap, number: int, energy_uj: int, name: str = "package") -> None:
    folder = powercap / f"intel-rapl:{number}"
    folder.mkdir(exist_ok=True)
    for file, text in (("name", f"{name}-{number}"), ("energy_uj", energy_uj), ("max_energy_range_uj", 10_000_000)):
        (folder / file).write_text(f"{text}\n")


def test_the_energy_of_processors_is_that_of_their_packages_also_when_a_counter_starts_anew(tmp_path):
    package(tmp_path, 0, 1_000_000)
    package(tmp_path, 1, 9_000_000)
    package(tmp_path, 2, 1_000_000, "psys")
    meter = EnergyMeter(None, tmp_path)
    package(tmp_path, 0, 3_000_000)
    package(tmp_path, 1, 500_000)
    package(tmp_path, 2, 9_000_000, "psys")
    assert meter.read(None) == pytest.approx(2.0 + 1.5)
    assert meter.read(None) == pytest.approx(3.5)


def test_energy_that_cannot_be_read_is_not_known(tmp_path):
    assert math.isnan(EnergyMeter(None, tmp_path / "nowhere").read(None))
    package(tmp_path, 0, 1_000_000)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir()  # root could read a file without permissions
    assert read_packages(tmp_path) == {} and math.isnan(EnergyMeter(None, tmp_path).read(None))


def spin(seconds: float, pipe=None) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    if pipe:
        pipe.send(True)
        pipe.recv()


@pytest.mark.slow
def test_cpu_time_is_that_of_this_process_and_its_workers():
    context = worker_context()
    ours, theirs = context.Pipe()
    timer = CpuTimer()
    worker = context.Process(target=spin, args=(0.3, theirs))
    worker.start()
    spin(0.2)
    ours.recv()
    assert 0.45 < timer.take_s() < 5.0
    ours.send(True)
    worker.join()
    assert 0 <= timer.take_s() < 0.45  # the time of a worker that has ended is not subtracted
