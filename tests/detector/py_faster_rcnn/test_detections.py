"""A checkpoint of jwyang/faster-rcnn.pytorch from pixels to detections, beside the procedure written in plain loops."""

import math
from dataclasses import replace

import pytest
import torch
from in_float64 import in_float64
from plain_networks import Names, dense, original_rpn, random_state, resnet_shapes, stage, stages
from test_name_maps import CLASSES, original_shapes, save_original
from test_poolers import slow_align_original
from torch.nn.functional import interpolate

from detector.config.model_schema import Model, Rpn
from detector.config.schema import Evaluate
from detector.model.faster_rcnn import build_model
from detector.model.weights.load import load_weights
from detector.structures import Resize

PROPOSALS = 30  # after NMS; 300 in the original
CONFIG = Model(backbone="resnet50_c4", stride_in_1x1=True, ceil_pool=True, pixel_format="caffe", size_divisor=1,
               roi_pooling="align_original", anchor_sizes=((128, 256, 512),), inclusive_boxes=True, legacy_anchors=True,
               rpn=Rpn(conv_channels=1024, softmax_objectness=True, pre_nms_top_n_eval=150, post_nms_top_n_eval=PROPOSALS))


def plain_anchors(height: int, width: int) -> list[list[float]]:
    """23 x 12, 16 x 16 and 11 x 22 times 8, 16 and 32 around 7.5, moved by 16 pixels for each cell."""
    return [[16 * column + 7.5 - (w * scale - 1) / 2, 16 * row + 7.5 - (h * scale - 1) / 2,
             16 * column + 7.5 + (w * scale - 1) / 2, 16 * row + 7.5 + (h * scale - 1) / 2]
            for row in range(height) for column in range(width)
            for w, h in ((23, 12), (16, 16), (11, 22)) for scale in (8, 16, 32)]


def decoded(box: list[float], deltas: list[float], height: int, width: int) -> list[float]:
    """width = x2 - x1 + 1; no 1 is subtracted from the decoded x2; then clipped to the image's pixels."""
    w, h = box[2] - box[0] + 1, box[3] - box[1] + 1
    x, y = box[0] + 0.5 * w + deltas[0] * w, box[1] + 0.5 * h + deltas[1] * h
    w, h = w * math.exp(deltas[2]), h * math.exp(deltas[3])
    corners = (x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h)
    return [min(max(value, 0), last - 1) for value, last in zip(corners, (width, height) * 2)]


def iou(a: list[float], b: list[float]) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0]) + 1
    down = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if across <= 0 or down <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
    return across * down / (sum(areas) - across * down)


def nms(ranked: list[tuple[float, list[float]]], threshold: float) -> list[tuple[float, list[float]]]:
    kept = []
    for score, box in sorted(ranked, key=lambda pair: -pair[0]):
        if all(iou(box, other) <= threshold for _, other in kept):
            kept.append((score, box))
    return kept


def plain_detections(image: torch.Tensor, min_size: int, state: dict, most: int) -> list[tuple[float, int, list[float]]]:
    """Returns score, label and inclusive box, in pixels of the image, of each detection by falling score."""
    scale = min_size / min(image.shape[1:])
    bgr = image.flip(0).double() - torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]
    size = [round(length * scale) for length in image.shape[1:]]
    x = interpolate(bgr[None], size=size, mode="bilinear", align_corners=False)
    names = Names("original")
    feature = stages(x, state, names, 50, True, True)[2]
    probabilities, deltas = original_rpn(feature, state)
    ranked = [(score, decoded(anchor, delta, *size)) for score, anchor, delta in
              zip(probabilities.flatten().tolist(), plain_anchors(*feature.shape[-2:]), deltas.reshape(-1, 4).tolist())]
    ranked = sorted(ranked, key=lambda pair: -pair[0])[:CONFIG.rpn.pre_nms_top_n_eval]
    proposals = [box for _, box in nms(ranked, 0.7)[:PROPOSALS]]
    rois = torch.tensor([[0.0, *box] for box in proposals])
    hidden = stage(slow_align_original(feature, rois, 16), state, names, 4, 3, True).mean(dim=(2, 3))
    scores = dense(hidden, state, "RCNN_cls_score").softmax(1).tolist()
    deltas = dense(hidden, state, "RCNN_bbox_pred").reshape(len(rois), -1, 4) * torch.tensor([0.1, 0.1, 0.2, 0.2])
    detections = []
    for label in range(1, len(CLASSES) + 1):
        ranked = [(row[label], decoded(box, class_deltas[label].tolist(), *size))
                  for row, box, class_deltas in zip(scores, proposals, deltas) if row[label] > 0]
        detections += [(score, label, [value / scale for value in box]) for score, box in nms(ranked, 0.3)]
    return sorted(detections, reverse=True)[:most]


@pytest.mark.slow
@in_float64()
@pytest.mark.parametrize("most", [100, 5])
@pytest.mark.parametrize("size, min_size", [((48, 76), 60), ((90, 64), 64)])
def test_a_checkpoint_detects_what_the_original_detects(size, min_size, most, tmp_path):
    """In float64: near ties of scores or overlaps are not decided by the rounding of a CPU's float32."""
    state = random_state(original_shapes(resnet_shapes(50, Names("original")), 9, 1024, 2048))
    for key, value in state.items():  # as of a trained network: boxes move a little, and the scores of classes differ
        value *= 0.05 if "RPN_bbox_pred" in key else 0.3 if key.startswith(("RCNN_bbox", "RCNN_cls")) or "RPN_cls" in key else 1
    save_original(state, tmp_path / "faster_rcnn_1_7_10021.pth")
    model = build_model(CONFIG, Evaluate(score_thresh=0.0, nms_thresh=0.3, max_detections=most), len(CLASSES)).eval()
    report = load_weights(model, replace(CONFIG, weights=str(tmp_path / "faster_rcnn_1_7_10021.pth")), CLASSES)
    assert not report.not_loaded and not report.unused and not report.notes
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        expected = plain_detections(image, min_size, state, most)
    detections = model.predict([image], Resize(min_size, 0))[0][0]
    assert len(expected) > 10 or most == 5
    assert detections["labels"].tolist() == [label for _, label, _ in expected]
    assert detections["scores"].tolist() == pytest.approx([score for score, _, _ in expected], abs=1e-9)
    boxes = torch.tensor([[x1, y1, x2 + 1, y2 + 1] for _, _, (x1, y1, x2, y2) in expected])
    torch.testing.assert_close(detections["boxes"], boxes, atol=1e-7, rtol=1e-7)
    assert len({label for _, label, _ in expected}) > 1 or most == 5
