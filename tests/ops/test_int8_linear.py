"""int8_linear: worked values, exact integers, and that a row depends on itself alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec.errors import CompressRecError
from compress_rec.ops.int8_linear import int8_linear, quantize_per_channel, quantize_rows
from tests.ops.tried import rand


def test_rows_worked_by_hand() -> None:
    """From -27 to 100 in 127 steps of 1: zero point 27, every whole number exact."""
    integers, step = quantize_rows(torch.tensor([[-27.0, 100.0, 0.0, 3.4], [0.0, 0.0, 0.0, 0.0], [254.0, 1.0, 3.0, 5.0]]))
    assert step.flatten().tolist() == [1.0, 1.0, 2.0]
    assert integers.tolist() == [[-27.0, 100.0, 0.0, 3.0], [0.0, 0.0, 0.0, 0.0], [127.0, 0.0, 2.0, 2.0]]  # 0.5, 1.5 and 2.5 go to even


def test_worked_by_hand() -> None:
    x = torch.tensor([[-27.0, 100.0]])
    codes, scales = torch.tensor([[1, 2], [-127, 0]], dtype=torch.int8), torch.tensor([0.5, 2.0])
    assert int8_linear(x, codes, scales, torch.tensor([1.0, 0.0])).tolist() == [[0.5 * 173 + 1, 2.0 * 127 * 27]]


def test_per_channel_worked_by_hand() -> None:
    codes, scales = quantize_per_channel(torch.tensor([[1.27, -0.635, 0.0], [0.0, 0.0, 0.0]]))
    assert codes.tolist() == [[127, -64, 0], [0, 0, 0]]
    assert scales.tolist() == pytest.approx([0.01, 1.0])


@settings(max_examples=50, deadline=None)
@given(outputs=st.integers(1, 12), inputs=st.integers(1, 40), seed=st.integers(0, 2**20), exponent=st.integers(-20, 20))
def test_weights_are_within_half_a_scale(outputs: int, inputs: int, seed: int, exponent: int) -> None:
    weight = rand(outputs, inputs, seed=seed) * 10.0**exponent
    codes, scales = quantize_per_channel(weight)
    assert codes.dtype == torch.int8
    assert int(codes.min()) >= -127
    error = (codes.double() * scales.double()[:, None] - weight.double()).abs()
    assert (error <= scales.double()[:, None] * (0.5 + 1e-5)).all()


@settings(max_examples=50, deadline=None)
@given(rows=st.integers(1, 6), inputs=st.integers(1, 50), seed=st.integers(0, 2**20), shift=st.floats(-3, 3))
def test_activations_are_within_a_step(rows: int, inputs: int, seed: int, shift: float) -> None:
    """Half a step of rounding, and half a step that the rounded zero point may shift the ends by."""
    x = rand(rows, inputs, seed=seed) + shift
    integers, step = quantize_rows(x)
    assert torch.equal(integers, integers.round())
    assert (integers.amax(1) - integers.amin(1) <= 127).all()
    assert ((integers.double() * step.double() - x.double()).abs() <= step.double() * (1 + 1e-4)).all()


@pytest.mark.parametrize("inputs", [1, 384, 1040, 1041, 1536, 4097])
def test_integers_are_multiplied_exactly(inputs: int) -> None:
    """The largest sums there can be, and random ones, against int64; 1040 products of 127 · 127 are the most that float32 holds."""
    codes = torch.randint(-127, 128, (9, inputs), generator=torch.Generator().manual_seed(1), dtype=torch.int8)
    codes[0], codes[1] = 127, -127
    x = torch.randint(0, 128, (5, inputs), generator=torch.Generator().manual_seed(2)).float()
    x[0] = 127
    x[1:, 0] = 127  # so that every row's step is 1 and its zero point 0
    totals = x.to(torch.int64) @ codes.to(torch.int64).T
    assert torch.equal(int8_linear(x, codes, torch.ones(9)), totals.float())


@pytest.mark.parametrize("inputs", [64, 384, 1536])
def test_a_row_does_not_depend_on_its_batch(inputs: int) -> None:
    """The same bits alone, among rows a million times larger, and with leading axes: else an embedding depends on its company."""
    x = rand(33, inputs) * torch.logspace(-3, 3, 33)[:, None]
    codes, scales = quantize_per_channel(rand(48, inputs, seed=1))
    bias = rand(48, seed=2)
    together = int8_linear(x, codes, scales, bias)
    for row in (0, 1, 16, 32):
        assert torch.equal(int8_linear(x[row : row + 1], codes, scales, bias)[0], together[row])
        assert torch.equal(int8_linear(x[row], codes, scales, bias), together[row])
    assert torch.equal(int8_linear(x.reshape(3, 11, inputs), codes, scales, bias).reshape(33, -1), together)
    assert torch.equal(int8_linear(x.flip(0), codes, scales, bias).flip(0), together)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_broken_row_shows_and_stays_alone(bad: float) -> None:
    x = rand(3, 16)
    whole = int8_linear(x, *quantize_per_channel(rand(5, 16, seed=1)))
    x[1, 4] = bad
    broken = int8_linear(x, *quantize_per_channel(rand(5, 16, seed=1)))
    assert broken[1].isnan().all()
    assert torch.equal(broken[[0, 2]], whole[[0, 2]])


def test_close_to_the_float_layer() -> None:
    """7 bits against 32: the cosine between the outputs is what makes the method worth having."""
    x, weight = rand(64, 384), rand(256, 384, seed=1) / 384**0.5
    y = int8_linear(x, *quantize_per_channel(weight))
    assert torch.nn.functional.cosine_similarity(y, x @ weight.T, dim=1).min() > 0.999


def test_weights_that_cannot_be_quantised_are_refused() -> None:
    with pytest.raises(
        CompressRecError, match=r"^quantize_per_channel: weight must be finite, but nan or inf came; repair the weights first$"
    ):
        quantize_per_channel(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(CompressRecError, match=r"weight must be \(outputs, inputs\), but float32 \(3\) came"):
        quantize_per_channel(rand(3))
