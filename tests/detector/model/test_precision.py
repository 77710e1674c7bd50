"""Copies of batches to the device: none on a CPU, and on a GPU beside its computation."""

import pytest
import torch

from detector.model.precision import copy_stream, to_device

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def batch(pin: bool = False) -> tuple[list, list]:
    images = [torch.arange(3 * 8 * (9 + i), dtype=torch.int64).to(torch.uint8).reshape(3, 8, 9 + i) for i in range(2)]
    targets = [{"index": torch.tensor(i), "boxes": torch.rand(i, 4), "labels": torch.ones(i, dtype=torch.int64)}
               for i in range(2)]
    if pin:
        images = [image.pin_memory() for image in images]
        targets = [{name: value.pin_memory() for name, value in target.items()} for target in targets]
    return images, targets


def test_on_a_cpu_nothing_is_copied():
    images, targets = batch()
    targets[1]["frame"] = (0, 0, 8, 9, 8, 10)
    moved, moved_targets = to_device(images, targets, torch.device("cpu"))
    assert all(a is b for a, b in zip(images, moved)) and moved_targets[1]["frame"] is targets[1]["frame"]
    assert all(a[key] is b[key] for a, b in zip(targets, moved_targets) for key in ("boxes", "labels"))
    assert [sorted(target) for target in moved_targets] == [["boxes", "labels"], ["boxes", "frame", "labels"]]
    assert copy_stream(torch.device("cpu")) is None and to_device([], [], torch.device("cpu")) == ([], [])


@GPU
def test_on_a_gpu_a_batch_is_copied_while_the_previous_step_is_computed():
    device = torch.device("cuda", torch.cuda.current_device())
    images, targets = batch(pin=True)
    to_device(images, targets, device)  # not measured: the first copy sets up memory
    torch.cuda.synchronize(device)
    computing = torch.cuda.current_stream(device)
    torch.cuda._sleep(2_000_000_000)    # about a second
    moved, moved_targets = to_device(images, targets, device)
    copy_stream(device).synchronize()
    assert not computing.query(), "the copies waited for the previous step"
    doubled = [image.int() * 2 for image in moved]  # the next step waits for the copies
    torch.cuda.synchronize(device)
    assert all(torch.equal(a.int() * 2, b.cpu()) for a, b in zip(images, doubled))
    assert all(torch.equal(a["boxes"], b["boxes"].cpu()) for a, b in zip(targets, moved_targets))


@GPU
def test_the_memory_of_a_batch_is_not_reused_while_it_is_read():
    device = torch.device("cuda", torch.cuda.current_device())
    first = [torch.full((3, 512, 512), 7, dtype=torch.uint8).pin_memory()]
    second = [torch.full((3, 512, 512), 9, dtype=torch.uint8).pin_memory()]
    moved, _ = to_device(first, [], device)
    torch.cuda._sleep(500_000_000)
    read = moved[0].clone()
    del moved
    to_device(second, [], device)
    torch.cuda.synchronize(device)
    assert (read == 7).all()
