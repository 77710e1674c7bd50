"""A frozen norm inside the convolution before it: one pass over the features less forwards, and one less backwards."""

from torch import Tensor, nn

from detector.model.bodies import FrozenNorm


class FoldedConv(nn.Conv2d):
    """A convolution whose weights are scaled, and whose outputs are shifted, as the frozen norm behind it says.

    Same weights, same gradients and same state dict as without; the norm's own forward pass hands its input on. The
    scaled weights are made anew each time, which costs nothing beside the features, and so are never out of date.
    """

    norm: tuple[FrozenNorm]  # in a tuple, so that its buffers keep the one name that they have

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.norm[0].scale_and_shift()
        return self._conv_forward(x, self.weight * scale.reshape(-1, 1, 1, 1), shift)


def fold_norms(module: nn.Module) -> nn.Module:
    """Folds every frozen norm that directly follows a convolution in the order of its parent, as in torchvision's."""
    before = None
    for child in module.children():
        follows = type(before) is nn.Conv2d and before.bias is None and isinstance(child, FrozenNorm)
        if follows and before.out_channels == len(child.weight):
            before.__class__, before.norm, child.folded = FoldedConv, (child,), True
        fold_norms(child)
        before = child
    return module
