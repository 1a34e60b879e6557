from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compress_rec.errors import CompressRecError
from compress_rec.int8_eights import MOST, joined, pack, parts_of, quantize_by_eights

sizes = st.tuples(st.integers(1, 40), st.integers(1, 70))


def eights(codes: torch.Tensor) -> torch.Tensor:
    """The eight codes that meet: (outputs, steps, 2, 8), by what the kernel's documentation says of places."""
    padded = torch.nn.functional.pad(codes.int(), (0, -codes.shape[1] % 16))
    first = [0, 1, 4, 5, 8, 9, 12, 13]
    steps = padded.view(len(codes), -1, 16)
    return torch.stack([steps[:, :, first], steps[:, :, [place + 2 for place in first]]], 2)


@given(sizes, st.integers(0, 10**6), st.sampled_from([1e-30, 1.0, 1e30, 5e37]))
def test_eight_products_fit_in_16_bits(size, seed, scale):
    weight = torch.randn(size, generator=torch.Generator().manual_seed(seed)).mul_(scale).clamp_(-3e38, 3e38)
    codes, scales = quantize_by_eights(weight)
    met = eights(codes)
    worst = torch.maximum(met.clamp(min=0).sum(-1), met.clamp(max=0).neg().sum(-1))
    assert int(worst.max()) * 127 < 1 << 15
    assert ((codes.double() * scales[:, None].double() - weight.double()).abs() <= scales[:, None].double() * 0.5001).all()
    # and the scale is no larger than it must be: by a code in 258 or in 127, and a rounding or two
    used = torch.maximum(worst.flatten(1).amax(1) / MOST, codes.abs().amax(1) / 127)
    assert (used > 0.96).all()


@given(sizes, st.integers(0, 10**6), st.sampled_from([8, 40, 127]))
def test_parts_sum_to_the_codes_and_fit(size, seed, most):
    codes = torch.randint(-most, most + 1, size, generator=torch.Generator().manual_seed(seed)).to(torch.int8)
    parts, first = pack(codes)
    panels = torch.stack([parts[begin:end].int().sum(0) for begin, end in zip(first[:-1].tolist(), first[1:].tolist(), strict=True)])
    rows = panels.permute(0, 3, 1, 2, 4).reshape(len(panels) * 16, -1)
    assert torch.equal(rows[: size[0], : size[1]], codes.int())
    assert not rows[size[0] :].any()
    assert not rows[:, size[1] :].any()
    for part in parts:
        met = eights(part.permute(2, 0, 1, 3).reshape(16, -1))
        assert int(met.clamp(min=0).sum(-1).max()) <= MOST
        assert int(met.clamp(max=0).neg().sum(-1).max()) <= MOST


@given(sizes, st.integers(0, 10**6), st.sampled_from([8, 40, 127]))
def test_there_and_back(size, seed, most):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-most, most + 1, size, generator=generator).to(torch.int8)
    scales, bias = torch.rand((2, size[0]), generator=generator)
    parts = parts_of(joined(codes, scales, bias), *size)
    assert torch.equal(parts.codes(*size), codes)
    assert torch.equal(parts.sums[: size[0]], codes.sum(1, dtype=torch.int32))
    assert torch.equal(parts.scales[: size[0]], scales)
    assert torch.equal(parts.bias[: size[0]], bias)
    assert parts_of(joined(codes, scales, bias), size[0] + 16, size[1]) is None
    assert parts_of(joined(codes, scales, bias)[1:], *size) is None


def test_panels_have_as_many_parts_as_they_need():
    codes = torch.full((48, 32), 8, dtype=torch.int8)
    codes[16:32] = 60
    codes[32:] = 127
    assert pack(codes).first.tolist() == [0, 1, 3, 7]


def test_all_at_the_limit_takes_four_parts():
    assert pack(torch.full((16, 32), 127, dtype=torch.int8)).first.tolist() == [0, 4]
    assert pack(torch.full((16, 32), -32, dtype=torch.int8)).first.tolist() == [0, 1]
    assert pack(quantize_by_eights(torch.ones(16, 32))[0]).first.tolist() == [0, 1]


def test_nothing_to_round():
    codes, scales = quantize_by_eights(torch.zeros(3, 5))
    assert not codes.any()
    assert scales.tolist() == [1.0, 1.0, 1.0]
    assert quantize_by_eights(torch.zeros(3, 0))[0].shape == (3, 0)
    assert pack(torch.zeros(0, 4, dtype=torch.int8)).parts.shape == (0, 1, 4, 16, 4)


def test_refusals():
    with pytest.raises(CompressRecError, match=r"quantize_by_eights: weight must be \(outputs, inputs\), but float32 \(3\) came"):
        quantize_by_eights(torch.ones(3))
    with pytest.raises(CompressRecError, match="weight must be finite, but nan or inf came"):
        quantize_by_eights(torch.tensor([[1.0, torch.inf]]))
