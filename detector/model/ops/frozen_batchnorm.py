"""A frozen norm inside the convolution before it: one pass over the features less forwards, and one less backwards."""

from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

pass


class FrozenBatchNorm(FrozenBatchNorm2d):
    """torchvision's, in the precision of its input: under autocast the float32 of its weights would spread.

    Once folded, the convolution before it does its work, see model/ops/frozen_batchnorm.py.
    """

    folded = False

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """float32 [C] each."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        if self.folded:
            return x
        scale, shift = self.scale_and_shift()
        return x * scale.to(x.dtype).reshape(1, -1, 1, 1) + shift.to(x.dtype).reshape(1, -1, 1, 1)


def freeze_norms(module: nn.Module, everywhere: bool, eps: float | None) -> nn.Module:
    """Batch norms as fixed scale and shift: all of them, or those that `freeze` has reached. Same state dict."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d) and (everywhere or not child.weight.requires_grad):
            frozen = FrozenBatchNorm(child.num_features, child.eps if eps is None else eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_norms(child, everywhere, eps)
    return module


class FoldedConv(nn.Conv2d):
    """A convolution whose weights are scaled, and whose outputs are shifted, as the frozen norm behind it says.

    Same weights, same gradients and same state dict as without; the norm's own forward pass hands its input on. The
    scaled weights are made anew each time, which costs nothing beside the features, and so are never out of date.
    """

    norm: tuple[FrozenBatchNorm]  # in a tuple, so that its buffers keep the one name that they have

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.norm[0].scale_and_shift()
        return self._conv_forward(x, self.weight * scale.reshape(-1, 1, 1, 1), shift)


def fold_norms(module: nn.Module) -> nn.Module:
    """Folds every frozen norm that directly follows a convolution in the order of its parent, as in torchvision's."""
    before = None
    for child in module.children():
        follows = type(before) is nn.Conv2d and before.bias is None and isinstance(child, FrozenBatchNorm)
        if follows and before.out_channels == len(child.weight):
            before.__class__, before.norm, child.folded = FoldedConv, (child,), True
        fold_norms(child)
        before = child
    return module
