"""A released checkpoint of the original from pixels to detections, beside its whole procedure written out in loops."""

import math
from dataclasses import replace

import pytest
import torch
from plain_networks import Names, dense, made_up, original_rpn, resnet_shapes, stage, stages
from test_name_maps import CLASSES, original_shapes, save_original
from test_poolers import slow_align_original
from torch.nn.functional import interpolate

from detector.config.model_schema import Model, Rpn
from detector.config.schema import Evaluate
from detector.model.faster_rcnn import build_model
from detector.model.weights.load import load_weights
from detector.structures import Resize

KEPT = 30  # proposals after NMS, 300 in the original
CONFIG = Model(backbone="resnet50_c4", stride_in_1x1=True, ceil_pool=True, pixel_format="caffe", size_divisor=1,
               roi_pooling="align_original", anchor_sizes=((128, 256, 512),), inclusive_boxes=True, legacy_anchors=True,
               rpn=Rpn(conv_channels=1024, softmax_objectness=True, pre_nms_top_n_eval=150, post_nms_top_n_eval=KEPT))


def plain_anchors(height: int, width: int) -> list[list[float]]:
    """RECIPE 1.4: 23 x 12, 16 x 16 and 11 x 22 times 8, 16 and 32 around 7.5, moved by 16 pixels a cell."""
    return [[16 * column + 7.5 - (w * scale - 1) / 2, 16 * row + 7.5 - (h * scale - 1) / 2,
             16 * column + 7.5 + (w * scale - 1) / 2, 16 * row + 7.5 + (h * scale - 1) / 2]
            for row in range(height) for column in range(width)
            for w, h in ((23, 12), (16, 16), (11, 22)) for scale in (8, 16, 32)]


def decoded(box: list[float], deltas: list[float], height: int, width: int) -> list[float]:
    """RECIPE 1.6: width = x2 - x1 + 1, no -1 on the way back; then cut to the image's pixels."""
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    x, y = box[0] + 0.5 * w + deltas[0] * w, box[1] + 0.5 * h + deltas[1] * h
    w, h = w * math.exp(deltas[2]), h * math.exp(deltas[3])
    corners = (x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h)
    return [min(max(value, 0), last - 1) for value, last in zip(corners, (width, height) * 2)]


def overlap(a: list[float], b: list[float]) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0]) + 1
    down = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if across <= 0 or down <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return across * down / (sum(areas) - across * down)


def suppressed(ranked: list[tuple[float, list[float]]], threshold: float) -> list[tuple[float, list[float]]]:
    kept = []
    for score, box in sorted(ranked, key=lambda pair: -pair[0]):
        if all(overlap(box, other) <= threshold for _, other in kept):
            kept.append((score, box))
    return kept


def plain_detections(image: torch.Tensor, short: int, state: dict, most: int) -> list[tuple[float, int, list[float]]]:
    """Score, label and box of each object, the surest first; boxes end with their last pixel, in the image's pixels.

    In float64: of two procedures in float32 nobody could tell which one is off.
    """
    scale, state = short / min(image.shape[1:]), {key: value.double() for key, value in state.items()}
    blue_first = image.flip(0).double() - torch.tensor([102.9801, 115.9465, 122.7717], dtype=torch.float64)[:, None, None]
    size = [round(side * scale) for side in image.shape[1:]]
    x = interpolate(blue_first[None], size=size, mode="bilinear", align_corners=False)
    names = Names("original")
    feature = stages(x, state, names, 50, True, True)[2]
    found, deltas = original_rpn(feature, state)
    ranked = [(score, decoded(anchor, moved, *size)) for score, anchor, moved in
              zip(found.flatten().tolist(), plain_anchors(*feature.shape[-2:]), deltas.reshape(-1, 4).tolist())]
    ranked = sorted(ranked, key=lambda pair: -pair[0])[:CONFIG.rpn.pre_nms_top_n_eval]
    proposals = [box for _, box in suppressed(ranked, 0.7)[:KEPT]]
    rois = torch.tensor([[0.0, *box] for box in proposals], dtype=torch.float64)
    hidden = stage(slow_align_original(feature, rois, 16), state, names, 4, 3, True).mean(dim=(2, 3))
    scores = dense(hidden, state, "RCNN_cls_score").softmax(1).tolist()
    moved = dense(hidden, state, "RCNN_bbox_pred").reshape(len(rois), -1, 4) * torch.tensor([0.1, 0.1, 0.2, 0.2])
    detections = []
    for label in range(1, len(CLASSES) + 1):
        ranked = [(row[label], decoded(box, some[label].tolist(), *size))
                  for row, box, some in zip(scores, proposals, moved) if row[label] > 0]
        detections += [(score, label, [value / scale for value in box]) for score, box in suppressed(ranked, 0.3)]
    return sorted(detections, reverse=True)[:most]


@pytest.mark.parametrize("most", [100, 5])
@pytest.mark.parametrize("size, short", [((48, 76), 60), ((90, 64), 64)])
def test_a_checkpoint_detects_what_the_original_detects(size, short, most, tmp_path):
    state = made_up(original_shapes(resnet_shapes(50, Names("original")), 9, 1024, 2048))
    for key, value in state.items():  # as of a trained network: boxes move a little, and classes are told apart
        value *= 0.05 if "RPN_bbox_pred" in key else 0.3 if key.startswith(("RCNN_bbox", "RCNN_cls")) or "RPN_cls" in key else 1
    save_original(state, tmp_path / "faster_rcnn_1_7_10021.pth")
    model = build_model(CONFIG, Evaluate(score_thresh=0.0, nms_thresh=0.3, max_detections=most), len(CLASSES)).eval()
    report = load_weights(model, replace(CONFIG, weights=str(tmp_path / "faster_rcnn_1_7_10021.pth")), CLASSES)
    assert not report.fresh and not report.left_out and not report.notes
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        theirs = plain_detections(image, short, state, most)
    ours = model.predict([image], Resize(short, 0))[0][0]
    assert len(theirs) > 10 or most == 5
    assert ours["labels"].tolist() == [label for _, label, _ in theirs]
    assert ours["scores"].tolist() == pytest.approx([score for score, _, _ in theirs], abs=1e-4)
    expected = torch.tensor([[x1, y1, x2 + 1, y2 + 1] for _, _, (x1, y1, x2, y2) in theirs])
    torch.testing.assert_close(ours["boxes"], expected, atol=0.02, rtol=0)
    assert len({label for _, label, _ in theirs}) > 1 or most == 5
