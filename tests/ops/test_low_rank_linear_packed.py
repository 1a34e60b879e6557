"""low_rank_linear_packed: two products to float32's accuracy, and a row's bits whatever the batch and the threads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec import op
from compress_rec.ops.low_rank_linear_packed import low_rank_linear_packed
from compress_rec.panels import packed
from tests.ops.tried import rand

tiers = pytest.mark.parametrize("tier", op.tiers())
compiled = pytest.mark.skipif(op.fallback("low_rank_linear_packed") is not None, reason=str(op.fallback("low_rank_linear_packed")))


@tiers
@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 30),
    inputs=st.integers(1, 70),
    rank=st.integers(1, 40),
    outputs=st.integers(1, 80),
    exponent=st.sampled_from([-12, 0, 12]),
    seed=st.integers(0, 2**20),
)
def test_near_the_float64_product(tier: str, rows: int, inputs: int, rank: int, outputs: int, exponent: int, seed: int) -> None:
    """Each number within what rounding may do to a sum of that many products, given the products' sizes."""
    x, a, b = rand(rows, inputs, seed=seed) * 10.0**exponent, rand(rank, inputs, seed=seed + 1), rand(outputs, rank, seed=seed + 2)
    bias = rand(outputs, seed=seed + 3) if seed % 2 else None
    with op.force(tier):
        y = low_rank_linear_packed(x, packed(a), packed(b), outputs, bias)
    x, a, b = x.double(), a.double(), b.double()
    wanted = x @ a.T @ b.T
    size = x.abs() @ a.abs().T @ b.abs().T
    if bias is not None:
        wanted, size = wanted + bias.double(), size + bias.double().abs()
    assert ((y.double() - wanted).abs() <= (inputs + rank + 1) * 2.0**-24 * 1.01 * size).all()


@compiled
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("inputs", "rank", "outputs"), [(200, 1, 130), (600, 37, 150), (300, 271, 83)])
def test_a_row_does_not_depend_on_its_batch(threads: int, inputs: int, rank: int, outputs: int) -> None:
    """Alone, among others, in any order, with any number of threads: the same bits, in every tile and across blocks."""
    x = rand(205, inputs) * torch.logspace(-3, 3, 205)[:, None]
    factors, bias = (packed(rand(rank, inputs, seed=1)), packed(rand(outputs, rank, seed=2)), outputs), rand(outputs, seed=3)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = low_rank_linear_packed(x, *factors, bias)
        for row in (0, 1, 5, 6, 68, 102, 204):
            assert torch.equal(low_rank_linear_packed(x[row], *factors, bias), together[row])
        for count in (*range(2, 26), 95, 96, 97, 131):
            assert torch.equal(low_rank_linear_packed(x[:count], *factors, bias), together[:count])
        assert torch.equal(low_rank_linear_packed(x.flip(0), *factors, bias).flip(0), together)
        torch.set_num_threads(3 - threads)
        assert torch.equal(low_rank_linear_packed(x, *factors, bias), together)
        assert torch.equal(low_rank_linear_packed(x[:20], *factors, bias), together[:20])
    finally:
        torch.set_num_threads(before)


@tiers
def test_what_lies_behind_the_last_row_of_a_panel_is_not_read(tier: str) -> None:
    a, b = packed(rand(5, 24, seed=1)), packed(rand(19, 5, seed=2))
    with op.force(tier):
        wanted = low_rank_linear_packed(rand(7, 24), a, b, 19)
        a[-1, :, 5:], b[-1, :, 3:] = math.nan, math.nan
        assert torch.equal(low_rank_linear_packed(rand(7, 24), a, b, 19), wanted)


@tiers
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_broken_row_shows_and_stays_alone(tier: str, bad: float) -> None:
    x, factors = rand(9, 17), (packed(rand(18, 17, seed=1)), packed(rand(21, 18, seed=2)), 21)
    others = [row for row in range(9) if row != 4]
    with op.force(tier):
        whole = low_rank_linear_packed(x, *factors)
        x[4, 16] = bad
        broken = low_rank_linear_packed(x, *factors)
    assert not broken[4].isfinite().any()
    assert torch.equal(broken[others], whole[others])


@tiers
def test_nothing_in_gives_the_bias(tier: str) -> None:
    with op.force(tier):
        no_inputs = low_rank_linear_packed(torch.empty(3, 0), packed(torch.empty(2, 0)), packed(rand(5, 2)), 5, rand(5))
        no_rank = low_rank_linear_packed(rand(3, 4), torch.empty(0, 4, 16), packed(torch.empty(5, 0)), 5, rand(5))
        no_outputs = low_rank_linear_packed(rand(3, 4), packed(rand(2, 4)), torch.empty(0, 2, 16), 0)
    assert torch.equal(no_inputs, rand(5).expand(3, 5))
    assert torch.equal(no_rank, rand(5).expand(3, 5))
    assert no_outputs.shape == (3, 0)
