"""low_rank_linear: its gradients, and that it is the product of its factors."""

from __future__ import annotations

import pytest
import torch

from compress_rec.ops.low_rank_linear import low_rank_linear


def _leaves(*shapes: tuple[int, ...]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("leading", [(4,), (2, 3), (), (0,)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients(leading: tuple[int, ...], with_bias: bool) -> None:
    leaves = _leaves((*leading, 7), (3, 7), (5, 3), (5,))
    assert torch.autograd.gradcheck(low_rank_linear, tuple(leaves if with_bias else leaves[:3]))


def test_gradients_only_where_wanted() -> None:
    x, a, b, bias = _leaves((4, 7), (3, 7), (5, 3), (5,))
    low_rank_linear(x.detach(), a, b.detach(), bias).sum().backward()
    assert x.grad is None
    assert b.grad is None
    assert a.grad is not None
    assert bias.grad is not None


def test_equals_the_dense_layer() -> None:
    x, a, b, bias = (leaf.detach() for leaf in _leaves((4, 7), (3, 7), (5, 3), (5,)))
    torch.testing.assert_close(low_rank_linear(x, a, b, bias), torch.nn.functional.linear(x, b @ a, bias))
