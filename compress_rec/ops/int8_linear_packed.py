"""``int8_linear`` with its weight packed once, as the kernels read it."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.int8_panels import GROUP, ROWS, Int8Panels, unpack
from compress_rec.op import described, op, refuse
from compress_rec.ops.int8_linear import int8_linear

MOST_INPUTS = 1 << 17  # sums of this many products of two 7-bit numbers fit 32 bits


def _fake(x: Tensor, panels: Tensor, extra: Tensor, where: Tensor, sums: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], sums.shape[0]))


@op(
    "int8_linear_packed(Tensor x, Tensor panels, Tensor extra, Tensor where, Tensor sums, Tensor scales, Tensor? bias=None) -> Tensor",
    close="twice",
    fake=_fake,
)
def int8_linear_packed(
    x: Tensor, panels: Tensor, extra: Tensor, where: Tensor, sums: Tensor, scales: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Return what ``int8_linear`` returns, to the bit, for codes that ``int8_panels.pack`` laid out.

    x: (…, inputs) float32, inputs at most 131,072
    panels, extra, where, sums: as ``Int8Panels`` describes them
    scales: (outputs,) float32
    bias: (outputs,) float32

    returns: (…, outputs) float32

    Errors: shapes or dtypes that do not fit together; inputs that require grad.
    """
    name = "int8_linear_packed"
    if x.dtype != torch.float32 or x.dim() < 1:
        raise refuse(name, "x", "float32 (…, inputs)", described(x), "convert it with .float()")
    if x.shape[-1] > MOST_INPUTS:
        raise refuse(name, "x", f"at most {MOST_INPUTS} wide", described(x), "split the layer")
    outputs, blocks, steps = sums.numel(), -(-sums.numel() // ROWS), -(-x.shape[-1] // (2 * GROUP))
    if panels.dtype != torch.int8 or panels.shape != (blocks, steps, 2, ROWS, GROUP):
        wanted = f"int8 ({blocks}, {steps}, 2, {ROWS}, {GROUP}), as wide as x"
        raise refuse(name, "panels", wanted, described(panels), "pack the weight again")
    extras = extra.shape[0] if extra.dim() else 0
    if extra.dtype != torch.int8 or extra.dim() != 3 or where.dtype != torch.int32 or where.shape != (blocks + 1 + extras,):
        raise refuse(name, "where", f"int32 ({blocks + 1 + extras},), the places of extra", described(where), "pack the weight again")
    for argument, value in (("scales", scales), ("bias", bias)):
        if value is not None and (value.dtype != torch.float32 or value.shape != (outputs,)):
            wanted = f"float32 ({outputs},), one number an output"
            raise refuse(name, argument, wanted, described(value), "give that of the same layer")
    codes = unpack(Int8Panels(panels, extra, where, sums), x.shape[-1])
    y: Tensor = int8_linear.reference(x, codes, scales, bias)
    return y
