"""Any number of workers gives the same batches; workers ignore stop signals; unreadable images carry their error."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from conftest import REPO
from PIL import Image

from detector.config.schema import Augment
from detector.data.dataset import DetectionDataset, unreadable_messages
from detector.data.image_io import GREY
from detector.data.loader import GRACE_S, collate, likely_cause, open_loader
from detector.data.samplers import TrainBatchSampler, micro_batches, plan_epoch, steps_per_epoch
from detector.data.transforms import TRANSFORMS
from detector.data.workers import SIGNALS, ignore_stop_signals
from detector.errors import BadInput, MachineError
from detector.seeding import numpy_random_state
from detector.structures import Dataset, build_dataset

ALL = Augment(hflip_prob=0.5, scale_jitter=(0.5, 2.0), color_jitter_prob=0.5)
COUNT = 7


def some_images(folder, count: int = COUNT) -> Dataset:
    """Noise of 10 x 12 pixels and other sizes; image i has i % 3 objects."""
    images, objects = [], []
    for i in range(count):
        height, width = 10 + i, 12 + 2 * (i % 2)
        noise = numpy_random_state(i).randint(0, 256, (height, width, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
        images.append((f"{i}.png", 100 + i, height, width))
        objects += [(i, 1 + n, 0, 1, n, n, n + 6, n + 7) for n in range(i % 3)]
    return build_dataset("some", str(folder), ["cat", "dog"], [1, 2], images, np.array(objects, np.float64))


@pytest.fixture
def dataset(tmp_path) -> Dataset:
    return some_images(tmp_path)


def keys_of(sizes: np.ndarray, first: int, last: int, batch: int = 4, per_process: int = 2, rank: int = 0,
            world: int = 1, seed: int = 3) -> TrainBatchSampler:
    return TrainBatchSampler(seed, sizes, batch, micro_batches(batch, per_process, rank, world), first, last,
                             steps_per_epoch(sizes, batch))


def loaded(examples: DetectionDataset, keys, workers: int) -> list:
    """Returns all batches."""
    with open_loader(examples, keys, workers, pin_memory=False) as batches:
        return list(batches)


def plain(batches) -> list:
    """Batches as lists of numbers, to compare them."""
    return [([image.tolist() for image in images], [{name: value.tolist() for name, value in target.items()}
                                                    for target in targets]) for images, targets in batches]


# Keys

def test_keys_are_the_plan_of_one_epoch_after_another(dataset):
    steps = steps_per_epoch(dataset.sizes, 4)
    slow = []
    for epoch in range(3):
        for row in plan_epoch(3, epoch, dataset.sizes, 4).tolist():
            slow += [[(epoch, image) for image in row[:2]], [(epoch, image) for image in row[2:]]]
    keys = keys_of(dataset.sizes, 0, 3 * steps)
    assert list(keys) == slow and len(keys) == len(slow)


def test_iterating_twice_gives_the_same_keys(dataset):
    keys = keys_of(dataset.sizes, 1, 9)
    assert list(keys) == list(keys) != []
    iter(keys)  # DataLoader creates one iterator more and discards it
    assert list(keys) == list(keys_of(dataset.sizes, 1, 9))


def test_starting_at_any_step_is_a_slice(dataset):
    total = 3 * steps_per_epoch(dataset.sizes, 4) + 1
    whole = list(keys_of(dataset.sizes, 0, total))
    for first in range(total + 1):
        assert list(keys_of(dataset.sizes, first, total)) == whole[2 * first:]  # two micro-batches a step


def test_no_keys_are_left_after_the_last_step(dataset):
    assert list(keys_of(dataset.sizes, 5, 5)) == [] and len(keys_of(dataset.sizes, 5, 5)) == 0


@pytest.mark.parametrize("world", [1, 2, 3, 5, 8])
def test_all_ranks_together_see_each_step_of_one(dataset, world):
    alone = list(keys_of(dataset.sizes, 0, 4, batch=8, per_process=8))
    ranks = [list(keys_of(dataset.sizes, 0, 4, batch=8, per_process=8, rank=rank, world=world))
             for rank in range(world)]
    assert [sum((keys[step] for keys in ranks), []) for step in range(4)] == alone


def test_a_single_image_is_enough(tmp_path):
    keys = keys_of(some_images(tmp_path, 1).sizes, 0, 2)
    assert list(keys) == [[(0, 0), (0, 0)]] * 2 + [[(1, 0), (1, 0)]] * 2


# Examples

def test_an_example_is_what_the_data_set_contains(dataset):
    examples = DetectionDataset(dataset, seed=0, config=None)
    assert len(examples) == COUNT
    for index in range(COUNT):
        image, target = examples[(0, index)]
        with Image.open(dataset.path(index)) as stored:
            assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(stored))
        assert image.dtype == torch.uint8
        assert set(target) == {"index", "boxes", "labels"} and int(target["index"]) == index
        assert target["boxes"].dtype == torch.float32 and target["labels"].dtype == torch.int64
        assert target["boxes"].tolist() == [[n, n, n + 6, n + 7] for n in range(index % 3)]
        assert target["labels"].tolist() == [1 + n for n in range(index % 3)]


def test_an_image_without_objects_has_boxes_of_shape_0_4(dataset):
    for config in (None, ALL):
        _, target = DetectionDataset(dataset, 0, config)[(0, 0)]
        assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,)


def test_the_same_key_gives_the_same_example_and_another_epoch_another(dataset):
    first_copy, other = (DetectionDataset(dataset, 5, ALL) for _ in range(2))
    for index in range(COUNT):
        other[(9, index)]  # earlier keys do not matter
        assert plain([collate([first_copy[(1, index)]])]) == plain([collate([other[(1, index)]])])
    first = [first_copy[(0, index)][0].tolist() for index in range(COUNT)]
    assert first != [first_copy[(1, index)][0].tolist() for index in range(COUNT)]
    assert first != [DetectionDataset(dataset, 6, ALL)[(0, index)][0].tolist() for index in range(COUNT)]


def test_labels_stay_with_their_boxes_where_some_are_cut_off(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    places = [(x, y) for x in range(0, 40, 10) for y in range(0, 40, 10)]
    objects = [(0, 1 + n, 0, 100, x + n / 16, y, x + 5 + n / 16, y + 5) for n, (x, y) in enumerate(places)]
    dataset = build_dataset("", str(tmp_path), [str(n) for n in range(16)], list(range(16)), [("a.png", 1, 40, 40)],
                       np.array(objects))
    examples = DetectionDataset(dataset, 0, Augment(hflip_prob=0, scale_jitter=(2, 2)))
    fewest = 16
    for epoch in range(20):
        _, target = examples[(epoch, 0)]
        whole = target["boxes"][:, 2] - target["boxes"][:, 0] == 5  # not cut on the left or the right
        sixteenths = (target["boxes"][:, 0][whole] * 16).round().long() % 16
        assert sixteenths.tolist() == (target["labels"][whole] - 1).tolist(), "each box carries its number"
        fewest = min(fewest, len(target["labels"]))
    assert fewest < 16


def test_changing_an_example_leaves_the_data_set_alone(dataset):
    before = dataset.boxes.copy()
    _, target = DetectionDataset(dataset, 0, None)[(0, 2)]
    target["boxes"] += 1
    assert np.array_equal(dataset.boxes, before)


def inverted(image, boxes, config, generator):
    return 255 - image, boxes, 1.0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_transform_that_the_program_added_is_applied_in_workers_too(dataset, monkeypatch, workers):
    without = loaded(DetectionDataset(dataset, 3, ALL), [[(0, 1)], [(1, 2)]], 0)
    monkeypatch.setitem(TRANSFORMS, "inverted", inverted)
    batches = loaded(DetectionDataset(dataset, 3, ALL), [[(0, 1)], [(1, 2)]], workers)
    assert all(torch.equal(images[0], 255 - plain_images[0]) for (images, _), (plain_images, _) in zip(batches, without))


# Workers

@pytest.mark.parametrize("count", [1, COUNT])  # of one image, which has no objects; and of several
def test_examples_that_travel_to_a_worker_are_the_same(tmp_path, count):
    examples = DetectionDataset(some_images(tmp_path, count), 3, ALL)
    travelled = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(examples))))
    for copy in (travelled, examples):  # pickling does not change the original
        assert len(copy) == count and copy.dataset.classes == ("cat", "dog")
        for index in range(count):
            assert plain([collate([copy[(1, index)]])]) == plain([collate([examples[(1, index)]])])
    for name in ("paths", "image_ids", "sizes", "offsets", "boxes", "labels", "flags", "areas"):
        received, sent = getattr(travelled.dataset, name), getattr(examples.dataset, name)
        assert received.dtype == sent.dtype and np.array_equal(received, sent)


def test_any_number_of_workers_gives_the_same_batches(dataset):
    examples, keys = DetectionDataset(dataset, 3, ALL), keys_of(dataset.sizes, 1, 5)
    none, two = (plain(loaded(examples, keys, workers)) for workers in (0, 2))
    assert none == two and len(none) == len(keys)


def test_resuming_loads_the_rest_of_what_was_to_be_loaded(dataset):
    examples = DetectionDataset(dataset, 3, ALL)
    whole = plain(loaded(examples, keys_of(dataset.sizes, 0, 6), 0))
    assert plain(loaded(examples, keys_of(dataset.sizes, 2, 6), 2)) == whole[4:]  # two micro-batches a step


@pytest.mark.parametrize("workers", [0, 2])
def test_there_may_be_nothing_to_load(dataset, workers):
    assert loaded(DetectionDataset(dataset, 3, ALL), keys_of(dataset.sizes, 4, 4), workers) == []


def test_leaving_ends_the_workers_with_batches_left_and_after_an_error(dataset):
    children = set(multiprocessing.active_children())
    for error in (None, KeyError):
        with pytest.raises(KeyError) if error else contextlib.nullcontext():
            with open_loader(DetectionDataset(dataset, 3, None), keys_of(dataset.sizes, 0, 40), 2, False) as batches:
                next(batches)
                workers = set(multiprocessing.active_children()) - children
                assert len(workers) == 2
                if error:
                    raise error
        assert not any(worker.is_alive() for worker in workers)


class Stuck(DetectionDataset):
    """A data set on a disk that hangs after the first image."""

    def __getitem__(self, key):
        if key[1] != 0:
            time.sleep(600)
        return super().__getitem__(key)


def test_a_worker_that_hangs_holds_up_neither_the_wait_nor_the_end(dataset):
    children = set(multiprocessing.active_children())
    with open_loader(Stuck(dataset, 3, None), [[(0, 0)], [(0, 1)]], 1, pin_memory=False) as batches:
        assert len(next(batches)[0]) == 1
        workers = set(multiprocessing.active_children()) - children
        started_at = time.monotonic()
        assert batches.poll() is None and time.monotonic() - started_at < 5
        started_at = time.monotonic()
    assert time.monotonic() - started_at < GRACE_S + 5 and not any(worker.is_alive() for worker in workers)


@pytest.mark.parametrize("number, cause", [(signal.SIGKILL, "lack of memory"), (signal.SIGBUS, "/dev/shm is full"),
                                           (signal.SIGSEGV, "A library crashed")])
def test_a_killed_worker_is_named_with_its_images_and_the_likely_cause(dataset, number, cause):
    keys = [[(0, index)] for index in range(7)] * 40
    with open_loader(DetectionDataset(dataset, 3, ALL), keys, 1, pin_memory=False) as batches:
        next(batches)
        worker, = batches.workers()
        os.kill(worker.pid, number)
        with pytest.raises(MachineError) as error:
            list(batches)
    text = str(error.value)
    assert "loader worker 0 of rank 0 on " in text and f"was killed by {number.name} while it read {dataset.root}/" in text
    assert cause in text and "run.num_workers" in text and len(text.splitlines()) == 1


@pytest.mark.parametrize("code, cause", [
    (1, "Its own error is printed above"), (13, '`if __name__ == "__main__":`'), (-signal.SIGKILL, "lack of memory"),
    (-signal.SIGTERM, "lack of memory"), (-signal.SIGBUS, "/dev/shm is full"), (-signal.SIGABRT, "A library crashed")])
def test_the_likely_cause_of_the_end_of_a_worker(code, cause):
    text = likely_cause(code, 4)
    assert cause in text and ("run.num_workers" in text) == (code < 0) and ("memory" in text) == ("memory" in cause)


@pytest.mark.slow
def test_a_script_without_a_guard_is_explained(tmp_path):
    """Every worker runs the script again, fails at the start of workers of its own, and ends with exit status 1."""
    (tmp_path / "script.py").write_text(f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_loader import DetectionDataset, loaded, some_images
loaded(DetectionDataset(some_images(Path({str(tmp_path)!r})), 3, None), [[(0, 0)]], 1)
""")
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, timeout=600,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1 and "bootstrapping phase" in done.stderr
    assert "ended with exit status 1" in last and 'below `if __name__ == "__main__":`' in last and "lack of memory" not in last


@pytest.mark.parametrize("before", [0, 2])  # batches: the workers are only starting, or have both delivered one
def test_workers_ignore_stop_signals(dataset, before):
    examples, keys = DetectionDataset(dataset, 3, None), keys_of(dataset.sizes, 0, 40)
    children = set(multiprocessing.active_children())
    with open_loader(examples, keys, 2, pin_memory=False) as batches:
        received = [next(batches) for _ in range(before)]
        workers = set(multiprocessing.active_children()) - children
        assert len(workers) == 2
        for worker in workers:
            for number in SIGNALS:
                os.kill(worker.pid, number)
        received += list(batches)  # a worker that ended would raise here
    assert plain(received) == plain(loaded(examples, keys, 0))


def test_the_signals_of_a_terminal_and_of_a_cluster_are_among_those_ignored():
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2} <= set(SIGNALS)
    ignore_stop_signals()
    assert all(signal.getsignal(number) is signal.SIG_IGN for number in SIGNALS)


# Unreadable images

def break_image(dataset: Dataset, index: int, fault: str) -> None:
    path = dataset.path(index)
    if fault == "missing":
        os.unlink(path)
    elif fault == "other size":
        Image.new("RGB", (5, 5)).save(path)
    else:
        with open(path, "rb") as file:
            data = file.read()
        with open(path, "wb") as file:
            file.write(data[:len(data) // 2] if fault == "truncated" else b"")


@pytest.mark.parametrize("policy", ["refuse", "grey"])
@pytest.mark.parametrize("fault", ["truncated", "empty", "missing", "other size"])
def test_an_unreadable_image_is_grey_without_objects_and_carries_its_error(dataset, fault, policy):
    break_image(dataset, 2, fault)
    for config in (None, Augment(hflip_prob=1)):
        image, target = DetectionDataset(dataset, 0, config)[(0, 2)]
        assert tuple(image.shape) == (3, *dataset.sizes[2]) and (image == GREY).all()
        assert target["boxes"].shape == (0, 4) and target["labels"].shape == (0,) and int(target["index"]) == 2
        message, = unreadable_messages([target])
        assert dataset.path(2) in message and "data.unreadable_images" not in message  # it may be set already


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_raises_in_no_worker_and_leaves_the_others_whole(dataset, workers):
    break_image(dataset, 2, "truncated")
    keys = [[(0, 1), (0, 2)], [(0, 4), (0, 5)]]
    first, second = loaded(DetectionDataset(dataset, 0, None), keys, workers)
    message, = unreadable_messages(first[1])
    assert "corrupt image" in message and dataset.path(2) in message
    assert first[1][0]["boxes"].shape == (1, 4) and "unreadable" not in first[1][0]
    assert unreadable_messages(second[1]) == []


def test_an_unreadable_image_whose_name_is_no_utf8_has_a_readable_error(dataset, monkeypatch):
    def fails(path: str, *_) -> torch.Tensor:
        raise BadInput("no such image file: caf\udce9.jpg")  # Latin-1, as Linux gives it
    monkeypatch.setattr("detector.data.dataset.read_image", fails)
    assert unreadable_messages([DetectionDataset(dataset, 0, None)[(0, 2)][1]]) == ["no such image file: caf\\udce9.jpg"]


def test_no_targets_have_no_unreadable_images():
    assert unreadable_messages([]) == []


@pytest.mark.slow
def test_workers_end_with_a_training_process_that_was_killed(tmp_path):
    """Workers are children of the fork server, so the kernel does not end them with the training process."""
    code = f"""
import multiprocessing, os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from pathlib import Path
from test_loader import DetectionDataset, keys_of, open_loader, some_images
if __name__ == "__main__":
    dataset = some_images(Path({str(tmp_path)!r}))
    with open_loader(DetectionDataset(dataset, 3, None), keys_of(dataset.sizes, 0, 40), 1, pin_memory=False) as batches:
        next(batches)
        print(multiprocessing.active_children()[0].pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
""".replace("import multiprocessing,", "import signal, multiprocessing,")
    script = tmp_path / "killed.py"
    script.write_text(code)
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)})
    worker = int(done.stdout)
    for _ in range(200):
        if not os.path.exists(f"/proc/{worker}"):
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    raise AssertionError("the worker was still alive after ten seconds")


def test_a_temporary_folder_too_long_for_a_socket_is_replaced_for_the_sockets(tmp_path):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    code = ("from detector.data.workers import worker_context\nif __name__ == '__main__':\n    import multiprocessing, tempfile\n"
            "    worker = worker_context().Process(target=print, args=('works',))\n    worker.start(), worker.join()\n"
            "    print(tempfile.gettempdir(), worker.exitcode)")
    (tmp_path / "program.py").write_text(code)
    done = subprocess.run([sys.executable, str(tmp_path / "program.py")], capture_output=True, text=True, timeout=100,
                          env={**os.environ, "TMPDIR": str(long), "PYTHONPATH": str(REPO)})
    assert done.stdout == f"works\n{long} 0\n" and done.stderr.count("note: TMPDIR is too long for the sockets") == 1, done.stderr
    assert list(long.iterdir()) == []
