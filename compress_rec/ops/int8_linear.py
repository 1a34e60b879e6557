"""A linear layer in integers: int8 weights with a scale an output, and activations quantised row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.op import described, op, refuse
from compress_rec.rounding import usable, weight_to_round

STEPS = 127  # activations have 7 bits: what AVX2's u8 × s8 products can hold without saturating
# a sum of this many products of two 7-bit numbers is below 2**24, so float32 holds it exactly, in any order of summation
_EXACT_WIDTH = (1 << 24) // (STEPS * STEPS)


def _fake(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[0]))


@op("int8_linear(Tensor x, Tensor codes, Tensor scales, Tensor? bias=None) -> Tensor", close="twice", fake=_fake)
def int8_linear(x: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ (codes * scales).T + bias`` with every row of x rounded to 7 bits, multiplied exactly in integers.

    x: (…, inputs) float32
    codes: (outputs, inputs) int8, -127 … 127
    scales: (outputs,) float32: a weight is its code times its output's scale
    bias: (outputs,) float32

    returns: (…, outputs) float32

    A row of x (a token) has its own step and zero point, from its smallest and largest value with 0 between them:
    ``step = max / 127 - min / 127``, ``zero = round(-min * (1 / step))``, ``u = clamp(round(x * (1 / step)) + zero, 0, 127)``, rounding
    halves to even; a row whose step is below float32's smallest normal number (1.2e-38) counts as zeros and has step 1. Then
    ``y = total * step * scale + bias`` in this order in float32, with
    ``total = sum((u - zero) * codes)`` an exact integer. A row depends on itself alone, so the result for a text has the same bits
    alone and in any batch. A row that holds NaN or infinity comes out as NaN.

    Errors: shapes or dtypes that do not fit together; inputs that require grad.

    Source: dynamic quantisation as in Jacob et al. 2018 (arXiv 1712.05877), equations 1–4, with a scale a row.
    """
    name = "int8_linear"
    if x.dtype != torch.float32 or x.dim() < 1:
        raise refuse(name, "x", "float32 (…, inputs)", described(x), "convert it with .float()")
    if codes.dtype != torch.int8 or codes.dim() != 2 or codes.shape[1] != x.shape[-1]:
        raise refuse(name, "codes", f"int8 (outputs, {x.shape[-1]}), as wide as x", described(codes), "quantise the weight again")
    for argument, value in (("scales", scales), ("bias", bias)):
        if value is not None and (value.dtype != torch.float32 or value.shape != codes.shape[:1]):
            wanted = f"float32 ({codes.shape[0]},), one number an output"
            raise refuse(name, argument, wanted, described(value), "give that of the same layer")
    if x.shape[-1] == 0 or x.numel() == 0:
        empty = x.new_zeros((*x.shape[:-1], codes.shape[0]))
        return empty if bias is None else empty + bias
    integers, step = quantize_rows(x)
    y = _exact_product(integers, codes) * step * scales
    return y if bias is None else y + bias


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return x as whole numbers of its rows' steps: (…, inputs) float32 in -127 … 127, and the steps (…, 1) float32."""
    least, most = torch.aminmax(x, dim=-1, keepdim=True)
    least, most = least.clamp(max=0.0), most.clamp(min=0.0)
    # each bound divided by itself: their difference may overflow
    step = usable(most / STEPS - least / STEPS)
    inverse = 1.0 / step
    zero = torch.round(-least * inverse).clamp_(0, STEPS)
    levels = torch.round(x * inverse).add_(zero).clamp_(0, STEPS)
    return levels.sub_(zero), step


def quantize_per_channel(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to int8, symmetrically, with a scale an output.

    weight: (outputs, inputs) any floating dtype
    returns: codes (outputs, inputs) int8 in -127 … 127, scales (outputs,) float32, such that ``codes * scales[:, None]`` is within half a
        scale of the weight; an output of zeros has scale 1

    Errors: NaN or infinity in the weight.
    """
    values = weight_to_round("quantize_per_channel", weight)
    scales = usable(values.abs().amax(dim=1) / 127 if values.shape[1] else values.new_zeros(len(values)))
    codes = torch.round(values / scales[:, None]).clamp(-127, 127).to(torch.int8)
    return codes, scales


def _exact_product(integers: Tensor, codes: Tensor) -> Tensor:
    """Return ``integers @ codes.T`` exactly, as float32: one product where float32 holds every sum, else blocks summed in float64."""
    weights = codes.to(torch.float32)
    width = integers.shape[-1]
    if width <= _EXACT_WIDTH:
        return integers @ weights.T
    total = torch.zeros((*integers.shape[:-1], codes.shape[0]), dtype=torch.float64, device=integers.device)
    for start in range(0, width, _EXACT_WIDTH):
        stop = start + _EXACT_WIDTH
        total += integers[..., start:stop] @ weights[:, start:stop].T
    return total.float()
