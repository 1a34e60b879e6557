"""The panel layout of int8 searches: there and back, and nothing that 16 bits could not hold."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec.int8_panels import MOST, fit, pack, trimmed, unpack


def fours(panels: torch.Tensor) -> torch.Tensor:
    """(…, 4): the codes that meet in one 16-bit lane."""
    pairs = panels.to(torch.int64).unflatten(-1, (2, 2))  # (panels, 2 groups, rows, 2 lanes, 2)
    return torch.cat([pairs[:, :, 0], pairs[:, :, 1]], dim=-1)


def largest(codes: torch.Tensor) -> int:
    """The largest sum of the positive codes among four that meet, or of the negative ones."""
    lanes = fours(pack(codes).panels)
    return max(int(part.sum(-1).abs().max()) for part in (lanes.clamp(min=0), lanes.clamp(max=0)))


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 50), spread=st.sampled_from([1, 40, 90, 127]), seed=st.integers(0, 2**20))
def test_there_and_back(rows: int, columns: int, spread: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(-spread, spread + 1, (rows, columns), dtype=torch.int8, generator=generator)
    packed = pack(codes)
    assert torch.equal(unpack(packed.panels, rows, columns), codes)
    assert torch.equal(packed.sums, codes.sum(1, dtype=torch.int32))
    assert fit(codes) == (largest(codes) * 127 <= 32766)
    less = trimmed(codes)
    assert fit(less)
    assert ((less.abs() <= codes.abs()) & (less.int() * codes >= 0)).all()
    assert torch.equal(less, codes) == fit(codes)


def test_by_hand() -> None:
    """Row 1's first lane holds 127 + 127 of the first group and 127 + 127 of the second, which becomes 64 of each."""
    codes = torch.ones((17, 9), dtype=torch.int8)
    codes[1, :8] = 127
    assert pack(codes).panels.shape == (2, 2, 2, 16, 4)
    assert pack(codes).panels[0, 0, 1, 1].tolist() == [127] * 4
    assert not fit(codes)
    less = trimmed(codes)
    assert less[1].tolist() == [64] * 8 + [1]
    assert torch.equal(less[torch.arange(17) != 1], codes[torch.arange(17) != 1])
    assert MOST == 258
