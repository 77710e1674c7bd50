"""Parameters and operations of the rows' models, against a count by hand, layer by layer."""

import pytest

from detector.config.load import load_config
from detector.structures import ceil_div
from detector.tables.model_size import describe_sizes, size_of_model
from detector.tables.published import read_published_rows, select_rows

K = 20 + 1          # classes of VOC and background
A = 9               # anchors
VGG = [(3, 64), (64, 64), "pool", (64, 128), (128, 128), "pool", (128, 256), (256, 256), (256, 256), "pool",
       (256, 512), (512, 512), (512, 512), "pool", (512, 512), (512, 512), (512, 512)]
RES101 = ((64, 3, 1), (128, 4, 2), (256, 23, 2), (512, 3, 2))  # width, blocks, stride of layer1 ... layer4


def conv(inside: int, outside: int, kernel: int, bias: bool, cells: int) -> tuple[int, int]:
    """Parameters, and operations on this many cells of the output; an addition and a multiplication are two."""
    return inside * outside * kernel ** 2 + bias * outside, 2 * inside * outside * kernel ** 2 * cells


def linear(inside: int, outside: int, rows: int) -> tuple[int, int]:
    return inside * outside + outside, 2 * inside * outside * rows


def total(parts) -> tuple[int, int]:
    return tuple(map(sum, zip(*parts)))


def rpn(channels: int, width: int, cells: int, anchors: int = A) -> tuple[int, int]:
    """Two scores and four deltas for each anchor."""
    return total([conv(channels, width, 3, True, cells), conv(width, 2 * anchors, 1, True, cells),
                  conv(width, 4 * anchors, 1, True, cells)])


def predictor(channels: int, rows: int, classes: int = K, boxes: int = K) -> tuple[int, int]:
    return total([linear(channels, classes, rows), linear(channels, 4 * boxes, rows)])


def vgg_backbone(height: int, width: int) -> tuple[int, int]:
    parts = []
    for layer in VGG:
        if layer == "pool":
            height, width = height // 2, width // 2
        else:
            parts.append(conv(*layer, 3, True, height * width))
    return total(parts)


def bottlenecks(inside: int, width: int, blocks: int, stride: int, height: int, across: int, images: int = 1):
    """A layer of Caffe's bottlenecks, which stride in their first convolution; norms add two for each channel."""
    parts = []
    for block in range(blocks):
        if block == 0:
            height, across = ceil_div(height, stride), ceil_div(across, stride)
            parts.append(conv(inside, 4 * width, 1, False, height * across * images))
            parts.append((2 * 4 * width, 0))
        cells = height * across * images
        parts += [conv(inside, width, 1, False, cells), conv(width, width, 3, False, cells),
                  conv(width, 4 * width, 1, False, cells), (2 * (width + width + 4 * width), 0)]
        inside = 4 * width
    return total(parts), height, across


def res101_backbone(height: int, width: int) -> tuple[int, int]:
    height, width = ceil_div(height, 2), ceil_div(width, 2)
    parts = [conv(3, 64, 7, False, height * width), (2 * 64, 0)]
    height, width, inside = height // 2, width // 2, 64  # a pool of 3, stride 2, rounded up, without padding: even sides
    for channels, blocks, stride in RES101[:3]:
        part, height, width = bottlenecks(inside, channels, blocks, stride, height, width)
        parts.append(part)
        inside = 4 * channels
    return total(parts)


def test_vgg16_of_the_tables_as_counted_by_hand():
    size = size_of_model(load_config("tables/voc07-vgg16-g1-b1"))
    head = total([linear(25088, 4096, 300), linear(4096, 4096, 300), predictor(4096, 300)])
    by_hand = {"backbone": vgg_backbone(600, 800), "rpn": rpn(512, 512, 37 * 50), "head": head}
    assert size.parameters == sum(parameters for parameters, _ in by_hand.values()) == 137_078_239
    assert size.flops == {name: flops for name, (_, flops) in by_hand.items()}
    assert (size.height, size.width, size.classes) == (600, 800, 20)
    assert size.parameters - size.trainable == 38_720 + 221_440, "conv1 and conv2 are frozen"


def test_resnet101_of_the_tables_as_counted_by_hand():
    size = size_of_model(load_config("tables/voc07-res101-g8-b16"))
    layer4, height, width = bottlenecks(1024, *RES101[3], 7, 7, images=300)
    assert (height, width) == (4, 4)
    by_hand = {"backbone": res101_backbone(600, 800), "rpn": rpn(1024, 512, 38 * 50),
               "head": total([layer4, predictor(2048, 300)])}
    assert size.parameters == sum(parameters for parameters, _ in by_hand.values()) == 47_462_111
    assert size.flops == {name: flops for name, (_, flops) in by_hand.items()}


@pytest.mark.parametrize("row", [row.row for row in read_published_rows()])
def test_every_row_builds_on_the_meta_device_with_the_parameters_of_its_parts(row):
    config = load_config(f"tables/{row}")
    size = size_of_model(config)
    classes = {"voc": 20, "coco": 80, "deep": 6, "vg25": 2500, "imag": 200}[row[:4].rstrip("0")] + 1
    assert size.classes + 1 == classes and all(flops > 0 for flops in size.flops.values())
    if not config.model.inclusive_boxes:
        return  # not recipe/original; torchvision's count is tested below
    boxes, anchors = 1 if config.model.class_agnostic else classes, 9 if row.startswith("voc") else 12
    if config.model.backbone == "vgg16":
        parts = [vgg_backbone(600, 800), rpn(512, 512, 0, anchors), linear(25088, 4096, 0), linear(4096, 4096, 0),
                 predictor(4096, 0, classes, boxes)]
    else:
        parts = [res101_backbone(600, 800), rpn(1024, 512, 0, anchors), bottlenecks(1024, *RES101[3], 7, 7)[0],
                 predictor(2048, 0, classes, boxes)]
    assert size.parameters == total(parts)[0]
    assert (size.height, size.width) == ((800, 1067) if row.startswith("coco800") else (600, 800))


def test_torchvisions_own_count_of_its_detector():
    """Its FasterRCNN_ResNet50_FPN has 41,755,286 with 91 classes; frozen norms, which it does not count, have 53,120."""
    config = load_config("tables/coco-resnet50-fpn-26e")
    assert size_of_model(config).parameters == 41_755_286 + 53_120 - 10 * 5 * 1025


def test_every_row_has_two_lines(capsys):
    rows = [row for row in read_published_rows() if row.row in ("voc07-vgg16-g1-b1", "vg2500-vgg16-g1-b4")]
    lines = describe_sizes(rows).splitlines()
    assert len(lines) == 6 and max(map(len, lines)) <= 80
    assert lines[2].startswith("voc07-vgg16-g1-b1") and "137,078,239" in lines[3] and "2500" in lines[4]
    assert describe_sizes(select_rows(read_published_rows(), "voc07-vgg16-g1-b1")).splitlines() == lines[:4]
