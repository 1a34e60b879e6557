"""``int8_linear`` with its weight packed once, as the kernels read it."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.int8_eights import ROWS, STEP, parts_of
from compress_rec.op import described, op, refuse
from compress_rec.ops.int8_linear import int8_linear

MOST_INPUTS = 1 << 17  # sums of this many products of two 7-bit numbers fit 32 bits


def _fake(x: Tensor, layer: Tensor, outputs: int, diagonal: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


@op("int8_linear_packed(Tensor x, Tensor layer, int outputs, Tensor? diagonal=None) -> Tensor", close="twice", fake=_fake)
def int8_linear_packed(x: Tensor, layer: Tensor, outputs: int, diagonal: Tensor | None = None) -> Tensor:
    """Return what ``int8_linear`` returns for ``x * diagonal``, to the bit, with codes, scales and bias that ``int8_eights`` laid out.

    x: (…, inputs) float32, inputs at most 131,072
    layer: (numbers,) int32, what ``int8_eights.joined`` made of the codes (outputs, inputs), their scales and the bias; one tensor,
        since handing over each takes a tenth of the time of a small product
    outputs: rows of the weight
    diagonal: (inputs,) float32, by which each row of x is multiplied before it is rounded; ``None`` for ones

    returns: (…, outputs) float32

    Errors: shapes or dtypes that do not fit together; inputs that require grad.
    """
    name = "int8_linear_packed"
    if x.dtype != torch.float32 or x.dim() < 1:
        raise refuse(name, "x", "float32 (…, inputs)", described(x), "convert it with .float()")
    inputs = x.shape[-1]
    if inputs > MOST_INPUTS:
        raise refuse(name, "x", f"at most {MOST_INPUTS} wide", described(x), "split the layer")
    if outputs < 0:
        raise refuse(name, "outputs", "at least 0", f"{outputs}", "give the number of the layer's outputs")
    parts = parts_of(layer, outputs, inputs)
    if parts is None:
        panels, steps = -(-outputs // ROWS), -(-inputs // STEP)
        numbers = f"{(3 * ROWS + 1) * panels + 1} + {steps * ROWS * STEP // 4} a part,"
        wanted = f"int32 ({numbers}), the layer of {outputs} outputs and as wide as x"
        raise refuse(name, "layer", wanted, described(layer), "pack the weight again")
    if diagonal is not None and (diagonal.dtype != torch.float32 or diagonal.shape != (inputs,)):
        raise refuse(name, "diagonal", f"float32 ({inputs},), as wide as x", described(diagonal), "give that of the same layer")
    scaled = x if diagonal is None else x * diagonal
    y: Tensor = int8_linear.reference(scaled, parts.codes(outputs, inputs), parts.scales[:outputs], parts.bias[:outputs])
    return y
