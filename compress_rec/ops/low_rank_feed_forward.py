"""A transformer's feed-forward block whose two weights are each a product of two thin matrices."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from compress_rec.op import described, op, refuse

_NAME = "low_rank_feed_forward"
_AGAIN = "factorise the weights again"


def _fake(x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, bias: Tensor | None = None, bias_out: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], d.shape[0]))


@op(
    "low_rank_feed_forward(Tensor x, Tensor a, Tensor b, Tensor c, Tensor d, Tensor? bias=None, Tensor? bias_out=None) -> Tensor",
    close="twice",
    fake=_fake,
)
def low_rank_feed_forward(
    x: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, bias: Tensor | None = None, bias_out: Tensor | None = None
) -> Tensor:
    """Return ``gelu(x @ (b @ a).T + bias) @ (d @ c).T + bias_out``, with the exact GELU and without ever forming the products of factors.

    x: (…, inputs) any floating dtype
    a: (rank, inputs), b: (hidden, rank), dtype of x: the first weight
    c: (rank_out, hidden), d: (outputs, rank_out), dtype of x: the second
    bias: (hidden,), bias_out: (outputs,), dtype of x

    returns: (…, outputs), dtype of x

    The CUDA kernel keeps everything between x and the result within a block of threads; for ranks that do not fit there, and on the CPU, it
    is the layers one behind the other.

    Errors: shapes or dtypes that do not fit together; inputs that require grad (``low_rank_linear`` passes gradients).
    """
    if a.dim() != 2 or x.dim() < 1 or a.shape[1] != x.shape[-1]:
        wanted = f"(rank, {x.shape[-1]}), as wide as x" if x.dim() else "(rank, inputs), with x (…, inputs)"
        raise refuse(_NAME, "a", wanted, described(a), _AGAIN)
    for argument, value, before, name, axis in (("b", b, a, "a", "hidden"), ("c", c, b, "b", "rank_out"), ("d", d, c, "c", "outputs")):
        if value.dim() != 2 or value.shape[1] != before.shape[0]:
            raise refuse(_NAME, argument, f"({axis}, {before.shape[0]}), as wide as {name} is high", described(value), _AGAIN)
    for argument, one, of in (("bias", bias, b), ("bias_out", bias_out, d)):
        if one is not None and one.shape != of.shape[:1]:
            raise refuse(
                _NAME, argument, f"({of.shape[0]},), one number a row of its weight", described(one), "give the bias of the same layer"
            )
    for argument, given in (("a", a), ("b", b), ("c", c), ("d", d), ("bias", bias), ("bias_out", bias_out)):
        if given is not None and given.dtype != x.dtype:
            wanted = str(x.dtype).removeprefix("torch.")
            raise refuse(_NAME, argument, f"{wanted} like x", described(given), "convert one of them with .to()")
    return F.linear(F.linear(F.gelu(F.linear(F.linear(x, a), b, bias)), c), d, bias_out)
