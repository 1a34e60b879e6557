"""A matrix that is mostly zeros, stored as a bit a place and the values where the bit is set."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError


def sparse_tensors(weight: Tensor, place: str) -> dict[str, Tensor]:
    """Store the non-zero places of (outputs, inputs) float32 as a bitmask and values, as the format ``Sparse`` has them."""
    kept = weight.detach() != 0
    mask = torch.from_numpy(np.packbits(kept.cpu().numpy().reshape(-1)))
    extent = torch.tensor(weight.shape, dtype=torch.int32)
    return {f"{place}.mask": mask, f"{place}.values": weight.detach()[kept], f"{place}.extent": extent}


def unpack_sparse(mask: Tensor, values: Tensor, extent: Tensor) -> Tensor:
    """Undo ``sparse_tensors``: (outputs, inputs) float32."""
    rows, columns = (int(size) for size in extent)
    kept = torch.from_numpy(np.unpackbits(mask.cpu().numpy(), count=rows * columns).astype(bool))
    if int(kept.sum()) != values.numel():
        raise CompressRecError(
            f"a sparse weight holds {values.numel()} values for {int(kept.sum())} set bits: the file is damaged, save the model again"
        )
    weight = torch.zeros(rows * columns, dtype=values.dtype)
    weight[kept] = values.cpu()
    return weight.reshape(rows, columns)
