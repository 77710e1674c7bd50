"""Runs the detector in float64, so that a comparison tests the function and not the rounding of one CPU's float32.

Two correct ways of computing a deep network in float32 differ by an amount that depends on the CPU's instruction set; a
near tie can even swap two detections. In float64 the differences are a billion times smaller than any mistake.
"""

from contextlib import ExitStack, contextmanager
from typing import Iterator
from unittest import mock

import torch

from detector.model import anchors, ground_truth, preprocessing, roi_heads, rpn


@contextmanager
def in_float64() -> Iterator[None]:
    """Context manager and decorator: new tensors, `Tensor.float()` and numbers copied to the device are float64."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        for module in (anchors, ground_truth, preprocessing, roi_heads, rpn):
            stack.enter_context(mock.patch.object(module, "numbers_to_device", as_float64))
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def as_float64(values: list, like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)
