"""low_rank_linear with both factors in panels, the layout its compiled kernel reads: for inference."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compress_rec.op import described, op, refuse
from compress_rec.panels import ROWS, unpacked


def _fake(x: Tensor, a: Tensor, b: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], outputs))


@op("low_rank_linear_packed(Tensor x, Tensor a, Tensor b, int outputs, Tensor? bias=None) -> Tensor", close="twice", fake=_fake)
def low_rank_linear_packed(x: Tensor, a: Tensor, b: Tensor, outputs: int, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ (b @ a).T + bias``, with a and b in panels and without ever forming ``b @ a``.

    x: (…, inputs) float32
    a: (ceil(rank / 16), inputs, 16) float32: ``panels.packed`` of the factor (rank, inputs)
    b: (ceil(outputs / 16), rank, 16) float32: ``panels.packed`` of the factor (outputs, rank); its second axis says the rank
    outputs: rows of the second factor; what lies behind them in its last panel is not read, nor what lies behind the rank in a's
    bias: (outputs,) float32

    returns: (…, outputs) float32

    The compiled kernel gives a row of x the same bits whatever else is in the batch and however many threads run; the reference leaves
    the order of its sums to torch's matmul, so its last bits may depend on the batch.

    Errors: shapes or dtypes that do not fit together; inputs that require grad (``low_rank_linear`` passes gradients).
    """
    name = "low_rank_linear_packed"
    if x.dtype != torch.float32 or x.dim() < 1:
        raise refuse(name, "x", "float32 (…, inputs)", described(x), "convert it with .float()")
    if outputs < 0:
        raise refuse(name, "outputs", "at least 0", f"{outputs}", "give the number of the layer's outputs")
    if not _is_packed(b, outputs):
        wanted = f"float32 ({_panels(outputs)}, rank, 16), the panels of {outputs} outputs"
        raise refuse(name, "b", wanted, described(b), "pack the factor again")
    rank = b.shape[1]
    if not _is_packed(a, rank) or a.shape[1] != x.shape[-1]:
        wanted = f"float32 ({_panels(rank)}, {x.shape[-1]}, 16), the panels of rank {rank} and as wide as x"
        raise refuse(name, "a", wanted, described(a), "pack the factor again")
    if bias is not None and (bias.dtype != torch.float32 or bias.shape != (outputs,)):
        raise refuse(name, "bias", f"float32 ({outputs},), one number an output", described(bias), "give the bias of the same layer")
    return F.linear(F.linear(x, unpacked(a, rank)), unpacked(b, outputs), bias)


def _panels(rows: int) -> int:
    return -(-rows // ROWS)


def _is_packed(panels: Tensor, rows: int) -> bool:
    return panels.dtype == torch.float32 and panels.dim() == 3 and panels.shape[0] == _panels(rows) and panels.shape[2] == ROWS
