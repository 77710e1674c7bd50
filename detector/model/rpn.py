"""The region proposal network (Ren et al. 2015, section 3) on a whole batch at once, without waiting for the device.

B images, L levels, A anchors of a cell, N anchors of all levels, K anchors of each NMS group, P proposals, S samples.
Its state dict has the names of torchvision's RegionProposalNetwork, and its proposals and losses are the same.
"""

from dataclasses import dataclass
from functools import partial
from typing import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, smooth_l1_loss
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Rpn as RpnConfig
from detector.model.anchors import Anchors
from detector.model.box_coder import BoxCoder
from detector.model.ground_truth import GroundTruth
from detector.model.matcher import match
from detector.model.ops.nms import nms_mask
from detector.model.ops.rpn_patches import conv_on_patches, convolutions_at_cells
from detector.model.precision import numbers_to_device
from detector.model.sampling import Sample, sample_boxes
from detector.py_faster_rcnn.rpn import last_image_normalizer, softmax_logit

MIN_SIZE = 1e-3  # pixels: a box less wide or less high than this is dropped


@dataclass(frozen=True)
class Proposals:
    """The proposals of B images, by falling score."""

    boxes: Tensor  # float32 [B, P, 4], pixels of the batch; zeros where there is no proposal
    valid: Tensor  # bool [B, P]

    def per_image(self) -> list[Tensor]:
        """Returns the boxes [P', 4] of each image. The host waits for the device."""
        return [boxes[valid] for boxes, valid in zip(self.boxes, self.valid)]


class RpnHead(nn.Module):
    """Objectness logits [B, A, h, w] and box deltas [B, 4 A, h, w] of each level, in float32.

    bf16 has only 8 significant bits, too few for coordinates. With softmax_objectness each anchor has two scores, see
    py_faster_rcnn/rpn.py.
    """

    def __init__(self, in_channels: int, conv_channels: int, num_anchors: int, softmax_objectness: bool,
                 conv_depth: int = 1):
        super().__init__()
        # The nesting gives the names of torchvision's state dict: conv.0.0.weight.
        self.conv = nn.Sequential(*(
            nn.Sequential(nn.Conv2d(conv_channels if number else in_channels, conv_channels, 3, padding=1),
                          nn.ReLU(inplace=True)) for number in range(conv_depth)))
        self.cls_logits = nn.Conv2d(conv_channels, num_anchors * (2 if softmax_objectness else 1), 1)
        self.bbox_pred = nn.Conv2d(conv_channels, 4 * num_anchors, 1)
        self.softmax_objectness = softmax_objectness
        for layer in (*self.convolutions(), self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for feature in features:
            hidden = self.conv(feature)
            logits.append(self.objectness(self.cls_logits(hidden).float(), 1))
            deltas.append(self.bbox_pred(hidden).float())
        return logits, deltas

    def convolutions(self) -> list[nn.Conv2d]:
        return [block[0] for block in self.conv]

    def objectness(self, scores: Tensor, dim: int) -> Tensor:
        """Returns one logit for each anchor; the scores of the anchors lie along dimension `dim`."""
        return softmax_logit(scores, dim) if self.softmax_objectness else scores

    def at_anchors(self, features: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """Computes some anchors only, the same numbers as `forward`; see ops/rpn_patches.py.

        Args:
            index: int64 [B, S], anchors in the order of Anchors.grid.

        Returns:
            Logits float32 [B, S] and deltas float32 [B, S, 4].
        """
        num_anchors = self.bbox_pred.out_channels // 4
        anchor_of_cell = (index % num_anchors)[..., None]
        hidden = convolutions_at_cells(self.convolutions(), features, index // num_anchors)
        logits = self.objectness(conv_on_patches(hidden, self.cls_logits), 2).gather(2, anchor_of_cell)
        deltas = conv_on_patches(hidden, self.bbox_pred).unflatten(2, (num_anchors, 4))
        return logits[..., 0], deltas.gather(2, anchor_of_cell[..., None].expand(-1, -1, -1, 4))[:, :, 0]


def by_anchor(logits: list[Tensor], deltas: list[Tensor]) -> tuple[list[Tensor], Tensor]:
    """Returns the maps of all levels in the order of Anchors.grid: logits [B, N_l] of each level, and deltas [B, N, 4].

    Arguments as RpnHead returns them.
    """
    logits, deltas = ([level.permute(0, 2, 3, 1).flatten(1) for level in maps] for maps in (logits, deltas))
    return logits, torch.cat(deltas, dim=1).unflatten(1, (-1, 4))


class Rpn(nn.Module):
    """Features -> proposals, and in training two losses."""

    def __init__(self, head: RpnHead, anchors: Anchors, config: RpnConfig, box_coder: BoxCoder):
        super().__init__()
        self.head, self.anchors, self.config, self.box_coder = head, anchors, config, box_coder
        self.score_thresh = config.score_thresh

    def forward(self, batch: ImageList, features: dict[str, Tensor],
                ground_truth: GroundTruth | None = None) -> tuple[Proposals, dict[str, Tensor]]:
        logits, deltas, anchors = self.predict_anchors(features, tuple(batch.tensors.shape[-2:]))
        image_sizes = numbers_to_device([list(size) for size in batch.image_sizes], anchors)
        proposals = self.propose(logits, deltas, anchors, image_sizes)
        if not self.training:
            return proposals, {}
        sample, targets = self.sample(anchors, image_sizes, ground_truth)
        sampled_logits, sampled_deltas = self.head.at_anchors(list(features.values()), sample.index)
        return proposals, self.losses(sampled_logits, sampled_deltas, sample, targets)

    @torch.no_grad()
    def predict_anchors(self, features: dict[str, Tensor],
                        padded_size: tuple[int, int]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Returns logits [B, N_l] of each level, deltas [B, N, 4] and the anchors [N, 4] themselves, without gradients.

        Args:
            padded_size: (height, width) of the batch.
        """
        logits, deltas = self.head(list(features.values()))
        grid_sizes = [tuple(level.shape[-2:]) for level in logits]
        return *by_anchor(logits, deltas), self.anchors.grid(grid_sizes, padded_size, logits[0])

    @torch.no_grad()
    def propose(self, logits: list[Tensor], deltas: Tensor, anchors: Tensor, image_sizes: Tensor,
                suppress: Callable[[Tensor, float], Tensor] | None = None) -> Proposals:
        """Returns the best boxes of each image after NMS.

        Args:
            logits: [B, N_l] of each level.
            deltas: [B, N, 4].
            anchors: [N, 4].
            image_sizes: float32 [B, 2], height and width.
            suppress: NMS of (boxes, threshold), see nms_mask; default: nms_mask with model.rpn.nms_rounds rounds in
                training, exact otherwise.
        """
        config, training = self.config, self.training
        pre_nms_top_n = config.pre_nms_top_n_train if training else config.pre_nms_top_n_eval
        post_nms_top_n = config.post_nms_top_n_train if training else config.post_nms_top_n_eval
        groups = [torch.cat(logits, dim=1)] if config.pre_nms_top_n_per == "image" else logits
        scores, index = top_of_groups(groups, pre_nms_top_n)                             # [B, G, K]
        flat_index = index.flatten(1)
        boxes = self.box_coder.decode(deltas.gather(1, flat_index[..., None].expand(-1, -1, 4)), anchors[flat_index])
        boxes = self.box_coder.clip(boxes, image_sizes)
        exclusive = self.box_coder.to_exclusive(boxes)
        valid = ((exclusive[..., 2:] - exclusive[..., :2] >= MIN_SIZE).all(-1) & (scores > -torch.inf).flatten(1))
        if not training:  # in training the threshold might leave an image without a proposal
            valid &= scores.flatten(1).sigmoid() >= self.score_thresh
        nms_groups = (exclusive * valid[..., None]).reshape(-1, index.shape[2], 4)       # [B G, K, 4]
        suppress = suppress or partial(nms_mask, rounds=config.nms_rounds if training else 0)
        kept = suppress(nms_groups, config.nms_thresh).reshape(scores.shape)
        kept &= valid.reshape(scores.shape)
        if config.post_nms_top_n_per == "level":
            kept &= kept.cumsum(-1) <= post_nms_top_n
            post_nms_top_n *= index.shape[1]
        kept_scores = scores.masked_fill(~kept, -torch.inf).flatten(1)
        top_scores, order = kept_scores.topk(min(post_nms_top_n, kept_scores.shape[1]), dim=1)
        valid = top_scores > -torch.inf
        top_boxes = boxes.reshape(scores.shape[0], -1, 4).gather(1, order[..., None].expand(-1, -1, 4))
        return Proposals(torch.where(valid[..., None], top_boxes, 0), valid)

    @torch.no_grad()
    def sample(self, anchors: Tensor, image_sizes: Tensor, ground_truth: GroundTruth) -> tuple[Sample, Tensor]:
        """Returns the sampled anchors, and the deltas [B, S, 4] from each to its object.

        Negatives fill the batch up. The original counts positives before it samples them, and then draws fewer
        negatives; this is not reproduced.
        """
        config, allowed = self.config, None
        if not config.train_on_crossing_anchors:
            corners = self.box_coder.to_exclusive(anchors)[None]
            allowed = ((corners[..., :2] >= 0) & (corners[..., 2:] <= image_sizes.flip(1)[:, None])).all(-1)
        matches = match(ground_truth, anchors[None], self.box_coder, allowed, config.allow_low_quality_matches)
        positive = (matches.iou >= config.fg_iou_thresh) | matches.is_best
        negative = (matches.iou < config.bg_iou_thresh) & ~positive
        if allowed is not None:
            positive, negative = positive & allowed, negative & allowed
        sample = sample_boxes(positive, negative, config.batch_size_per_image, config.positive_fraction)
        matched_index = matches.matched_index.gather(1, sample.index)
        objects = ground_truth.boxes.gather(1, matched_index[..., None].expand(-1, -1, 4))
        return sample, self.box_coder.encode(objects, anchors[sample.index])

    def losses(self, logits: Tensor, deltas: Tensor, sample: Sample, targets: Tensor) -> dict[str, Tensor]:
        """Returns torchvision's two losses by its names, float32 [] each.

        Args:
            logits: [B, S], of the sampled anchors.
            deltas, targets: [B, S, 4], predicted and wanted.
        """
        positive, valid = sample.positive.float(), sample.valid.float()
        num_sampled = valid.sum().clamp(min=1)
        objectness = binary_cross_entropy_with_logits(logits, positive, reduction="none")
        targets = torch.where(sample.positive[..., None], targets, 0)  # the targets of negatives may be infinite
        box = smooth_l1_loss(deltas, targets, reduction="none", beta=self.config.smooth_l1_beta) * positive[..., None]
        last_image = self.config.box_loss_normalizer == "last_image"
        normalizer = last_image_normalizer(valid) if last_image else num_sampled
        return {"loss_objectness": (objectness * valid).sum() / num_sampled, "loss_rpn_box_reg": box.sum() / normalizer}


def top_of_groups(groups: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Returns the highest scores of each group, falling, and their index in all groups joined: [B, G, K] each.

    K is the smaller of `count` and the size of the largest group. Smaller groups [B, N_g] are filled up with scores of
    minus infinity.
    """
    size = min(count, max(group.shape[1] for group in groups))
    scores, indices, offset = [], [], 0
    for group in groups:
        values, index = group.topk(min(count, group.shape[1]), dim=1)
        padding = (0, size - values.shape[1])
        scores.append(nn.functional.pad(values, padding, value=-torch.inf))
        indices.append(nn.functional.pad(index + offset, padding, value=offset))
        offset += group.shape[1]
    return torch.stack(scores, dim=1), torch.stack(indices, dim=1)
