"""By what the inputs of an int8 weight are divided, so that rounding a row to 127 levels is kind to all of them."""

from __future__ import annotations

from torch import Tensor

LEAST = 1e-5


def smooth_quant(size: Tensor, column: Tensor, strength: float = 0.5) -> Tensor:
    """Return divisors of the inputs, by which the weight's columns are multiplied: (inputs,) float32, 1 in the geometric mean.

    ``size ** strength / column ** (1 - strength)``

    size: (inputs,) the root mean square of each input
    column: (inputs,) the largest magnitude of the weight's column
    strength: how much of an input's size its divisor takes over, 0 to 1

    Source: Xiao et al. 2023, "SmoothQuant" (arXiv 2211.10438), equation 4, with the root mean square in the place of the maximum, which
    one token decides.
    """
    divisor = size.clamp_min(LEAST) ** strength / column.clamp_min(LEAST) ** (1 - strength)
    return divisor / divisor.log().mean().exp()
