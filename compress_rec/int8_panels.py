"""The layout that int8 searches read: codes in panels of 16 rows and steps of eight columns, of which 16 bits hold four products.

Only the cosine index uses it: ``cosine_top_k_int8`` multiplies a query's levels of 0 … 127 by signed codes and adds four products, those
of two columns of a step's first group of four and of the two below them in its second, in 16 bits. They fit as long as the positive codes
among such four sum to at most 258, and so do the negative ones; ``trimmed`` makes codes smaller where they do not. Layers add eight
products and choose their scales for it, see ``int8_eights``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, GROUP = 16, 4
MOST = (1 << 15) // 127  # of the positive codes of four, and of the negative ones: 127 · 258 = 32766


class Int8Panels(NamedTuple):
    """Codes (rows, columns) as the kernel reads them.

    panels: (ceil(rows / 16), ceil(columns / 8), 2, 16, 4) int8: panel, step, group, row, column of the group
    sums: (rows,) int32: the sum of each row's codes, by which a query's zero point counts
    """

    panels: Tensor
    sums: Tensor


def pack(codes: Tensor) -> Int8Panels:
    """Pack codes (rows, columns) int8 that ``fit``."""
    return Int8Panels(_laid_out(codes), codes.sum(1, dtype=torch.int32))


def fit(codes: Tensor) -> bool:
    """Return whether no four codes that meet can leave 16 bits."""
    return not bool(_overflowing(_laid_out(codes)).any())


def unpack(panels: Tensor, rows: int, columns: int) -> Tensor:
    """Return the codes (rows, columns) int8 that ``pack`` was given."""
    whole = panels.permute(0, 3, 1, 2, 4).reshape(len(panels) * ROWS, panels.shape[1] * 2 * GROUP)
    return whole[:rows, :columns].contiguous()


def trimmed(codes: Tensor) -> Tensor:
    """Return codes (rows, columns) int8 that ``fit``: those that meet in 16 bits are made smaller where need be."""
    broken = _overflowing(_laid_out(codes)).any(-1).any(1).flatten()[: len(codes)].nonzero()[:, 0]  # few, so that the rest costs little
    if not len(broken):
        return codes
    panels = _laid_out(codes[broken])
    signed = panels.to(torch.int32).unflatten(-1, (2, 2))  # (panels, steps, 2, 16, 2, 2)
    kept = torch.zeros_like(signed)
    for part in (signed.clamp(min=0), signed.clamp(max=0)):
        four = part.sum(-1, keepdim=True).sum(2, keepdim=True).abs()
        kept += torch.where(four > MOST, torch.div(part * MOST, four.clamp(min=1), rounding_mode="trunc"), part)
    rows = kept.flatten(-2).to(torch.int8).permute(0, 3, 1, 2, 4).reshape(len(panels) * ROWS, panels.shape[1] * 2 * GROUP)
    return codes.index_put((broken,), rows[: len(broken), : codes.shape[1]])


def _laid_out(codes: Tensor) -> Tensor:
    padded = F.pad(codes, (0, -codes.shape[1] % (2 * GROUP), 0, -codes.shape[0] % ROWS))
    return padded.view(padded.shape[0] // ROWS, ROWS, padded.shape[1] // (2 * GROUP), 2, GROUP).permute(0, 2, 3, 1, 4).contiguous()


def _overflowing(panels: Tensor) -> Tensor:
    """Return (panels, steps, 16, 2) bool: the pairs of the second group that 16 bits might not hold together with those of the first."""
    signed = panels.to(torch.int16)

    def four(part: Tensor) -> Tensor:
        pairs = part[..., 0::2] + part[..., 1::2]
        return pairs[:, :, 0] + pairs[:, :, 1]

    return (four(signed.clamp(min=0)) > MOST) | (four(signed.clamp(max=0)) < -MOST)
