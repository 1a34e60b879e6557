"""The int8 panel layout: there and back, and nothing that 16 bits could not hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec.int8_panels import MOST, pack, unpack


def fours(panels: torch.Tensor) -> torch.Tensor:
    """(…, 4): the codes that meet in one 16-bit lane."""
    pairs = panels.to(torch.int64).unflatten(-1, (2, 2))  # (panels, 2 groups, rows, 2 lanes, 2)
    return torch.cat([pairs[:, :, 0], pairs[:, :, 1]], dim=-1)


@settings(max_examples=60, deadline=None)
@given(outputs=st.integers(1, 40), inputs=st.integers(1, 50), spread=st.sampled_from([1, 40, 90, 127]), seed=st.integers(0, 2**20))
def test_there_and_back(outputs: int, inputs: int, spread: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-spread, spread + 1, (outputs, inputs), dtype=torch.int8, generator=generator)
    packed = pack(codes)
    assert torch.equal(unpack(packed, inputs), codes)
    assert torch.equal(packed.sums, codes.sum(1, dtype=torch.int32))
    lanes = fours(packed.panels)
    for part in (lanes.clamp(min=0), lanes.clamp(max=0)):
        assert int((127 * part.sum(-1)).abs().max()) <= 32766


def test_by_hand() -> None:
    """Row 1's first lane holds 127 + 127 of the first group and 127 + 127 of the second: the second pair moves, and nothing else does."""
    codes = torch.ones((17, 9), dtype=torch.int8)
    codes[1, :8] = 127
    packed = pack(codes)
    assert packed.panels.shape == (2, 2, 2, 16, 4)
    assert packed.panels[0, 0, 1, 1].tolist() == [0, 0, 0, 0]
    assert packed.panels[0, 0, 1, 0].tolist() == [1, 1, 1, 1]
    assert packed.extra.shape == (1, 16, 4)
    assert packed.extra[0, 1].tolist() == [127] * 4
    assert int(packed.extra.abs().sum()) == 4 * 127
    assert packed.where.tolist() == [0, 1, 1, 0]
    assert MOST == 258


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_codes_need_an_extra_for_every_step(sign: int) -> None:
    packed = pack(torch.full((16, 32), sign * 127, dtype=torch.int8))
    assert len(packed.extra) == packed.panels.shape[1] == 4


def test_gaussian_weights_need_few_extras() -> None:
    codes = (torch.randn((256, 384), generator=torch.Generator().manual_seed(0)) * 42).round().clamp(-127, 127).to(torch.int8)
    packed = pack(codes)
    lost = int((packed.extra != 0).any(-1).sum()) / (codes.numel() / 4)
    assert 0 < lost < 0.01
