"""What the RPN's head sees at single cells: their 3 x 3 neighbourhoods, taken out of the maps.

The head looks at every cell in order to propose; its losses know 256 anchors of each image. The gradient of the dense
convolution would cost twice its forward pass, a fifth of a step of ResNet-50 FPN at 800, and is zero nearly everywhere.
So the dense pass has no gradient, and what is learned from is computed a second time, at its cells alone, as a product
of matrices: the same numbers, and the same gradient.

B images, C cells of all levels, S of each image that are asked for, F channels.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad


def neighbourhoods(features: list[Tensor], cells: Tensor) -> Tensor:
    """features [B, F, h, w] of each level and cells int64 [B, S] (level, row, column) -> [B, S, 9 F].

    Row by row, as the kernel of a convolution with padding 1 lies over them; outside the map is zero.
    """
    levels = [feature.permute(0, 2, 3, 1).flatten(1, 2) for feature in features]
    table = torch.cat([*levels, torch.zeros_like(levels[0][:, :1])], dim=1)  # [B, C + 1, F]
    near = neighbours([tuple(feature.shape[-2:]) for feature in features], cells.device)[cells]
    first = torch.arange(len(cells), device=cells.device)[:, None, None] * table.shape[1]
    return table.flatten(0, 1).index_select(0, (first + near).flatten()).reshape(*cells.shape, -1)


def neighbours(shapes: list[tuple[int, int]], device: torch.device) -> Tensor:
    """The 3 x 3 cells around each cell of maps of these (height, width): int64 [C, 9], and C where there is none."""
    total, first, found = sum(height * width for height, width in shapes), 0, []
    for height, width in shapes:
        rows = torch.arange(first, first + height * width, device=device).reshape(height, width)
        found.append(pad(rows, (1, 1, 1, 1), value=total).unfold(0, 3, 1).unfold(1, 3, 1).reshape(-1, 9))
        first += height * width
    return torch.cat(found)
