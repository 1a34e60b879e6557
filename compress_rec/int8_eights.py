"""Codes whose products fit in 16 bits by eights, and the layout that the int8 kernels of layers and encoders read.

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

from compress_rec.rounding import usable, weight_to_round

ROWS, STEP, GROUP = 16, 16, 4
MOST = (1 << 15) // 127  # of the positive codes of eight, and of the negative ones


class Eights(NamedTuple):
    """Codes (outputs, inputs) as the kernel reads them.

    parts: (parts, ceil(inputs / 16), 4, 16, 4) int8: part, step, group, row, column of the group
    first: (ceil(outputs / 16) + 1,) int32: panel p is the sum of the parts ``first[p] … first[p + 1] - 1``
    """

    parts: Tensor
    first: Tensor


class Int8Parts(NamedTuple):
    """All that a layer multiplies with, each a view of one tensor that ``joined`` makes: a call then hands over that one.

    What there is once an output fills whole panels; what lies behind the last output counts for nothing.

    parts, first: as in ``Eights``
    sums: (panels · 16,) int32: the sum of each output's codes, by which a row's zero point counts
    scales, bias: (panels · 16,) float32; a bias of -0.0, which changes no number, where there is none
    """

    parts: Tensor
    sums: Tensor
    scales: Tensor
    bias: Tensor
    first: Tensor

    def codes(self, outputs: int, inputs: int) -> Tensor:
        """Return the codes (outputs, inputs) int8."""
        owners = torch.arange(len(self.first) - 1, device=self.parts.device).repeat_interleave(self.first.diff())
        panels = self.parts.new_zeros(len(self.first) - 1, *self.parts.shape[1:]).index_add_(0, owners, self.parts)
        rows = panels.permute(0, 3, 1, 2, 4).reshape(len(panels) * ROWS, panels.shape[1] * STEP)
        return rows[:outputs, :inputs].contiguous()


def quantize_by_eights(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight to int8, symmetrically, with the smallest scale an output at which eight products fit in 16 bits.

    weight: (outputs, inputs) any floating dtype
    returns: codes (outputs, inputs) int8 in -127 … 127, scales (outputs,) float32, such that ``codes * scales[:, None]`` is within half a
        scale of the weight; an output of zeros has scale 1

    Errors: NaN or infinity in the weight.
    """
    values = weight_to_round("quantize_by_eights", weight)
    if not values.numel():
        return values.to(torch.int8), values.new_ones(len(values))
    scales = usable(torch.maximum(values.abs().amax(1) / 127, _largest_eight(values / MOST)))
    while True:
        codes = torch.round(values / scales[:, None]).clamp_(-127, 127)
        over = _largest_eight(codes) / MOST  # whole numbers, so that the comparison is exact
        if not bool((over > 1).any()):
            return codes.to(torch.int8), scales
        # rounding took some over the edge, by a code or two; 1 in 4096 more at least, so that it ends
        scales = scales * torch.where(over > 1, over.clamp(min=1 + 2.0**-12), 1.0)


def pack(codes: Tensor) -> Eights:
    """Pack codes (outputs, inputs) int8, -127 … 127."""
    padded = F.pad(codes, (0, -codes.shape[1] % STEP, 0, -codes.shape[0] % ROWS))
    panels = padded.view(padded.shape[0] // ROWS, ROWS, padded.shape[1] // STEP, STEP // GROUP, GROUP).permute(0, 2, 3, 1, 4)
    fit = _fit(panels)
    if bool(fit.all()):
        return Eights(panels.contiguous(), torch.arange(len(panels) + 1, dtype=torch.int32, device=codes.device))
    parts = []
    for panel, whole in zip(panels, fit.tolist(), strict=True):  # (steps, 4, 16, 4)
        parts.append(panel[None] if whole else next(found for number in (2, 4) if bool(_fit(found := _split(panel, number)).all())))
    first = torch.tensor([0, *map(len, parts)], device=codes.device).cumsum(0)
    return Eights(torch.cat(parts).contiguous(), first.to(torch.int32))


def joined(codes: Tensor, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """Pack codes and lay what ``Int8Parts`` holds one behind the other, in its order and with nothing between: (numbers,) int32.

    codes: (outputs, inputs) int8, -127 … 127; scales, bias: (outputs,) float32
    """
    parts, first = pack(codes)
    room = (0, -len(scales) % ROWS)
    none = torch.full_like(scales, -0.0) if bias is None else bias
    once = [F.pad(one.contiguous().view(torch.int32), room) for one in (codes.sum(1, dtype=torch.int32), scales, none)]
    return torch.cat([parts.reshape(-1).view(torch.int32), *once, first])


def parts_of(layer: Tensor, outputs: int, inputs: int) -> Int8Parts | None:
    """Return the parts of what ``joined`` made of a weight (outputs, inputs), or ``None`` where it is plain that it did not."""
    panels, steps = -(-outputs // ROWS), -(-inputs // STEP)
    part = steps * ROWS * STEP // 4  # numbers of four codes each
    codes = layer.numel() - (3 * ROWS + 1) * panels - 1
    number = codes // part if steps else panels
    if layer.dtype != torch.int32 or layer.dim() != 1 or codes != number * part or not panels <= number <= 4 * panels:
        return None
    held = layer.contiguous().split([codes, ROWS * panels, ROWS * panels, ROWS * panels, panels + 1])
    first = held[4]
    if int(first[0]) != 0 or int(first[-1]) != number or not bool((first.diff() > 0).all()):
        return None
    return Int8Parts(
        parts=held[0].view(torch.int8).view(number, steps, STEP // GROUP, ROWS, GROUP),
        sums=held[1],
        scales=held[2].view(torch.float32),
        bias=held[3].view(torch.float32),
        first=first,
    )


def _largest_eight(values: Tensor) -> Tensor:
    """(outputs, inputs) float32 -> (outputs,): the largest sum of the positive ones among eight that meet, or of the negative ones."""
    groups = F.pad(values, (0, -values.shape[1] % STEP)).view(len(values), -1, STEP // GROUP, 2, 2)
    sides = torch.stack([groups.clamp(min=0), groups.clamp(max=0).neg()])
    return sides.sum((3, 5)).flatten(2).amax(2).amax(0)


def _split(panel: Tensor, number: int) -> Tensor:
    """Return (number, steps, 4, 16, 4) int8 that sum to the panel: floor((c + i) / n) over i = 0 … n - 1 is c for every whole c."""
    wide = panel.to(torch.int16)
    return torch.stack([torch.div(wide + part, number, rounding_mode="floor").to(torch.int8) for part in range(number)])


def _fit(panels: Tensor) -> Tensor:
    """(panels, steps, 4, 16, 4) int8 -> (panels,) bool: whether no eight of a panel that meet can leave 16 bits."""
    pairs = panels.to(torch.int16).unflatten(-1, (2, 2))  # (panels, steps, 4, 16, 2, 2)
    if not pairs.numel():
        return torch.ones(len(panels), dtype=torch.bool, device=panels.device)
    sides = [side.sum((2, 5)).flatten(1).amax(1) for side in (pairs.clamp(min=0), pairs.clamp(max=0).neg())]
    return torch.maximum(*sides) <= MOST
