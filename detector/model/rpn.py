"""The region proposal network (Ren et al. 2015, 3), on the whole batch at once and without waiting for the device.

B images, L levels, A anchors a cell, N anchors of all levels, K that enter NMS in each group, P proposals, S samples.
Its state dict has the names of torchvision's RegionProposalNetwork, and its proposals and losses are the same.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, linear, smooth_l1_loss
from torchvision.models.detection.image_list import ImageList

from detector.config.model_schema import Rpn as Config
from detector.model.anchors import Anchors
from detector.model.box_coder import BoxCoder, clipped, on_device, to_exclusive
from detector.model.ground_truth import GroundTruth
from detector.model.matcher import Sample, match, sample_boxes
from detector.model.ops.nms import nms_mask
from detector.model.ops.rpn_patches import neighbourhoods

SMALLEST = 1e-3  # pixels: what is narrower or lower is no proposal


@dataclass(frozen=True)
class Proposals:
    """Of B images, the best first."""

    boxes: Tensor  # float32 [B, P, 4], pixels of the batch; zeros where there is none
    real: Tensor   # bool [B, P]

    def lists(self) -> list[Tensor]:
        """Boxes [P', 4] of each image. Waits for the device."""
        return [boxes[real] for boxes, real in zip(self.boxes, self.real)]


class RpnHead(nn.Module):
    """Scores [B, A, h, w] and deltas [B, 4 A, h, w] of each level, in float32: bf16 knows 8 bits of a coordinate.

    A score is the logit of "object". With two_way it is the difference of two scores, those of an object (last A
    channels) and of background (first A), which is what a softmax over the two comes to.
    """

    def __init__(self, channels: int, width: int, anchors: int, two_way: bool):
        super().__init__()
        # The nesting gives the names of torchvision's state dict: conv.0.0.weight.
        self.conv = nn.Sequential(nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)))
        self.cls_logits = nn.Conv2d(width, anchors * (2 if two_way else 1), 1)
        self.bbox_pred = nn.Conv2d(width, 4 * anchors, 1)
        self.two_way = two_way
        for layer in (self.conv[0][0], self.cls_logits, self.bbox_pred):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = [], []
        for feature in features:
            hidden = self.conv(feature)
            logits.append(self.logit(self.cls_logits(hidden).float(), 1))
            deltas.append(self.bbox_pred(hidden).float())
        return logits, deltas

    def logit(self, scores: Tensor, dim: int) -> Tensor:
        """One score an anchor, which are counted in this dimension."""
        if not self.two_way:
            return scores
        background, found = scores.chunk(2, dim=dim)
        return found - background

    def at(self, features: list[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """The same for some of the anchors, int64 [B, S]: logits [B, S] and deltas [B, S, 4]; see cells.py."""
        per_cell = self.bbox_pred.out_channels // 4
        anchor = (index % per_cell)[..., None]
        patches = neighbourhoods(features, index // per_cell)
        hidden = on_patches(patches, self.conv[0][0]).relu()
        logits = self.logit(on_patches(hidden, self.cls_logits), 2).gather(2, anchor)
        deltas = on_patches(hidden, self.bbox_pred).unflatten(2, (per_cell, 4))
        return logits[..., 0], deltas.gather(2, anchor[..., None].expand(-1, -1, -1, 4))[:, :, 0]


def on_patches(patches: Tensor, layer: nn.Conv2d) -> Tensor:
    """A convolution of patches [B, S, N] that are as large as its kernel: float32 [B, S, outputs].

    Autocast keeps the narrow copies that the dense pass made of the parameters, which have no gradient. It looks for
    them where a parameter itself is to be narrowed: not in a view of the weight, nor in the sum with the bias.
    """
    return linear(patches, layer.weight.permute(0, 2, 3, 1).flatten(1)) + layer.bias


class Rpn(nn.Module):
    """Features -> proposals, and in training two losses."""

    def __init__(self, head: RpnHead, anchors: Anchors, config: Config, coding: BoxCoder):
        super().__init__()
        self.head, self.anchors, self.config, self.coding = head, anchors, config, coding
        self.score_thresh = config.score_thresh

    def forward(self, batch: ImageList, features: dict[str, Tensor],
                truth: GroundTruth | None = None) -> tuple[Proposals, dict[str, Tensor]]:
        with torch.no_grad():
            logits, deltas = self.head(list(features.values()))
        shapes = [tuple(level.shape[-2:]) for level in logits]
        anchors = self.anchors.grid(shapes, tuple(batch.tensors.shape[-2:]), logits[0])
        sizes = on_device([list(size) for size in batch.image_sizes], logits[0])
        levels = [level.permute(0, 2, 3, 1).flatten(1) for level in logits]              # [B, h w A] each
        deltas = torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, 4) for level in deltas], dim=1)
        proposals = self.propose(levels, deltas, anchors, sizes)
        if not self.training:
            return proposals, {}
        sample, targets = self.sample(anchors, sizes, truth)
        return proposals, self.losses(*self.head.at(list(features.values()), sample.index), sample, targets)

    @torch.no_grad()
    def propose(self, levels: list[Tensor], deltas: Tensor, anchors: Tensor, sizes: Tensor) -> Proposals:
        """logits [B, N_l] of each level, deltas [B, N, 4], anchors [N, 4], image sizes [B, 2] -> proposals."""
        config, training = self.config, self.training
        before = config.pre_nms_top_n_train if training else config.pre_nms_top_n_eval
        after = config.post_nms_top_n_train if training else config.post_nms_top_n_eval
        groups = [torch.cat(levels, dim=1)] if config.pre_nms_top_n_per == "image" else levels
        scores, rows = best_of_groups(groups, before)                                    # [B, G, K]
        images = len(scores)
        flat = rows.flatten(1)
        boxes = self.coding.decode(deltas.gather(1, flat[..., None].expand(-1, -1, 4)), anchors[flat])
        boxes = clipped(boxes, sizes, self.coding.extent)
        whole = to_exclusive(boxes, self.coding.extent)
        real = ((whole[..., 2:] - whole[..., :2] >= SMALLEST).all(-1) & (scores > -torch.inf).flatten(1))
        if not training:  # in training an image might be left without a proposal
            real &= scores.flatten(1).sigmoid() >= self.score_thresh
        apart = (whole * real[..., None]).reshape(-1, rows.shape[2], 4)                  # [B G, K, 4]
        kept = nms_mask(apart, config.nms_thresh, config.nms_rounds if training else 0).reshape(scores.shape)
        kept &= real.reshape(scores.shape)
        if config.post_nms_top_n_per == "level":
            kept &= kept.cumsum(-1) <= after
            after *= rows.shape[1]
        ranked = scores.masked_fill(~kept, -torch.inf).flatten(1)
        values, order = ranked.topk(min(after, ranked.shape[1]), dim=1)
        there = values > -torch.inf
        chosen = boxes.reshape(images, -1, 4).gather(1, order[..., None].expand(-1, -1, 4))
        return Proposals(torch.where(there[..., None], chosen, 0), there)

    @torch.no_grad()
    def sample(self, anchors: Tensor, sizes: Tensor, truth: GroundTruth) -> tuple[Sample, Tensor]:
        """The anchors to learn from, and the deltas [B, S, 4] from them to their objects.

        As many negatives as positives leave room for; the original's tables were made when it still subtracted the
        positives before they were sampled (RECIPE 2), which is not reproduced.
        """
        config, allowed = self.config, None
        if not config.train_on_crossing_anchors:
            corners = to_exclusive(anchors, self.coding.extent)[None]
            allowed = ((corners[..., :2] >= 0) & (corners[..., 2:] <= sizes.flip(1)[:, None])).all(-1)
        found = match(truth, anchors[None], self.coding.extent, allowed, best=config.allow_low_quality_matches)
        positive = (found.overlap >= config.fg_iou_thresh) | found.best
        negative = (found.overlap < config.bg_iou_thresh) & ~positive
        if allowed is not None:
            positive, negative = positive & allowed, negative & allowed
        sample = sample_boxes(positive, negative, config.batch_size_per_image, config.positive_fraction)
        which = found.which.gather(1, sample.index)
        objects = truth.boxes.gather(1, which[..., None].expand(-1, -1, 4))
        return sample, self.coding.encode(objects, anchors[sample.index])

    def losses(self, logits: Tensor, deltas: Tensor, sample: Sample, targets: Tensor) -> dict[str, Tensor]:
        """logits [B, S], deltas [B, S, 4], targets [B, S, 4] -> torchvision's two terms, by its names.

        box_mean=last_image divides the boxes' loss of every image by the samples of the last one, as the original
        does; its other oddity, that the image size of the first counts for all, is not reproduced.
        """
        positive, real = sample.positive.float(), sample.real.float()
        count = real.sum().clamp(min=1)
        picked = binary_cross_entropy_with_logits(logits, positive, reduction="none")
        wanted = torch.where(sample.positive[..., None], targets, 0)  # those of negatives need not be finite
        far = smooth_l1_loss(deltas, wanted, reduction="none", beta=self.config.smooth_l1_beta) * positive[..., None]
        if self.config.box_loss_normalizer == "last_image":
            count_boxes = len(real) * real[-1].sum().clamp(min=1)
        else:
            count_boxes = count
        return {"loss_objectness": (picked * real).sum() / count, "loss_rpn_box_reg": far.sum() / count_boxes}


def best_of_groups(groups: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
    """Scores [B, N_g] of each group -> the best of each, falling, and their rows in all groups joined: [B, G, K] each.

    Groups smaller than K are filled up with scores of minus infinity.
    """
    width = min(count, max(group.shape[1] for group in groups))
    scores, rows, offset = [], [], 0
    for group in groups:
        values, index = group.topk(min(count, group.shape[1]), dim=1)
        room = (0, width - values.shape[1])
        scores.append(nn.functional.pad(values, room, value=-torch.inf))
        rows.append(nn.functional.pad(index + offset, room, value=offset))
        offset += group.shape[1]
    return torch.stack(scores, dim=1), torch.stack(rows, dim=1)
