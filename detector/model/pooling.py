"""From boxes of any size to features of one size: RoIAlign, RoI max pooling and the spatial-transformer crop.

R boxes over all images, F channels, S cells in each direction.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import grid_sample, max_pool2d
from torchvision.ops import roi_align, roi_pool
from torchvision.ops.poolers import LevelMapper


class RoiPooling(nn.Module):
    """Pools every box from the level of the pyramid that fits its size (Lin et al. 2017, FPN, eq. 1).

    kind is align, pool or crop; strides are those of the levels, in pixels of the batch, and are stated rather than
    inferred from the first batch, so that what a model gives never depends on what it saw before.
    """

    def __init__(self, kind: str, size: int, strides: dict[str, int], sampling_ratio: int = 2, max_pool: bool = True):
        super().__init__()
        self.kind, self.size, self.strides = kind, size, strides
        self.sampling_ratio, self.max_pool = sampling_ratio, max_pool
        powers = [stride.bit_length() - 1 for stride in strides.values()]
        self.level_of = LevelMapper(min(powers), max(powers))

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """features [B, F, h, w] by level and boxes [R_i, 4] of each image -> [R, F, S, S]."""
        image = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(boxes)], dim=1)
        levels = [(features[name], 1 / stride) for name, stride in self.strides.items()]
        if len(levels) == 1:
            return self.pool(*levels[0], rois)
        level = self.level_of(boxes)
        pooled = rois.new_zeros((len(rois), levels[0][0].shape[1], self.size, self.size), dtype=levels[0][0].dtype)
        for number, (feature, scale) in enumerate(levels):
            rows = torch.where(level == number)[0]
            pooled[rows] = self.pool(feature, scale, rois[rows]).to(pooled.dtype)
        return pooled

    def pool(self, feature: Tensor, scale: float, rois: Tensor) -> Tensor:
        """feature [B, F, h, w] and rois [R, 5] (image, box) -> [R, F, S, S]."""
        if self.kind == "align":
            return roi_align(feature, rois, self.size, scale, self.sampling_ratio or -1)
        if self.kind == "pool":
            return roi_pool(feature.float(), rois, self.size, scale)  # it takes rois of the features' own type only
        if not self.max_pool:
            return crop(feature, rois, self.size, scale)
        return max_pool2d(crop(feature, rois, 2 * self.size, scale), 2)


def crop(feature: Tensor, rois: Tensor, points: int, scale: float) -> Tensor:
    """A grid of points x points bilinear samples over each box, its corners included; zero outside the feature map.

    Jaderberg et al. 2015, "Spatial Transformer Networks", as in the crop layer of jwyang/faster-rcnn.pytorch: sample j
    is at x1 / stride + j (x2 - x1) / stride / (points - 1), and no gradient flows into the boxes.
    """
    height, width = feature.shape[-2:]
    corners = rois[:, 1:].detach() * scale
    steps = torch.linspace(0, 1, points, device=rois.device, dtype=rois.dtype)
    x = corners[:, 0, None] + steps * (corners[:, 2] - corners[:, 0])[:, None]  # [R, points]
    y = corners[:, 1, None] + steps * (corners[:, 3] - corners[:, 1])[:, None]
    x, y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1                  # grid_sample's -1 ... 1, over the edges
    grid = torch.stack([x[:, None, :].expand(-1, points, -1), y[:, :, None].expand(-1, -1, points)], dim=-1)
    parts = [rois.new_zeros((0, feature.shape[1], points, points))]
    order = []
    for image in range(len(feature)):  # each image samples from its own map; nothing is copied once per box
        rows = torch.where(rois[:, 0] == image)[0]
        order.append(rows)
        tall = grid[rows].reshape(1, -1, points, 2)  # the boxes of one image, one below another
        sampled = grid_sample(feature[image:image + 1].float(), tall, align_corners=False, padding_mode="zeros")
        parts.append(sampled.reshape(feature.shape[1], -1, points, points).transpose(0, 1))
    return torch.cat(parts)[torch.argsort(torch.cat(order))]
