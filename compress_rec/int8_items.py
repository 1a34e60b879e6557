"""A catalogue in int8, with what was lost of every item: what lets a search in int8 know whom it must look at again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from compress_rec.int8_panels import pack as pack_codes
from compress_rec.int8_panels import trimmed, unpack

LARGEST = 112  # of a code. Below 127, so that four codes seldom leave 16 bits and have to be trimmed, which would cost more than it gains
_BLOCK = 1 << 11  # items quantised at a time, in float64: few enough to stay in the cache


class Int8Items(NamedTuple):
    """Unit vectors as codes and scales: an item is about ``scale * codes``.

    panels: (ceil(items / 16), ceil(dimensions / 8), 2, 16, 4) int8, the codes as ``int8_panels`` lays them out
    sums: (items,) int32: the sum of each item's codes
    scales: (items,) float32; NaN says that the item is removed
    residuals: (items,) float32: at least the length of ``vector - scale * codes``
    """

    panels: Tensor
    sums: Tensor
    scales: Tensor
    residuals: Tensor


def quantized(unit: Tensor) -> Int8Items:
    """Quantise unit vectors (items, dimensions) float32; one that holds NaN counts as removed."""
    blocks = [_quantized(unit[start : start + _BLOCK]) for start in range(0, max(1, len(unit)), _BLOCK)]
    return Int8Items(*(torch.cat(parts) for parts in zip(*blocks, strict=True)))


def codes_of(items: Int8Items, dimensions: int) -> Tensor:
    """Return the codes (items, dimensions) int8."""
    return unpack(items.panels, len(items.sums), dimensions)


def _quantized(unit: Tensor) -> Int8Items:
    removed = unit.isnan().any(dim=1)
    values = unit.double().masked_fill(removed[:, None], 0.0)
    most = values.abs().amax(dim=1) if values.shape[1] else values.new_zeros(len(values))
    scales = torch.where(most == 0, 1.0, most / LARGEST).float()
    codes = trimmed((values / scales.double()[:, None]).round().clamp(-LARGEST, LARGEST).to(torch.int8))
    lost = torch.linalg.vector_norm(values - codes.double() * scales.double()[:, None], dim=1)
    residuals = (lost * (1 + 1e-6)).float()  # rounded up: float32 rounds by less than 1e-7 of it
    packed = pack_codes(codes)
    return Int8Items(packed.panels, packed.sums, scales.masked_fill(removed, float("nan")), residuals)
