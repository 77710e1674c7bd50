"""Images to one batch, and boxes there and back, beside torchvision's GeneralizedRCNNTransform."""

import random

import pytest
import torch
from torchvision.models import VGG16_Weights
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from detector.model.ground_truth import pad_ground_truth
from detector.model.preprocessing import MEAN, PIXEL_FORMATS, STD, Preprocessing, to_batch
from detector.structures import SIZE_DIVISOR, Resize, scale_and_size, scale_boxes


def torchvision_transform(resize: Resize) -> GeneralizedRCNNTransform:
    return GeneralizedRCNNTransform(resize.min_size, resize.max_size, list(MEAN), list(STD)).eval()


def random_images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for size in sizes]


@pytest.mark.parametrize("height, width, resize, expected", [
    (480, 640, Resize(800, 1333), (800, 1066)),    # 640 * 800 / 480 = 1066.7, rounded down
    (640, 480, Resize(800, 1333), (1066, 800)),
    (600, 600, Resize(600, 1000), (600, 600)),     # unchanged
    (100, 1000, Resize(800, 1333), (133, 1333)),   # max_size decides
    (1200, 900, Resize(300, 1000), (400, 300)),    # smaller
    (1, 3000, Resize(100, 300), (1, 300)),         # a line stays a line of one pixel
    (3000, 1, Resize(100, 300), (300, 1))])
def test_the_short_side_decides_unless_the_long_one_exceeds_max_size(height, width, resize, expected):
    scale, size = scale_and_size(height, width, resize)
    assert size == expected
    assert min(height, width) * scale <= resize.min_size + 1e-6 and max(height, width) * scale <= resize.max_size + 1e-6


def test_sizes_are_torchvisions_to_the_pixel():
    """Hundreds of sizes, because one pixel more or less shows only where a product is almost whole."""
    generator, wrong = random.Random(0), []
    for _ in range(300):
        resize = Resize(generator.choice((64, 75, 96)), generator.choice((96, 120, 133)))
        height, width = generator.randint(20, 200), generator.randint(20, 200)
        expected = torchvision_transform(resize)([torch.zeros(3, height, width)])[0].image_sizes[0]
        if scale_and_size(height, width, resize)[1] != expected:
            wrong.append((height, width, resize))
    assert wrong == []


@pytest.mark.parametrize("sizes", [[(50, 70)], [(50, 70), (90, 40), (64, 64)], [(33, 200)], [(64, 96)]])
@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_torchvisions(sizes, channels_last):
    torch.manual_seed(0)
    images, resize = random_images(*sizes), Resize(64, 120)
    batch = to_batch(images, resize, Preprocessing(channels_last=channels_last))
    expected, _ = torchvision_transform(resize)([image / 255 for image in images])
    assert batch.image_sizes == [tuple(size) for size in expected.image_sizes]
    assert batch.tensors.shape == expected.tensors.shape and batch.tensors.dtype == torch.float32
    assert all(length % SIZE_DIVISOR == 0 for length in batch.tensors.shape[-2:])
    # Normalised before or after a division by 255: a few roundings of values of at most 3.
    torch.testing.assert_close(batch.tensors, expected.tensors, atol=1e-5, rtol=1e-5)
    if channels_last:
        assert batch.tensors.is_contiguous(memory_format=torch.channels_last)
    for padded, (height, width) in zip(batch.tensors, batch.image_sizes):  # zeros below and on the right, nothing else
        assert not padded[:, height:].any() and not padded[:, :, width:].any()
        assert padded[:, height - 1].any() and padded[:, :, width - 1].any()


@pytest.mark.parametrize("colour, expected", [
    ((0, 0, 0), [-m / s for m, s in zip(MEAN, STD)]),
    ((255, 255, 255), [(1 - m) / s for m, s in zip(MEAN, STD)])])
def test_colours_become_deviations_from_the_mean(colour, expected):
    image = torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    batch = to_batch([image], Resize(32, 32), Preprocessing())
    assert batch.tensors[0, :, 16, 16].tolist() == pytest.approx(expected, rel=1e-5)


def test_boxes_there_and_back():
    torch.manual_seed(0)
    boxes = torch.rand(20, 4) * 400
    resized = scale_boxes(boxes, (480, 640), (800, 1066))
    torch.testing.assert_close(scale_boxes(resized, (800, 1066), (480, 640)), boxes)  # each number is multiplied twice
    whole_image = torch.tensor([[0.0, 0, 640, 480]])
    torch.testing.assert_close(scale_boxes(whole_image, (480, 640), (800, 1066)), torch.tensor([[0.0, 0, 1066, 800]]))


def test_targets_are_torchvisions_and_stay_unchanged():
    torch.manual_seed(0)
    images, resize = random_images((50, 70), (90, 40)), Resize(64, 120)
    targets = [{"boxes": torch.tensor([[1.0, 2, 30, 44], [0, 0, 70, 50]]), "labels": torch.tensor([2, 1])},
               {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
    before = [target["boxes"].clone() for target in targets]
    sizes = [tuple(image.shape[-2:]) for image in images]
    padded = pad_ground_truth(targets, sizes, [scale_and_size(*size, resize)[1] for size in sizes]).per_image()
    _, expected = torchvision_transform(resize)([image / 255 for image in images], targets)
    for objects, other, target, copy in zip(padded, expected, targets, before):
        torch.testing.assert_close(objects["boxes"], other["boxes"])
        assert torch.equal(objects["labels"], target["labels"]) and torch.equal(target["boxes"], copy)
    assert padded[1]["boxes"].shape == (0, 4)


@pytest.mark.parametrize("height, width, expected", [
    (100, 1000, (600, 6000)), (1000, 100, (6000, 600)), (300, 400, (600, 800)), (1200, 900, (800, 600))])
def test_without_max_size_the_short_side_decides(height, width, expected):
    assert scale_and_size(height, width, Resize(600, 0))[1] == expected


@pytest.mark.parametrize("name, means", [("caffe", [102.9801, 115.9465, 122.7717]),
                                         ("detectron2", [103.53, 116.28, 123.675])])
def test_caffes_pixels_are_blue_first_in_0_to_255_without_their_mean(name, means):
    """Against a slow version that subtracts and then samples, one value after the other."""
    torch.manual_seed(0)
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    batch = to_batch([image], Resize(40, 0), Preprocessing(PIXEL_FORMATS[name], size_divisor=1))
    assert batch.tensors.shape == (1, 3, 40, 60)
    rgb = image.tolist()
    for channel, colour in enumerate((2, 1, 0)):  # blue, green, red
        plane = [[value - means[channel] for value in row] for row in rgb[colour]]
        for y, x in ((0, 0), (39, 59), (7, 12), (20, 31), (38, 1)):
            # Sums of pixels up to 255, which float32 rounds to 1.5e-5.
            assert float(batch.tensors[0, channel, y, x]) == pytest.approx(bilinear(plane, y, x, 2), abs=1e-3)


def test_torchvisions_caffe_weights_of_vgg_have_the_means_of_their_transform():
    transform = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    image = torch.tensor([10, 120, 250], dtype=torch.uint8)[:, None, None].expand(3, 32, 32)
    pixel = to_batch([image], Resize(32, 0), Preprocessing(PIXEL_FORMATS["caffe_rgb"])).tensors[0, :, 5, 5]
    expected = (torch.tensor([10.0, 120, 250]) / 255 - torch.tensor(transform.mean)) / torch.tensor(transform.std)
    torch.testing.assert_close(pixel, expected, atol=2e-3, rtol=0)  # torchvision's means are rounded to 1e-5 of 255


def bilinear(plane: list[list[float]], y: int, x: int, scale: float) -> float:
    """Pixel y, x of a plane enlarged by scale, its centre mapped back, edges repeated (as OpenCV's INTER_LINEAR)."""
    height, width = len(plane), len(plane[0])
    down = min(max((y + 0.5) / scale - 0.5, 0), height - 1)
    right = min(max((x + 0.5) / scale - 0.5, 0), width - 1)
    top, left = int(down), int(right)
    total = 0.0
    for row, weight_y in ((top, 1 - (down - top)), (min(top + 1, height - 1), down - top)):
        for column, weight_x in ((left, 1 - (right - left)), (min(left + 1, width - 1), right - left)):
            total += weight_y * weight_x * plane[row][column]
    return total


@pytest.mark.parametrize("divisor, expected", [(1, (50, 70)), (16, (64, 80)), (32, (64, 96))])
def test_the_padded_size_is_a_multiple(divisor, expected):
    batch = to_batch(random_images((50, 70), (50, 60)), Resize(50, 0), Preprocessing(size_divisor=divisor))
    assert batch.tensors.shape[-2:] == expected and batch.image_sizes == [(50, 70), (50, 60)]


def test_a_frame_takes_a_part_of_the_resized_image_and_its_padding_counts():
    torch.manual_seed(0)
    images, resize, preprocessing = random_images((40, 20), (30, 30)), Resize(30, 0), Preprocessing(size_divisor=1)
    full = to_batch(images, resize, preprocessing).tensors
    framed = to_batch(images, resize, preprocessing, [(20, 0, 30, 30, 40, 30), None])
    assert framed.image_sizes == [(40, 30), (30, 30)] and framed.tensors.shape == (2, 3, 40, 30)
    assert torch.equal(framed.tensors[0, :, :30], full[0, :, 20:50]) and not framed.tensors[0, :, 30:].any()
    assert torch.equal(framed.tensors[1, :, :30], full[1, :, :30])
