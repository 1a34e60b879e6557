"""The layout that the int8 kernels read: codes in panels of 16 rows and steps of eight columns, so packed that 16 bits hold four products.

A kernel multiplies activations of 0 … 127 by signed codes and adds four products, those of two columns of a step's first group of four and
of the two below them in its second, in 16 bits. Where the positive codes among such four sum to more than 258, or the negative ones, the
two of the second group are taken out and kept aside as ``extra``: nothing is ever clipped. Of Gaussian weights that is about one group in
500; of codes that are all 127 it is every one, and the kernel then takes twice the time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

ROWS, GROUP = 16, 4
MOST = (1 << 15) // 127  # of the positive codes of four, and of the negative ones: 127 · 258 = 32766


class Int8Panels(NamedTuple):
    """Codes (outputs, inputs) as the kernels read them.

    panels: (ceil(outputs / 16), ceil(inputs / 8), 2, 16, 4) int8: panel, step, group, row, column of the group
    extra: (extras, 16, 4) int8: what was taken out of a second group
    where: (ceil(outputs / 16) + 1 + extras,) int32: panel p owns the extras ``where[p] … where[p + 1] - 1``; then the step of each extra
    sums: (outputs,) int32: the sum of each output's codes, by which a row's zero point counts
    """

    panels: Tensor
    extra: Tensor
    where: Tensor
    sums: Tensor


class Int8Parts(NamedTuple):
    """All that a layer multiplies with, each part a view of one tensor that ``joined`` makes: a call then hands over that one.

    What there is once an output fills whole panels; what lies behind the last output counts for nothing.

    panels, where, extra: as in ``Int8Panels``
    sums: (panels · 16,) int32
    scales, bias: (panels · 16,) float32; a bias of -0.0, which changes no number, where there is none
    """

    panels: Tensor
    sums: Tensor
    scales: Tensor
    bias: Tensor
    where: Tensor
    extra: Tensor

    def codes(self, outputs: int, inputs: int) -> Tensor:
        """Return the codes (outputs, inputs) int8."""
        return unpack(Int8Panels(self.panels, self.extra, self.where, self.sums[:outputs]), inputs)


def pack(codes: Tensor) -> Int8Panels:
    """Pack codes (outputs, inputs) int8, -127 … 127."""
    panels = _laid_out(codes)
    broken = _overflowing(panels)
    owners, steps = broken.flatten(2).any(2).nonzero(as_tuple=True)  # by panel, then by step
    taken = panels[:, :, 1] * broken.repeat_interleave(2, dim=-1)
    extra = taken[owners, steps]
    panels[:, :, 1] -= taken
    first = F.pad(torch.bincount(owners, minlength=len(panels)).cumsum(0), (1, 0))
    where = torch.cat([first, steps]).to(torch.int32)
    return Int8Panels(panels, extra, where, codes.sum(1, dtype=torch.int32))


def joined(packed: Int8Panels, scales: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the parts of ``Int8Parts`` one behind the other, in its order and with nothing between them: (numbers,) int32.

    scales, bias: (outputs,) float32
    """
    room = (0, -len(scales) % ROWS)
    none = torch.full_like(scales, -0.0) if bias is None else bias
    once = [F.pad(part.contiguous().view(torch.int32), room) for part in (packed.sums, scales, none)]
    return torch.cat([packed.panels.reshape(-1).view(torch.int32), *once, packed.where, packed.extra.reshape(-1).view(torch.int32)])


def parts_of(layer: Tensor, outputs: int, inputs: int) -> Int8Parts | None:
    """Return the parts of what ``joined`` made of a weight (outputs, inputs), or ``None`` where its size says that it did not."""
    panels, steps = -(-outputs // ROWS), -(-inputs // (2 * GROUP))
    codes = panels * steps * 2 * ROWS  # numbers of four codes each
    extras, odd = divmod(layer.numel() - codes - (3 * ROWS + 1) * panels - 1, ROWS + 1)
    if layer.dtype != torch.int32 or layer.dim() != 1 or extras < 0 or odd:
        return None
    parts = layer.contiguous().split([codes, ROWS * panels, ROWS * panels, ROWS * panels, panels + 1 + extras, ROWS * extras])
    shape = (panels, steps, 2, ROWS, GROUP)
    return Int8Parts(
        panels=parts[0].view(torch.int8).view(shape),
        sums=parts[1],
        scales=parts[2].view(torch.float32),
        bias=parts[3].view(torch.float32),
        where=parts[4],
        extra=parts[5].view(torch.int8).view(extras, ROWS, GROUP),
    )


def unpack(packed: Int8Panels, inputs: int) -> Tensor:
    """Return the codes (outputs, inputs) int8 that ``pack`` was given."""
    panels = packed.panels.clone()
    first, steps = packed.where[: len(panels) + 1].long(), packed.where[len(panels) + 1 :].long()
    panels[torch.arange(len(panels)).repeat_interleave(first.diff()), steps, 1] += packed.extra
    rows = panels.permute(0, 3, 1, 2, 4).reshape(len(panels) * ROWS, panels.shape[1] * 2 * GROUP)
    return rows[: len(packed.sums), :inputs].contiguous()


def trimmed(codes: Tensor) -> Tensor:
    """Return codes (outputs, inputs) int8 of which ``pack`` keeps none aside: those that meet in 16 bits are made smaller where need be."""
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
    outputs, inputs = codes.shape
    padded = F.pad(codes, (0, -inputs % (2 * GROUP), 0, -outputs % ROWS))
    return padded.view(padded.shape[0] // ROWS, ROWS, padded.shape[1] // (2 * GROUP), 2, GROUP).permute(0, 2, 3, 1, 4).contiguous()


def _overflowing(panels: Tensor) -> Tensor:
    """Return (panels, steps, 16, 2) bool: the pairs of the second group that 16 bits might not hold together with those of the first."""
    signed = panels.to(torch.int16)

    def four(part: Tensor) -> Tensor:
        pairs = part[..., 0::2] + part[..., 1::2]
        return pairs[:, :, 0] + pairs[:, :, 1]

    return (four(signed.clamp(min=0)) > MOST) | (four(signed.clamp(max=0)) < -MOST)
