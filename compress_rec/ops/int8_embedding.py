"""An embedding table in int8 with a scale a row."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.op import described, op, refuse


def _fake(ids: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    return scales.new_empty((*ids.shape, codes.shape[1]))


@op("int8_embedding(Tensor ids, Tensor codes, Tensor scales) -> Tensor", close="exact", fake=_fake)
def int8_embedding(ids: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """Return the rows ``codes[ids] * scales[ids]``.

    ids: (…) int64 or int32, 0 … rows - 1
    codes: (rows, width) int8
    scales: (rows,) float32
    returns: (…, width) float32

    One product in float32 a number, so every kernel gives the same bits.

    Errors: an id outside the table; shapes or dtypes that do not fit together; inputs that require grad.
    """
    name = "int8_embedding"
    if ids.dtype not in (torch.int64, torch.int32):
        raise refuse(name, "ids", "int64 or int32", described(ids), "convert it with .long()")
    if codes.dtype != torch.int8 or codes.dim() != 2:
        raise refuse(name, "codes", "int8 (rows, width)", described(codes), "quantise the table again")
    if scales.dtype != torch.float32 or scales.shape != codes.shape[:1]:
        wanted = f"float32 ({codes.shape[0]},), one number a row"
        raise refuse(name, "scales", wanted, described(scales), "give the scales of the same table")
    outside = (ids < 0) | (ids >= len(codes))
    if outside.any():
        worst = int(ids[outside][0])
        raise refuse(name, "ids", f"from 0 to {len(codes) - 1}", f"id {worst}", "tokenise with the vocabulary of this table")
    ids = ids.contiguous()
    return codes[ids].float() * scales[ids].unsqueeze(-1)
