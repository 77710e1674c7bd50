"""The RPN's 3 x 3 convolutions at single cells, on patches taken out of the feature maps.

The RPN's head is computed at every cell in order to propose boxes, but its losses use 256 anchors of each image. The
gradient of the dense convolution would cost twice its forward pass, a fifth of a step of ResNet-50 FPN at 800 pixels,
and is zero nearly everywhere. The dense pass therefore has no gradient. The sampled anchors are computed a second time,
at their cells alone, as a matrix product: the same numbers and the same gradient.

B images, C cells of all levels, S sampled cells of each image, F channels.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad


def convolutions_at_cells(layers: list[nn.Conv2d], features: list[Tensor], cells: Tensor) -> Tensor:
    """Applies 3 x 3 convolutions, each with a ReLU, one after the other, for some cells of the last output only.

    The earlier convolutions are computed at the 3 x 3 cells around each; their outputs outside the map are zeros.

    Args:
        features: [B, F, h, w] of each level.
        cells: int64 [B, S], counted by level, row, column.

    Returns:
        Hidden features [B, S, outputs].
    """
    *earlier, last = layers
    if not earlier:
        return conv_on_patches(extract_patches(features, cells), last).relu()
    shapes = [tuple(feature.shape[-2:]) for feature in features]
    num_cells = sum(height * width for height, width in shapes)
    neighbors = neighbor_cells(shapes, cells.device)[cells].flatten(1)  # [B, 9 S]
    hidden = convolutions_at_cells(earlier, features, neighbors.clamp(max=num_cells - 1))
    patches = hidden.masked_fill((neighbors == num_cells)[..., None], 0).reshape(*cells.shape, -1)
    return conv_on_patches(patches, last).relu()


def conv_on_patches(patches: Tensor, layer: nn.Conv2d) -> Tensor:
    """Applies a convolution to patches [B, S, N] of the size of its kernel: float32 [B, S, outputs].

    Autocast caches low-precision casts of leaf parameters only. The dense pass runs without gradients, so a cast that
    it cached would cut off the gradient here. The weight is therefore cast as a view, and the bias is added outside
    `linear`.
    """
    return linear(patches, layer.weight.permute(0, 2, 3, 1).flatten(1)) + layer.bias


def extract_patches(features: list[Tensor], cells: Tensor) -> Tensor:
    """Returns the 3 x 3 neighbourhood of each sampled cell, row by row; cells outside the map are zero.

    Args:
        features: [B, F, h, w] of each level.
        cells: int64 [B, S], counted by level, row, column.

    Returns:
        [B, S, 9 F], in the order of a convolution's weight [O, 3, 3, F].
    """
    levels = [feature.permute(0, 2, 3, 1).flatten(1, 2) for feature in features]
    table = torch.cat([*levels, torch.zeros_like(levels[0][:, :1])], dim=1)  # [B, C + 1, F]
    neighbors = neighbor_cells([tuple(feature.shape[-2:]) for feature in features], cells.device)[cells]
    first = torch.arange(len(cells), device=cells.device)[:, None, None] * table.shape[1]
    return table.flatten(0, 1).index_select(0, (first + neighbors).flatten()).reshape(*cells.shape, -1)


def neighbor_cells(shapes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """Returns the 3 x 3 cells around each cell, int64 [C, 9], for maps of (height, width); C stands for no cell."""
    total, first, levels = sum(height * width for height, width in shapes), 0, []
    for height, width in shapes:
        cells = torch.arange(first, first + height * width, device=device).reshape(height, width)
        levels.append(pad(cells, (1, 1, 1, 1), value=total).unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9))
        first += height * width
    return torch.cat(levels)
