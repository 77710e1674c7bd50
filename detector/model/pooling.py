"""From boxes of any size to features of one size: three kinds of RoIAlign, RoI max pooling, spatial-transformer crop.

R boxes over all images, F channels, S cells in each direction.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, grid_sample, max_pool2d
from torchvision.ops import roi_align, roi_pool
from torchvision.ops.poolers import LevelMapper

from detector.model.align import align_by_sums
from detector.model.atlas import align_on_pyramid
from detector.model.coding import grown


class RoiPooling(nn.Module):
    """Pools every box from the level of the pyramid that fits its size (Lin et al. 2017, FPN, eq. 1).

    kind is align, align_detectron2, align_original, pool or crop; strides are those of the levels, in pixels of the
    batch, and are stated rather than inferred from the first batch, so that what a model gives never depends on what it
    saw before.
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
        level = self.level_of(boxes) if len(levels) > 1 else torch.zeros_like(image[:, 0], dtype=torch.int64)
        pyramid = [feature for feature, _ in levels], list(self.strides.values()), level, rois, self.size
        if self.kind == "align" and self.sampling_ratio and not rois.is_cuda:
            return align_by_sums(*pyramid, self.sampling_ratio)
        if len(levels) == 1:
            return self.pool(*levels[0], rois, [len(some) for some in boxes])
        if self.kind == "align" and self.training:  # in evaluation, the host may wait, and coordinates stay small
            return align_on_pyramid(*pyramid, self.sampling_ratio or -1)
        pooled = rois.new_zeros((len(rois), levels[0][0].shape[1], self.size, self.size), dtype=levels[0][0].dtype)
        for number, (feature, scale) in enumerate(levels):
            rows = torch.where(level == number)[0]
            pooled[rows] = self.pool(feature, scale, rois[rows]).to(pooled.dtype)
        return pooled

    def pool(self, feature: Tensor, scale: float, rois: Tensor, counts: list[int] | None = None) -> Tensor:
        """feature [B, F, h, w] and rois [R, 5] (image, box) -> [R, F, S, S]; see `sample` for counts."""
        if self.kind in ("align", "align_detectron2"):
            return roi_align(feature, rois, self.size, scale, self.sampling_ratio or -1,
                             aligned=self.kind == "align_detectron2")
        if self.kind == "align_original":
            return avg_pool2d(align_original(feature, rois, self.size + 1, scale, counts), 2, stride=1)
        if self.kind == "pool":
            return roi_pool(feature.float(), rois, self.size, scale)  # it takes rois of the features' own type only
        if not self.max_pool:
            return crop(feature, rois, self.size, scale, counts)
        return max_pool2d(crop(feature, rois, 2 * self.size, scale, counts), 2)


def crop(feature: Tensor, rois: Tensor, points: int, scale: float, counts: list[int] | None = None) -> Tensor:
    """A grid of points x points bilinear samples over each box, its corners included; zero outside the feature map.

    Jaderberg et al. 2015, "Spatial Transformer Networks", as in the crop layer of jwyang/faster-rcnn.pytorch: sample j
    is at x1 / stride + j (x2 - x1) / stride / (points - 1), and no gradient flows into the boxes.
    """
    corners = rois[:, 1:].detach() * scale
    return sample(feature, rois[:, 0], spread(corners[:, 0::2], points), spread(corners[:, 1::2], points), counts)


def align_original(feature: Tensor, rois: Tensor, points: int, scale: float,
                   counts: list[int] | None = None) -> Tensor:
    """A grid of points x points bilinear samples over each box and one cell more, as for the published tables.

    jwyang/faster-rcnn.pytorch, lib/model/roi_align (PyTorch 0.3 and 0.4): sample j is at x1 / stride + j (x2 / stride -
    x1 / stride + 1) / (points - 1). Outside [0, W) it is zero; beyond the centre of the last cell the line through the
    last two goes on. No gradient flows into the boxes.
    """
    height, width = feature.shape[-2:]
    corners = grown(rois[:, 1:].detach() * scale, 1)
    x, y = spread(corners[:, 0::2], points), spread(corners[:, 1::2], points)
    outside = -2.0  # both cells between which a sample there would lie are outside the map, so it is zero
    x = torch.where((x >= 0) & (x < width), x, outside)
    y = torch.where((y >= 0) & (y < height), y, outside)
    return sample(one_more(one_more(feature.float()).mT).mT, rois[:, 0], x, y, counts)


def one_more(feature: Tensor) -> Tensor:
    """A map with one column more at its right, on the line through the last two; a single column is repeated."""
    ends = feature[..., -2:]
    return torch.cat([feature, 2 * ends[..., -1:] - ends[..., :1]], dim=-1)


def spread(ends: Tensor, points: int) -> Tensor:
    """Evenly spaced points from one end to the other, both included: [R, 2] -> [R, points]."""
    steps = torch.linspace(0, 1, points, device=ends.device, dtype=ends.dtype)
    return ends[:, :1] + steps * (ends[:, 1:] - ends[:, :1])


def sample(feature: Tensor, image: Tensor, x: Tensor, y: Tensor, counts: list[int] | None = None) -> Tensor:
    """Bilinear samples at the columns x [R, P] and rows y [R, P], in cells, of the map of each box's image [R]; a cell
    outside the map counts as zero. float32 [R, F, P, P].

    counts: how many boxes each image has, where they lie image by image; without it the host asks the device for them.
    """
    (height, width), points = feature.shape[-2:], x.shape[1]
    x, y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1  # grid_sample's -1 ... 1, over the edges
    grid = torch.stack([x[:, None, :].expand(-1, points, -1), y[:, :, None].expand(-1, -1, points)], dim=-1)
    if len(feature) == 1:
        return sample_one(feature.float(), grid)
    order = None if counts else torch.argsort(image, stable=True)
    grids = (grid if counts else grid[order]).split(counts or [int((image == n).sum()) for n in range(len(feature))])
    # Each image from its own map; nothing is copied for a box.
    joined = torch.cat([sample_one(one, mine) for one, mine in zip(feature.float().split(1), grids)])
    return joined if counts else joined[torch.argsort(order)]


def sample_one(feature: Tensor, grid: Tensor) -> Tensor:
    """One map [1, F, h, w] at the points of grid [R, P, P, 2] -> [R, F, P, P]."""
    points = grid.shape[1]
    tall = grid.reshape(1, -1, points, 2)  # the boxes of one image, one below another
    sampled = grid_sample(feature, tall, align_corners=False, padding_mode="zeros")
    return sampled.reshape(feature.shape[1], -1, points, points).transpose(0, 1)
