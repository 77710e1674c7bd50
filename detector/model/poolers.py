"""RoI pooling: boxes of any size become features of one size (RoIAlign, max pooling, spatial-transformer crop).

R boxes of all images, F channels, S bins in each direction.
"""

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, max_pool2d
from torchvision.ops import roi_align, roi_pool
from torchvision.ops.poolers import LevelMapper

from detector.model.ops.roi_align_cpu import roi_align_cpu
from detector.model.ops.roi_align_pyramid import roi_align_pyramid
from detector.py_faster_rcnn.roi_pooling import align_original, crop

FAR = -1e4  # pixels; a box there lies outside every map, and every kind of pooling gives zeros for it


class RoiPooling(nn.Module):
    """Pools every box from the level of the pyramid that fits its size (Lin et al. 2017, FPN, eq. 1).

    The strides of the levels are stated, in pixels of the batch. torchvision infers them from the first batch, so that
    its output depends on the images that came before.

    Args:
        kind: a value of model.roi_pooling.
        size: S.
        sampling_ratio: align, align_detectron2: samples of a bin in each direction; 0: one for each pixel.
        max_pool: crop: sample twice as finely, then take the maximum of 2 x 2.
    """

    def __init__(self, kind: str, size: int, strides: dict[str, int], sampling_ratio: int = 2, max_pool: bool = True):
        super().__init__()
        self.kind, self.size, self.strides = kind, size, strides
        self.sampling_ratio, self.max_pool = sampling_ratio, max_pool
        exponents = [stride.bit_length() - 1 for stride in strides.values()]
        self.map_levels = LevelMapper(min(exponents), max(exponents))

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], image_sizes: list[tuple[int, int]]) -> Tensor:
        """Pools features [B, F, h, w] of each level for boxes [R_i, 4] of each image: [R, F, S, S]."""
        image = torch.cat([torch.full_like(b[:, :1], i) for i, b in enumerate(boxes)])
        rois = torch.cat([image, torch.cat(boxes)], dim=1)
        levels = [(features[name], 1 / stride) for name, stride in self.strides.items()]
        counts = [len(image_boxes) for image_boxes in boxes]
        level = self.map_levels(boxes) if len(levels) > 1 else torch.zeros_like(image[:, 0], dtype=torch.int64)
        arguments = [feature for feature, _ in levels], list(self.strides.values()), level, rois, self.size
        if self.kind == "align" and self.sampling_ratio and not rois.is_cuda:
            return roi_align_cpu(*arguments, self.sampling_ratio)
        if len(levels) == 1:
            return self.pool(*levels[0], rois, counts)
        if self.kind == "align" and self.training:
            return roi_align_pyramid(*arguments, self.sampling_ratio or -1)
        # Coordinates that are not shifted keep their precision.
        return self.sum_of_levels(levels, level, rois, counts) if rois.is_cuda else \
            self.level_by_level(levels, level, rois)

    def level_by_level(self, levels: list[tuple[Tensor, float]], level: Tensor, rois: Tensor) -> Tensor:
        """Selects the boxes of each level and pools them. On a GPU the host would wait, to learn their number.

        Args:
            levels: features [B, F, h, w] and 1 / stride of each level.
            level: int64 [R], the level of each box.
            rois: [R, 5], index of the image and box.
        """
        pooled = rois.new_zeros((len(rois), levels[0][0].shape[1], self.size, self.size), dtype=levels[0][0].dtype)
        for number, (feature, scale) in enumerate(levels):
            rows = torch.where(level == number)[0]
            pooled[rows] = self.pool(feature, scale, rois[rows]).to(pooled.dtype)
        return pooled

    def sum_of_levels(self, levels: list[tuple[Tensor, float]], level: Tensor, rois: Tensor,
                      counts: list[int]) -> Tensor:
        """Pools every box from every level and adds up. The host does not wait for the device.

        On all levels but its own a box is moved to FAR. The results there are exact zeros, and cheap: a kernel reads
        no feature for a sample outside the map. Arguments as of `level_by_level` and `pool`.
        """
        def pool_level(number: int) -> Tensor:
            own = (level == number)[:, None]
            moved = torch.cat([rois[:, :1], torch.where(own, rois[:, 1:], FAR)], dim=1)
            return self.pool(*levels[number], moved, counts)
        return reduce(torch.add, map(pool_level, range(len(levels))))

    def pool(self, feature: Tensor, scale: float, rois: Tensor, counts: list[int] | None = None) -> Tensor:
        """Pools one level.

        Args:
            feature: [B, F, h, w].
            scale: 1 / stride.
            rois: [R, 5], index of the image and box.
            counts: boxes of each image, if `rois` are in the order of the images; see py_faster_rcnn/roi_pooling.py.

        Returns:
            [R, F, S, S].
        """
        if self.kind in ("align", "align_detectron2"):
            return roi_align(feature, rois, self.size, scale, self.sampling_ratio or -1,
                             aligned=self.kind == "align_detectron2")
        if self.kind == "align_original":
            return avg_pool2d(align_original(feature, rois, self.size + 1, scale, counts), 2, stride=1)
        if self.kind == "pool":
            return roi_pool(feature.float(), rois, self.size, scale)  # roi_pool wants features and rois of one dtype
        if not self.max_pool:
            return crop(feature, rois, self.size, scale, counts)
        return max_pool2d(crop(feature, rois, 2 * self.size, scale, counts), 2)
