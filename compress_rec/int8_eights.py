"""Codes whose products fit in 16 bits by eights, and the layout that the encoder's int8 kernel reads.

A kernel multiplies activations of 0 … 127 by signed codes and adds eight products in 16 bits: in a step of 16 columns, of every four the
first two, or of every four the last two. They fit as long as the positive codes among such eight sum to at most 258, and so do the negative
ones (127 · 258 = 32766). ``quantize_by_eights`` chooses an output's scale so that they do: no code is clipped and none is kept aside, at a
scale that is about a fifth larger for Gaussian weights. Codes of another origin are split into two or four parts that fit, and then take as
many times as long.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from compress_rec.op import described, refuse

ROWS, STEP, GROUP = 16, 16, 4
MOST = (1 << 15) // 127  # of the positive codes of eight, and of the negative ones


class Eights(NamedTuple):
    """Codes (outputs, inputs) as the kernel reads them.

    parts: (parts, ceil(inputs / 16), 4, 16, 4) int8: part, step, group, row, column of the group
    first: (ceil(outputs / 16) + 1,) int32: panel p is the sum of the parts ``first[p] … first[p + 1] - 1``
    """

    parts: Tensor
    first: Tensor


def quantize_by_eights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to int8, symmetrically, with the smallest scale an output at which eight products fit in 16 bits.

    weight: (outputs, inputs) any floating dtype
    returns: codes (outputs, inputs) int8 in -127 … 127, scales (outputs,) float32, such that ``codes * scales[:, None]`` is within half a
        scale of the weight; an output of zeros has scale 1

    Errors: NaN or infinity in the weight.
    """
    if weight.dim() != 2:
        raise refuse("quantize_by_eights", "weight", "(outputs, inputs)", described(weight), "reshape it")
    values = weight.detach().float()
    if not torch.isfinite(values).all():
        raise refuse("quantize_by_eights", "weight", "finite", "nan or inf", "repair the weights first")
    if not values.numel():
        return values.to(torch.int8), values.new_ones(len(values))
    scales = torch.maximum(values.abs().amax(1) / 127, _largest_eight(values) / MOST)
    # a scale so small that dividing by it overflows stands for a weight that is zero for every purpose
    scales = torch.where(scales < torch.finfo(torch.float32).tiny, 1.0, scales)
    while True:
        codes = torch.round(values / scales[:, None]).clamp_(-127, 127)
        over = _largest_eight(codes) / MOST
        if not bool((over > 1).any()):
            return codes.to(torch.int8), scales
        # rounding took some over the edge, by a code or two; 1 in 4096 more at least, so that it ends
        scales = scales * torch.where(over > 1, over.clamp(min=1 + 2.0**-12), 1.0)


def pack(codes: Tensor) -> Eights:
    """Pack codes (outputs, inputs) int8, -127 … 127."""
    padded = F.pad(codes, (0, -codes.shape[1] % STEP, 0, -codes.shape[0] % ROWS))
    panels = padded.view(padded.shape[0] // ROWS, ROWS, padded.shape[1] // STEP, STEP // GROUP, GROUP).permute(0, 2, 3, 1, 4)
    parts, first = [], [0]
    for panel in panels:  # (steps, 4, 16, 4)
        split = next(found for number in (1, 2, 4) if _fits(found := _split(panel, number)))
        parts.append(split)
        first.append(first[-1] + len(split))
    whole = torch.cat(parts) if parts else panels.new_zeros(0, *panels.shape[1:])
    return Eights(whole.contiguous(), torch.tensor(first, dtype=torch.int32))


def _largest_eight(values: Tensor) -> Tensor:
    """(outputs, inputs) float32 -> (outputs,): the largest sum of the positive ones among eight that meet, or of the negative ones."""
    groups = F.pad(values, (0, -values.shape[1] % STEP)).view(len(values), -1, STEP // GROUP, 2, 2)
    sides = torch.stack([groups.clamp(min=0), groups.clamp(max=0).neg()])
    return sides.sum((3, 5)).flatten(2).amax(2).amax(0)


def _split(panel: Tensor, number: int) -> Tensor:
    """Return (number, steps, 4, 16, 4) int8 that sum to the panel: floor((c + i) / n) over i = 0 … n - 1 is c for every whole c."""
    wide = panel.to(torch.int16)
    return torch.stack([torch.div(wide + part, number, rounding_mode="floor").to(torch.int8) for part in range(number)])


def _fits(parts: Tensor) -> bool:
    pairs = parts.to(torch.int32).unflatten(-1, (2, 2))  # (parts, steps, 4, 16, 2, 2)
    return all(int(side.sum((2, 5)).max()) <= MOST for side in (pairs.clamp(min=0), pairs.clamp(max=0).neg()) if side.numel())
