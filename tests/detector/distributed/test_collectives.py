"""Collectives: they return at once with one process; the tests below also start two and four."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector.distributed import collectives, data_parallel, process_group, rank_info
from detector.errors import BadInput, MachineError
from launcher.rank_env import free_port, local_environment

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def one_process(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_process_that_nobody_launched_is_the_only_one():
    assert (rank_info.rank(), rank_info.local_rank(), rank_info.world_size(), rank_info.is_main()) == (0, 0, 1, True)


def test_one_process_needs_no_group():
    with process_group.process_group("cpu") as device:
        assert device == torch.device("cpu")
        assert not torch.distributed.is_initialized()


def test_one_process_agrees_with_itself():
    assert collectives.any_rank(True, False) == (True, False) and collectives.any_rank() == ()
    values = torch.tensor([1.0, 2.0])
    assert collectives.all_reduce_mean(values) is values and values.tolist() == [1, 2]
    assert collectives.broadcast_text("text") == "text" and collectives.broadcast_text("") == ""
    assert collectives.all_gather_texts(["a", "b"]) == ["a", "b"] and collectives.all_gather_texts([]) == []
    assert collectives.all_gather_texts(["\udcff"]) == ["\udcff"], "the name of a file that is no UTF-8"


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), np.zeros((0, 4), np.float32), np.zeros(0, np.int64)])
def test_one_process_gathers_its_own_array(array):
    (same,) = collectives.all_gather_arrays(array)
    assert np.array_equal(same, array) and same.dtype == array.dtype and same.shape == array.shape


def test_one_process_does_everything_once_and_itself():
    calls = []
    assert collectives.run_on_all_ranks(lambda: 3) == 3
    assert collectives.run_on_local_main_first(lambda: calls.append("first") or 4) == 4
    assert collectives.run_on_main(lambda: calls.append("main")) is None
    assert calls == ["first", "main"]


@pytest.mark.parametrize("error", [BadInput("no such file"), ValueError("wrong"), ValueError()])
@pytest.mark.parametrize("name", ["run_on_all_ranks", "run_on_local_main_first", "run_on_main"])
def test_one_process_raises_its_own_error(name, error):
    def fail() -> None:
        raise error
    with pytest.raises(type(error)) as caught:
        getattr(collectives, name)(fail)
    assert caught.value is error
    collectives.raise_on_all_ranks(None)


@pytest.mark.parametrize("mine, others, expected", [
    (None, [None], None), (None, [BadInput("no file")], BadInput), (None, [ValueError("wrong")], RuntimeError),
    (BadInput("mine"), [None], BadInput), (ValueError("mine"), [BadInput("theirs")], ValueError),
    (None, [MachineError("killed")], MachineError), (MachineError("mine"), [None], MachineError),
    (ValueError(), [None], ValueError), (None, [ValueError()], RuntimeError)])  # also an error without a message
def test_an_error_on_any_rank_is_raised_on_every_rank(mine, others, expected, monkeypatch):
    """The other ranks are simulated: each sends what this process would send in its place."""
    def sent(error) -> np.ndarray:
        arrays = []
        with monkeypatch.context() as patched:
            patched.setattr(collectives, "world_size", lambda: 2)
            patched.setattr(collectives, "all_gather_arrays", lambda values, group=None: arrays.append(values) or [])
            collectives.raise_on_all_ranks(error)
        return arrays[0]
    messages = [sent(error) for error in [mine, *others]]
    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    monkeypatch.setattr(collectives, "all_gather_arrays", lambda values, group=None: messages)
    if expected is None:
        collectives.raise_on_all_ranks(mine)
        return
    with pytest.raises(expected) as caught:
        collectives.raise_on_all_ranks(mine)
    assert caught.value is mine if mine else "rank 1" in str(caught.value)


def test_one_process_keeps_its_model_and_its_statistics():
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    assert data_parallel.wrap_ddp(model, torch.device("cpu")) is model
    before = model[1].running_mean.clone()
    data_parallel.average_batchnorm_statistics(model)
    assert torch.equal(model[1].running_mean, before)
    for is_last in (False, True):
        with data_parallel.sync_gradients(model, is_last):
            model(torch.ones(2, 2, 1, 1)).sum().backward()
    assert model[0].weight.grad is not None


def test_on_gpus_no_unused_weights_are_searched(monkeypatch):
    """The search ends in a copy to the host, which waits for the GPU in every step."""
    passed = {}

    class Parallel:
        def __init__(self, module: nn.Module, forward_sync_buffers: bool = True, **options):
            passed.update(module=module, **options)
    monkeypatch.setattr(data_parallel, "world_size", lambda: 2)
    monkeypatch.setattr(nn.parallel, "DistributedDataParallel", Parallel)
    model = nn.Linear(1, 1)
    data_parallel.wrap_ddp(model, torch.device("cuda", 1))
    assert passed == {"module": model, "device_ids": [1], "gradient_as_bucket_view": True, "static_graph": True}
    data_parallel.wrap_ddp(model, torch.device("cuda", 1), forward_passes=2)
    assert passed["static_graph"] is False, "gradients are averaged in the last of several micro-batches only"
    data_parallel.wrap_ddp(model, torch.device("cpu"))
    assert passed["module"].module is model and passed["find_unused_parameters"]


@pytest.mark.parametrize("device, gpus, local_rank, expected", [
    ("cpu", 4, 2, "cpu"), ("auto", 0, 0, "cpu"), ("auto", 4, 2, "cuda:2"), ("cuda", 1, 0, "cuda:0"),
    ("cuda", 1, 3, "cuda:0")])  # a cluster may show each task its own GPU only, as number 0
def test_each_process_takes_its_own_device(device, gpus, local_rank, expected, monkeypatch):
    taken = []
    monkeypatch.setattr(process_group, "local_rank", lambda: local_rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    assert process_group.choose_device(device) == torch.device(expected)
    assert taken == ([torch.device(expected).index] if "cuda" in expected else [])


@pytest.mark.parametrize("device, gpus, local_rank, message", [
    ("cuda", 0, 0, "no GPU that PyTorch can use; set run.device=cpu"),
    ("cuda:1", 2, 0, "device cuda:1: one of auto, cpu and cuda. Select a GPU with CUDA_VISIBLE_DEVICES"), ("gpu", 0, 0, "one of auto"),
    ("auto", 2, 2, "more processes than GPUs: 3 processes on .* which has 2. Start 2 processes, or set run.device=cpu")])
def test_a_gpu_that_is_not_there_is_bad_input(device, gpus, local_rank, message, monkeypatch):
    monkeypatch.setattr(process_group, "local_rank", lambda: local_rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(BadInput, match=message):
        process_group.choose_device(device)


def test_ranks_without_a_gpu_among_ranks_with_one_are_bad_input_on_all(monkeypatch):
    texts = ["n01 cuda", "n01 cuda", "n02 cpu", "n02 cpu"]
    monkeypatch.setattr(collectives, "all_gather_texts", lambda own: texts)
    for device in ("cuda", "cpu"):
        with pytest.raises(BadInput, match="no GPU that PyTorch can use on n02, while"):
            process_group._refuse_other_devices(torch.device(device))
    texts[:] = ["n01 cpu", "n02 cpu"]
    process_group._refuse_other_devices(torch.device("cpu"))


def test_a_port_in_use_is_bad_input(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        environment = local_environment(0, 2, other.getsockname()[1])
        for name in VARIABLES:
            monkeypatch.setenv(name, environment[name])
        with pytest.raises(BadInput, match=f"port in use: 127.0.0.1:{other.getsockname()[1]}. Set MASTER_PORT"):
            with process_group.process_group("cpu", timeout_minutes=0.1):
                pytest.fail("two processes on one port")


TWO = '''
import numpy as np, torch
from torch import nn
from detector.distributed import collectives, data_parallel, process_group, rank_info
from detector.errors import BadInput, MachineError

def raised(function):
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def fail(error):
    raise error

with process_group.process_group("cpu", 1.0):
    rank = rank_info.rank()
    assert (rank_info.world_size(), rank_info.is_main()) == (2, rank == 0)
    assert collectives.any_rank(rank == 1, False, True) == (True, False, True)

    # Arrays of different length, one of them empty; every rank gets all of them, in the order of the ranks.
    for arrays in ([np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32)], [np.arange(3), np.arange(1)],
                   [np.zeros((0, 6)), np.zeros((0, 6))]):
        for got, sent in zip(collectives.all_gather_arrays(arrays[rank]), arrays, strict=True):
            assert np.array_equal(got, sent) and got.dtype == sent.dtype and got.shape == sent.shape
    assert collectives.all_gather_texts([["a", "\\u00e4"], []][rank]) == ["a", "\\u00e4"]
    assert collectives.broadcast_text(["zero", ""][rank]) == "zero" and collectives.broadcast_text(["", "one"][rank]) == ""

    for mask in ([True, False, True], []):
        got = collectives.array_of_main(lambda: np.array(mask, bool) if rank == 0 else fail(KeyError("on rank 1")))
        assert got.tolist() == mask and got.dtype == bool
    for answer in (True, False):
        assert collectives.answer_of_main(lambda: answer if rank == 0 else fail(KeyError("on rank 1"))) is answer
    assert collectives.all_gather_row([0.1, rank]).tolist() == [[0.1, 0.0], [0.1, 1.0]]

    assert collectives.all_reduce_mean(torch.tensor([1.0, 4.0 * rank])).tolist() == [1, 2]
    norm = nn.BatchNorm2d(1)
    norm.running_mean.fill_(rank)
    data_parallel.average_batchnorm_statistics(norm)
    assert norm.running_mean.item() == 0.5 and norm.running_var.item() == 1

    # A failure on one rank is raised on both: its own there, its message elsewhere.
    for function in (collectives.run_on_all_ranks, collectives.run_on_main, collectives.run_on_local_main_first,
                     collectives.array_of_main):
        error = raised(lambda: function(lambda: fail(BadInput("no file")) if rank == 0 else None))
        assert error == ["BadInput: no file", "BadInput: rank 0: no file"][rank], error
    error = raised(lambda: collectives.run_on_all_ranks(lambda: fail(KeyError("x")) if rank == 1 else None))
    assert error == ["RuntimeError: rank 1: KeyError: 'x'", "KeyError: 'x'"][rank], error
    assert raised(lambda: collectives.run_on_all_ranks(lambda: 3)) is None
    ran = []
    collectives.run_on_main(lambda: ran.append(rank))
    assert ran == ([0] if rank == 0 else [])

    # Gradients stay on their rank until the last micro-batch of a step, and are means over the ranks then.
    torch.manual_seed(0)
    layer = nn.Linear(1, 1, bias=False)
    module = data_parallel.wrap_ddp(layer, torch.device("cpu"))
    for micro_batch in range(2):
        with data_parallel.sync_gradients(module, is_last=micro_batch == 1):
            module(torch.full((1, 1), 1.0 + rank)).sum().backward()
        assert layer.weight.grad.item() == (1 + rank if micro_batch == 0 else (2 + 4) / 2)
assert not torch.distributed.is_initialized()
print("done")
'''


@pytest.mark.slow
def test_two_processes_decide_together(tmp_path):
    script, repo, port = tmp_path / "two.py", Path(__file__).resolve().parents[3], free_port()
    script.write_text(TWO)
    path = os.pathsep.join([str(repo), *filter(None, [os.environ.get("PYTHONPATH")])])
    running = [subprocess.Popen([sys.executable, str(script)], text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, env={**local_environment(rank, 2, port), "PYTHONPATH": path})
               for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(outputs)
    assert all("done" in text for text in outputs)


def test_nccls_last_collectives_are_left_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    variables = process_group.flight_recorder_environment(Path("runs") / "one" / "heartbeats")
    prefixes = {value for name, value in variables.items() if name.endswith("TEMP_FILE")}
    assert prefixes == {str(tmp_path / "runs" / "one" / "heartbeats" / "nccl-trace-")}  # and the rank after it
    assert variables["TORCH_NCCL_DUMP_ON_TIMEOUT"] == "1" and int(variables["TORCH_FR_BUFFER_SIZE"]) > 0


RESUME = """
import copy, sys, torch
from torch import nn
from detector.distributed import collectives, data_parallel, process_group, rank_info

def build():
    torch.manual_seed(0)
    return nn.Sequential(*[layer for _ in range(6) for layer in (nn.Linear(37, 37), nn.Tanh())])

def train(module, wrapped, steps):
    for step in steps:
        torch.manual_seed(100 * step + rank_info.rank())
        module.zero_grad()
        wrapped(torch.randn(5, 37)).pow(2).sum().backward()
        with torch.no_grad():
            for weight in module.parameters():
                weight -= 0.01 * weight.grad

with process_group.process_group("cpu") as device:
    uncut, cut = build(), build()
    wrapped = data_parallel.wrap_ddp(uncut, device)
    train(uncut, wrapped, range(3))
    cut.load_state_dict(copy.deepcopy(uncut.state_dict()))
    train(uncut, wrapped, range(3, 5))
    train(cut, data_parallel.wrap_ddp(cut, device), range(3, 5))
    same = all(torch.equal(a, b) for a, b in zip(uncut.parameters(), cut.parameters()))
    del wrapped
sys.exit(not same)
"""


@pytest.mark.slow
def test_the_sums_of_four_ranks_are_the_same_after_a_new_start():
    """With two ranks the order of a sum does not matter."""
    statuses, outputs = run_ranks(RESUME, 4)
    assert statuses == [0] * 4 and outputs == [""] * 4, outputs


def run_ranks(code: str, world_size: int) -> tuple[list[int], list[str]]:
    """Runs the code in one process for each rank; returns exit statuses and outputs."""
    port = free_port()
    running = [subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                env={**local_environment(rank, world_size, port), "OMP_NUM_THREADS": "1"})
               for rank in range(world_size)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    return [process.returncode for process in running], outputs


BF16_ALLREDUCE = """
import sys, torch
from torch import nn
from detector.distributed import collectives, data_parallel, process_group, rank_info

with process_group.process_group("cpu") as device:
    gradients = []
    for bf16_allreduce in (False, True):
        torch.manual_seed(0)
        layer = nn.Linear(50, 50)
        wrapped = data_parallel.wrap_ddp(layer, device, bf16_allreduce=bf16_allreduce)
        torch.manual_seed(rank_info.rank())
        wrapped(torch.randn(5, 50)).pow(2).sum().backward()
        gradients.append(layer.weight.grad.clone())
        del wrapped
    fp32, bf16 = gradients
    print(torch.equal(bf16, bf16.bfloat16().float()), torch.equal(fp32, fp32.bfloat16().float()),
          float((bf16 - fp32).norm() / fp32.norm()) < 2 ** -7, bf16.double().sum().item())
"""


@pytest.mark.slow
def test_gradients_sent_as_bf16_are_bf16_and_the_same_on_all_ranks():
    _, outputs = run_ranks(BF16_ALLREDUCE, 2)
    assert outputs[0].startswith("True False True ") and outputs[0] == outputs[1], outputs
