"""A linear layer whose weight is a product of two thin matrices."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from compress_rec.op import Gradient, described, op, refuse


def _fake(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-1], b.shape[0]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, a, b, _bias = inputs
    ctx.save_for_backward(x, a, b)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, a, b = ctx.saved_tensors
    needed = ctx.needs_input_grad
    middle = gradient @ b  # (…, rank)
    rows = gradient.reshape(-1, b.shape[0])
    return (
        middle @ a if needed[0] else None,
        middle.reshape(-1, a.shape[0]).T @ x.reshape(-1, a.shape[1]) if needed[1] else None,
        rows.T @ (x @ a.T).reshape(-1, a.shape[0]) if needed[2] else None,
        rows.sum(0) if len(needed) > 3 and needed[3] else None,  # a bias left out is not counted
    )


@op(
    "low_rank_linear(Tensor x, Tensor a, Tensor b, Tensor? bias=None) -> Tensor",
    close="twice",
    fake=_fake,
    gradient=Gradient(_setup_context, _backward),
)
def low_rank_linear(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x @ (b @ a).T + bias`` without ever forming ``b @ a``.

    x: (…, inputs) any floating dtype
    a: (rank, inputs), dtype of x
    b: (outputs, rank), dtype of x
    bias: (outputs,), dtype of x

    returns: (…, outputs), dtype of x

    Saves arithmetic only where rank < inputs · outputs / (inputs + outputs). Gradients pass to every input.

    Errors: shapes or dtypes that do not fit together.
    """
    name = "low_rank_linear"
    if a.dim() != 2 or x.dim() < 1 or a.shape[1] != x.shape[-1]:
        wanted = f"(rank, {x.shape[-1]}), as wide as x" if x.dim() else "(rank, inputs), with x (…, inputs)"
        raise refuse(name, "a", wanted, described(a), "factorise the weight again")
    if b.dim() != 2 or b.shape[1] != a.shape[0]:
        raise refuse(name, "b", f"(outputs, {a.shape[0]}), as wide as a is high", described(b), "factorise the weight again")
    if bias is not None and bias.shape != b.shape[:1]:
        raise refuse(name, "bias", f"({b.shape[0]},), one number an output", described(bias), "give the bias of the same layer")
    for argument, value in (("a", a), ("b", b), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            wanted = str(x.dtype).removeprefix("torch.")
            raise refuse(name, argument, f"{wanted} like x", described(value), "convert one of them with .to()")
    return F.linear(F.linear(x, a), b, bias)
