"""What all rounding to bytes begins with: a weight that can be rounded, and steps that can be divided by."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.op import described, refuse


def weight_to_round(name: str, weight: Tensor) -> Tensor:
    """Return a weight (outputs, inputs) in float32 for the function ``name`` to round, or refuse another shape, NaN and infinity."""
    if weight.dim() != 2:
        raise refuse(name, "weight", "(outputs, inputs)", described(weight), "reshape it")
    values = weight.detach().float()
    if not torch.isfinite(values).all():
        raise refuse(name, "weight", "finite", "nan or inf", "repair the weights first")
    return values


def usable(steps: Tensor) -> Tensor:
    """Return steps or scales with 1 for those too small to divide by: they stand for numbers that are zero for every purpose."""
    return torch.where(steps < torch.finfo(torch.float32).tiny, 1.0, steps)
