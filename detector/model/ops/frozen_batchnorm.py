"""Frozen batch norms, folded into the convolution before them: one pass over the features less in each direction."""

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's FrozenBatchNorm2d, but computed in the dtype of its input.

    Under autocast torchvision's float32 weights would make all later features float32. A folded norm returns its input,
    because the convolution before it already applies the norm.
    """

    folded = False

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Returns scale and shift of each channel, float32 [C] each."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return x
        scale, shift = self.scale_and_shift()
        return x * scale.to(x.dtype).reshape(1, -1, 1, 1) + shift.to(x.dtype).reshape(1, -1, 1, 1)


def freeze_norms(module: nn.Module, everywhere: bool, eps: float | None) -> nn.Module:
    """Replaces batch norms inside a module by frozen ones, in place, and returns the module. State dicts keep their
    names.

    Args:
        everywhere: replace all; False: only those whose weights are not trained.
        eps: epsilon of the frozen norms; None: that of each norm.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and (everywhere or not child.weight.requires_grad):
            frozen = FrozenBatchNorm(child.num_features, child.eps if eps is None else eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_norms(child, everywhere, eps)
    return module


class FoldedConv(nn.Conv2d):
    """A convolution that also applies the frozen norm behind it: scaled weights, shifted outputs.

    Values, gradients and state dict are the same as without folding. The scaled weights are computed in every forward
    pass, which is cheap beside the features, so that weights loaded later count.
    """

    norm: tuple[FrozenBatchNorm]  # in a tuple, so that the norm is not registered under a second name

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.norm[0].scale_and_shift()
        return self._conv_forward(x, self.weight * scale.reshape(-1, 1, 1, 1), shift)


def fold_norms(module: nn.Module) -> nn.Module:
    """Folds every frozen norm that directly follows a convolution among its parent's children; returns the module."""
    before = None
    for child in module.children():
        follows = type(before) is nn.Conv2d and before.bias is None and isinstance(child, FrozenBatchNorm)
        if follows and before.out_channels == len(child.weight):
            before.__class__, before.norm, child.folded = FoldedConv, (child,), True
        fold_norms(child)
        before = child
    return module
