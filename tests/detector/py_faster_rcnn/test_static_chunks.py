"""Static chunks and the crop of their images, compared with a slow, independent implementation."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from detector.config.schema import Augment
from detector.data.dataset import DetectionDataset
from detector.data.samplers import epoch_sizes, plan_epoch, rank_part, steps_per_epoch
from detector.model.box_coder import BoxCoder
from detector.model.ground_truth import pad_ground_truth
from detector.model.preprocessing import PIXEL_FORMATS, Preprocessing, to_batch
from detector.py_faster_rcnn.inclusive_boxes import InclusiveBoxCoder
from detector.py_faster_rcnn.static_chunks import (
    CropFrames,
    chunk_indices,
    chunk_ratios,
    crop_to_frame,
    draw_window_start,
)
from detector.seeding import generator, numpy_random_state
from detector.structures import Resize, build_dataset, scale_and_size


def photographs(seed: int, count: int) -> np.ndarray:
    """Sizes as of VOC and COCO, and a few extreme ones: int32 [I, 2], height and width."""
    state = numpy_random_state(seed)
    usual = np.array([(375, 500), (333, 500), (500, 375), (500, 333), (500, 500), (150, 500), (500, 120), (250, 500)])
    return usual[state.choice(len(usual), count, p=[0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])].astype(np.int32)


# The images of a chunk

def slow_chunks(sizes: list, batch: int) -> list[tuple[list[int], float]]:
    """Returns members and target ratio of each chunk, from narrow to wide."""
    ratio = [min(max(width / height, 0.5), 2.0) for height, width in sizes]
    order = sorted(range(len(sizes)), key=lambda i: ratio[i])
    chunks = []
    for first in range(0, len(order) - batch + 1, batch):
        members = order[first:first + batch]
        each = [ratio[i] for i in members]
        if each[-1] < 1:
            target = each[0]
        elif each[0] > 1:
            target = each[-1]
        else:
            target = 1
        chunks.append((members, target))
    return chunks


@pytest.mark.parametrize("count, batch", [(0, 4), (3, 4), (4, 4), (5, 4), (97, 1), (97, 4), (97, 16), (200, 24)])
def test_chunks_and_their_ratios_are_the_slow_ones(count, batch):
    sizes = photographs(count, count)
    slow, ratios = slow_chunks(sizes.tolist(), batch), chunk_ratios(sizes, batch)
    assert chunk_indices(sizes, batch).tolist() == [members for members, _ in slow]
    for members, ratio in slow:
        assert ratios[members].tolist() == [ratio] * batch
    left = set(range(count)) - {i for members, _ in slow for i in members}
    assert len(left) == count % batch and np.isnan(ratios[list(left)]).all()
    if left and slow:
        assert min(sizes[i, 1] / sizes[i, 0] for i in left) >= max(
            min(sizes[i, 1] / sizes[i, 0], 2) for i in slow[-1][0]), "the widest are left out"


def test_chunks_by_hand():
    """Heights for a width of 100: ratios 0.5 (cut from 0.25), 0.8, 0.9, 1, 1.25, 1.6 and 2 (cut from 4)."""
    sizes = np.array([(100, 100), (62.5, 100), (400, 100), (125, 100), (25, 100), (80, 100), (111.2, 100)])
    assert chunk_indices(sizes, 2).tolist() == [[2, 3], [6, 0], [5, 1]]
    assert chunk_ratios(sizes, 2)[[2, 3, 6, 0, 5, 1]].tolist() == [0.5, 0.5, 1, 1, 1.6, 1.6]
    assert np.isnan(chunk_ratios(sizes, 2)[4])


@pytest.mark.parametrize("count, batch", [(97, 4), (48, 16), (3, 4)])
def test_the_same_images_meet_in_every_epoch_and_only_the_order_changes(count, batch):
    sizes = photographs(1, count)
    plans = [plan_epoch(3, epoch, sizes, batch, "static") for epoch in range(4)]
    for plan in plans:
        assert plan.shape == (count // batch, batch) == (steps_per_epoch(sizes, batch, "static"), batch)
        assert sorted(map(tuple, plan.tolist())) == sorted(map(tuple, chunk_indices(sizes, batch).tolist()))
        assert np.array_equal(np.concatenate([plan[:, rank_part(batch, rank, 3)] for rank in range(3)], axis=1), plan)
    assert len({plan.tobytes() for plan in plans}) == (4 if count // batch > 1 else 1)
    assert np.array_equal(plan_epoch(3, 2, sizes, batch, "static"), plans[2])


# Images of each data set, batch size, and steps of an epoch with mirrored copies, as the published tables state them.
TABLE = [(5011, 1, 10022), (5011, 4, 2505), (5011, 16, 626), (5011, 24, 417), (117266, 16, 14658), (117266, 24, 9772),
         (97224, 4, 48612)]


@pytest.mark.parametrize("images, batch, steps", TABLE)
def test_an_epoch_has_the_steps_of_the_published_tables(images, batch, steps):
    sizes = epoch_sizes(photographs(0, images), mirrored_copies=True)
    assert steps_per_epoch(sizes, batch, "static") == steps == len(plan_epoch(0, 0, sizes, batch, "static"))


# Crop and padding

def allowed_starts(low: list[float], high: list[float], length: int, window: int) -> list[int]:
    """Returns all positions at which the crop window may start."""
    first, last = int(min(low)), int(max(high))
    region = last - first + 1
    if first == 0:
        return [0]
    if region < window:
        start, end = max(last - window, 0), min(first, length - window)
    else:
        start, end = first, first + math.floor((region - window) / 2)
    return list(range(start, end)) or [start]


def slow_frame(size: tuple, boxes: list, ratio: float, resize: Resize, start: int | None) -> tuple[tuple, list]:
    """Returns the frame, and each box after the crop (None: dropped), inclusive, in pixels of the resized image; the
    window starts at `start`."""
    height, width = scale_and_size(*size, resize)[1]
    down, right = height / size[0], width / size[1]
    inner = [[x1 * right, y1 * down, (x2 - 1) * right, (y2 - 1) * down] for x1, y1, x2, y2 in boxes]
    top = left = 0
    need_crop = size[1] / size[0] > 2 or size[1] / size[0] < 0.5
    if need_crop and ratio < 1:
        window = min(math.floor(width / ratio), height)
        top, height = start, window
        inner = [[x1, min(max(y1 - top, 0), window - 1), x2, min(max(y2 - top, 0), window - 1)] for x1, y1, x2, y2 in inner]
    elif need_crop:
        window = min(math.ceil(height * ratio), width)
        left, width = start, window
        inner = [[min(max(x1 - left, 0), window - 1), y1, min(max(x2 - left, 0), window - 1), y2] for x1, y1, x2, y2 in inner]
    padded_height, padded_width = height, width
    if ratio < 1:
        padded_height = math.ceil(width / ratio)
    elif ratio > 1:
        padded_width = math.ceil(height * ratio)
    else:
        height = width = padded_height = padded_width = min(height, width)
        inner = [[min(max(value, 0), height) for value in box] for box in inner]
    kept = [box if box[0] != box[2] and box[1] != box[3] else None for box in inner]
    return (top, left, height, width, padded_height, padded_width), kept


RESIZE = Resize(60, 0)
CASES = [  # height, width, ratio of the chunk
    (100, 100, 1.0), (120, 100, 1.0), (100, 130, 1.0), (100, 80, 0.7), (100, 80, 0.8), (100, 130, 1.3), (100, 130, 1.7),
    (100, 200, 2.0), (200, 100, 0.5), (100, 350, 2.0), (100, 350, 1.0), (100, 350, 1.6), (400, 100, 0.5), (400, 100, 1.0),
    (400, 100, 0.8), (30, 400, 2.0), (30, 61, 2.0)]


def random_boxes(seed: int, count: int, height: int, width: int) -> torch.Tensor:
    state = numpy_random_state(seed)
    first = np.stack([state.randint(1, width - 1, count), state.randint(1, height - 1, count)], 1)
    lengths = np.stack([state.randint(1, width // 2, count), state.randint(1, height // 2, count)], 1)
    return torch.tensor(np.concatenate([first, np.minimum(first + lengths, (width, height))], 1), dtype=torch.float32)


@pytest.mark.parametrize("height, width, ratio", CASES)
def test_a_frame_is_the_slow_one_for_every_seed(height, width, ratio):
    for seed in range(40):
        boxes = random_boxes(seed, 1 + seed % 4, height, width)
        frame, cropped, mask = crop_to_frame((height, width), boxes, ratio, RESIZE, generator(seed))
        down, right = (after / before for after, before in zip(scale_and_size(height, width, RESIZE)[1], (height, width)))
        if width / height < 0.5 and ratio < 1:
            starts = allowed_starts((boxes[:, 1] * down).tolist(), ((boxes[:, 3] - 1) * down).tolist(),
                                    scale_and_size(height, width, RESIZE)[1][0], frame[2])
            assert frame[0] in starts
        elif not 0.5 <= width / height <= 2 and ratio > 1:
            starts = allowed_starts((boxes[:, 0] * right).tolist(), ((boxes[:, 2] - 1) * right).tolist(),
                                    scale_and_size(height, width, RESIZE)[1][1], frame[3])
            assert frame[1] in starts
        expected, kept = slow_frame((height, width), boxes.tolist(), ratio, RESIZE, frame[0] or frame[1])
        assert frame == expected
        assert mask.tolist() == [box is not None for box in kept]
        target = {"boxes": cropped, "labels": torch.ones(len(cropped), dtype=torch.int64)}
        scaled = pad_ground_truth([target], [(height, width)], [scale_and_size(height, width, RESIZE)[1]],
                                  InclusiveBoxCoder(BoxCoder())).per_image()[0]["boxes"]
        expected_boxes = torch.tensor([box for box in kept if box]).reshape(-1, 4)
        torch.testing.assert_close(scaled, expected_boxes.to(scaled.dtype), atol=1e-3, rtol=0)


@pytest.mark.parametrize("low, high, length, window, expected", [
    ([30.0], [49.0], 100, 40, range(9, 30)),         # 20 pixels in 40: from 49 - 40 on, and at most at 30
    ([30.0, 5.2], [49.0, 20.0], 100, 60, range(0, 5)),
    ([90.0], [99.0], 100, 40, range(59, 60)),        # 99 - 40 = 59, and no further than 100 - 40
    ([10.0], [90.0], 100, 41, range(10, 30)),        # 81 pixels do not fit 41: (81 - 41) / 2 = 20 places
    ([10.0], [50.0], 100, 41, [10]),                 # they fit exactly
    ([0.4], [50.0], 100, 20, [0]), ([], [], 100, 40, [0])])
def test_a_window_starts_at_each_allowed_position_and_no_other(low, high, length, window, expected):
    drawn = {draw_window_start(torch.tensor(low), torch.tensor(high), length, window, generator(seed)) for seed in range(400)}
    assert drawn == set(expected)
    if low:
        assert set(allowed_starts(low, high, length, window)) == set(expected)


def test_all_images_of_a_chunk_have_one_padded_size():
    """Up to one pixel, because resized sizes are rounded down."""
    sizes = photographs(7, 96)
    ratios = chunk_ratios(sizes, 8)
    for row in chunk_indices(sizes, 8):
        padded = np.array([crop_to_frame(tuple(sizes[i].tolist()), torch.zeros(0, 4), ratios[i], RESIZE, generator(0))[0][4:]
                             for i in row])
        assert np.ptp(padded, axis=0).max() <= 1
        assert padded.max() <= 2 * RESIZE.min_size


def test_no_boxes_stay_no_boxes():
    for height, width, ratio in CASES:
        _, boxes, mask = crop_to_frame((height, width), torch.zeros(0, 4), ratio, RESIZE, generator(0))
        assert boxes.shape == (0, 4) and mask.shape == (0,)


# Examples of a data set

@pytest.fixture
def few(tmp_path):
    """Three images with boxes: an upright one, a landscape one, and one that is cropped."""
    sizes, state = [(90, 70), (60, 80), (40, 200)], numpy_random_state(0)
    for number, size in enumerate(sizes):
        Image.fromarray(state.randint(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    objects = [(0, 1, 0, 1, 10, 20, 40, 60), (1, 2, 0, 1, 5, 6, 50, 40), (1, 1, 0, 1, 60, 10, 80, 60),
               (2, 1, 0, 1, 90, 5, 120, 30), (2, 2, 0, 1, 195, 1, 199, 20)]
    return build_dataset("few", str(tmp_path), ["cat", "dog"], [1, 2],
                    [(f"{number}.png", number + 1, *size) for number, size in enumerate(sizes)], np.array(objects))


def test_a_mirrored_copy_is_the_flipped_image(few):
    examples = DetectionDataset(few, 0, Augment(hflip_prob=0, mirrored_copies=True))
    for index in range(3):
        (image, target), (copy, other) = examples[(0, index)], examples[(0, index + 3)]
        assert torch.equal(copy, image.flip(2)) and int(other["index"]) == index
        width = image.shape[2]
        for box, mirrored in zip(target["boxes"].tolist(), other["boxes"].tolist(), strict=True):
            assert mirrored == [width - box[2], box[1], width - box[0], box[3]]
        assert torch.equal(target["labels"], other["labels"])
        again = examples[(0, index + 3)]
        assert torch.equal(again[0], copy) and torch.equal(again[1]["boxes"], other["boxes"])


@pytest.mark.parametrize("max_boxes, kept_count", [(0, 6), (6, 6), (9, 6), (2, 2), (1, 1)])
def test_of_many_objects_a_random_choice_is_kept(few, max_boxes, kept_count):
    boxes = torch.arange(24, dtype=torch.float32).reshape(6, 4).numpy() + [[0, 0, 9, 9]]
    crowded = replace(few, boxes=boxes.astype(np.float32), labels=np.arange(1, 7, dtype=np.int32),
                      offsets=np.array([0, 0, 0, 6]), flags=np.zeros(6, np.uint8), areas=np.ones(6, np.float32))
    examples = DetectionDataset(crowded, 0, Augment(hflip_prob=0, max_boxes=max_boxes))
    kept = [examples[(epoch, 2)][1] for epoch in range(60)]
    for target in kept:
        labels = target["labels"].tolist()
        assert len(set(labels)) == kept_count and torch.equal(target["boxes"], torch.from_numpy(boxes[np.array(labels) - 1]).float())
    assert {label for target in kept for label in target["labels"].tolist()} == set(range(1, 7))
    assert torch.equal(examples[(5, 2)][1]["labels"], kept[5]["labels"])


def test_cropped_images_fill_their_batch_and_padding_counts_as_image(few):
    """With mirrored copies: a crop contains the pixels of the resized image, and its boxes stay inside."""
    sizes = epoch_sizes(few.sizes, True)
    resize, ratios = Resize(32, 0), chunk_ratios(sizes, 2)
    examples = DetectionDataset(few, 0, Augment(hflip_prob=0, mirrored_copies=True), CropFrames(ratios, resize))
    preprocessing = Preprocessing(PIXEL_FORMATS["caffe"], size_divisor=1)
    for row in plan_epoch(0, 0, sizes, 2, "static"):
        images, targets = zip(*(examples[(0, int(index))] for index in row))
        batch = to_batch(list(images), resize, preprocessing, [target["frame"] for target in targets])
        assert set(batch.image_sizes) == {tuple(batch.tensors.shape[-2:])}
        before = [tuple(image.shape[-2:]) for image in images]
        scaled = pad_ground_truth(targets, before, [scale_and_size(*size, resize)[1] for size in before]).per_image()
        for image, target, ground_truth, padded in zip(images, targets, scaled, batch.tensors):
            top, left, height, width, *_ = target["frame"]
            alone = to_batch([image], resize, preprocessing).tensors[0]
            assert torch.equal(padded[:, :height, :width], alone[:, top:top + height, left:left + width])
            assert not padded[:, height:].any() and not padded[:, :, width:].any()
            assert len(ground_truth["boxes"]) == len(target["labels"]) > 0
            assert (ground_truth["boxes"] > -1e-3).all() and (ground_truth["boxes"][:, 2] < width + 1).all()


def test_frames_of_the_same_key_are_the_same_and_epochs_differ(few):
    sizes = epoch_sizes(few.sizes, True)
    examples = DetectionDataset(few, 0, Augment(hflip_prob=0), CropFrames(chunk_ratios(sizes, 1), Resize(64, 0)))
    frames = [examples[(epoch, 2)][1]["frame"] for epoch in range(30)]
    assert frames == [examples[(epoch, 2)][1]["frame"] for epoch in range(30)]
    assert len({frame[1] for frame in frames}) > 3 and {frame[2:] for frame in frames} == {(64, 128, 64, 128)}
