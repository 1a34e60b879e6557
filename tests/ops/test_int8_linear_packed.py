"""int8_linear_packed: the bits of int8_linear at every tier, whatever the weights, the batch and the threads."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec import op
from compress_rec.int8_eights import joined
from compress_rec.ops.int8_linear import int8_linear, quantize_per_channel
from compress_rec.ops.int8_linear_packed import int8_linear_packed
from tests.ops.tried import rand

tiers = pytest.mark.parametrize("tier", op.tiers())


@tiers
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 11),
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 80),
    weights=st.sampled_from(["gaussian", "largest", "mixed signs", "ones", "some large"]),
    diagonal=st.booleans(),
    exponent=st.sampled_from([-37, -3, 0, 3, 33]),
    shift=st.sampled_from([0.0, 2.0, -40.0]),
    seed=st.integers(0, 2**20),
)
def test_the_bits_of_int8_linear(
    tier: str, rows: int, inputs: int, outputs: int, weights: str, diagonal: bool, exponent: int, shift: float, seed: int
) -> None:
    codes, scales = quantize_per_channel(rand(outputs, inputs, seed=seed))
    if weights == "some large":  # panels of one, two and four parts beside each other
        codes = codes // 2
        codes[20:, :5] = 64
        codes[40:] = 127
    elif weights != "gaussian":
        signs = torch.where(rand(outputs, inputs, seed=seed) > 0, 1, -1) if weights == "mixed signs" else torch.ones(outputs, inputs)
        codes = (signs * (1 if weights == "ones" else 127)).to(torch.int8)
    x = (rand(rows, inputs, seed=seed + 1) + shift) * 10.0**exponent
    bias = rand(outputs, seed=seed + 2) if seed % 2 else None
    before = (rand(inputs, seed=seed + 3).exp(),) if diagonal else ()
    with op.force(tier):
        y = int8_linear_packed(x, joined(codes, scales, bias), outputs, *before)
    assert torch.equal(y, int8_linear(x * before[0] if diagonal else x, codes, scales, bias))


@tiers
@pytest.mark.parametrize("inputs", [384, 1536, 4096])
def test_the_largest_sums_are_exact(tier: str, inputs: int) -> None:
    """±127 everywhere against activations that all round to 127: 16 bits would not hold three of these products."""
    codes = torch.full((20, inputs), 127, dtype=torch.int8)
    codes[1::2] = -127
    x = torch.full((6, inputs), 127.0)
    with op.force(tier):
        y = int8_linear_packed(x, joined(codes, torch.ones(20)), 20)
    wanted = torch.where(torch.arange(20) % 2 == 0, 127 * 127 * inputs, -127 * 127 * inputs).float()
    assert torch.equal(y, wanted.expand(6, 20))


@tiers
@pytest.mark.parametrize("threads", [1, 2])
def test_a_row_does_not_depend_on_its_batch(tier: str, threads: int) -> None:
    """Alone, among others, in any order, with any number of threads: the same bits."""
    x = rand(300, 200) * torch.logspace(-3, 3, 300)[:, None]
    codes, scales = quantize_per_channel(rand(130, 200, seed=1))
    bias = rand(130, seed=2)
    layer = joined(codes, scales, bias), 130
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with op.force(tier):
            together = int8_linear_packed(x, *layer)
            for row in (0, 1, 2, 3, 129, 299):
                assert torch.equal(int8_linear_packed(x[row], *layer), together[row])
            for count in (2, 3, 5, 131):
                assert torch.equal(int8_linear_packed(x[:count], *layer), together[:count])
            assert torch.equal(int8_linear_packed(x.flip(0), *layer).flip(0), together)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(together, int8_linear(x, codes, scales, bias))


@tiers
def test_what_joined_did_not_make_is_refused(tier: str) -> None:
    """The right size, but panels that begin elsewhere: nothing beyond the tensor may be read."""
    layer = joined(torch.ones((40, 24), dtype=torch.int8), torch.ones(40))
    for place, value in ((-1, 9), (-2, -5), (-3, 2), (-4, 1)):  # where the three panels begin and end
        broken = layer.clone()
        broken[place] = value
        with op.force(tier), pytest.raises(ValueError, match="pack the weight again"):
            int8_linear_packed(rand(2, 24), broken, 40)


@tiers
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 7, 16])
def test_a_broken_row_shows_and_stays_alone(tier: str, bad: float, place: int) -> None:
    x, (codes, scales) = rand(6, 17), quantize_per_channel(rand(18, 17, seed=1))
    layer = joined(codes, scales), 18
    with op.force(tier):
        whole = int8_linear_packed(x, *layer)
        x[1, place] = bad
        broken = int8_linear_packed(x, *layer)
        diagonal = torch.ones(17)
        diagonal[place] = bad
        assert int8_linear_packed(rand(6, 17), *layer, diagonal).isnan().all()
    assert broken[1].isnan().all()
    assert torch.equal(broken[[0, 2, 3, 4, 5]], whole[[0, 2, 3, 4, 5]])


@tiers
def test_nothing_in_gives_the_bias(tier: str) -> None:
    with op.force(tier):
        layer = joined(torch.empty(5, 0, dtype=torch.int8), torch.ones(5), rand(5))
        found = int8_linear_packed(torch.empty(3, 0), layer, 5)
    assert torch.equal(found, rand(5).expand(3, 5))
