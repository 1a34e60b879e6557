"""The layout that the float kernels read: a matrix in panels of 16 rows, the columns of a panel one behind the other."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

ROWS = 16  # what csrc/cpu/fma_tile_avx2.h calls kPanelColumns: a panel's rows are the columns of the product


def packed(matrix: Tensor) -> Tensor:
    """Return a matrix (rows, columns) in panels (ceil(rows / 16), columns, 16) of the same dtype, zeros behind the last row."""
    rows, columns = matrix.shape
    padded = F.pad(matrix, (0, 0, 0, -rows % ROWS))
    return padded.view(len(padded) // ROWS, ROWS, columns).transpose(1, 2).contiguous()


def unpacked(panels: Tensor, rows: int) -> Tensor:
    """Return the first ``rows`` rows (rows, columns) of what ``packed`` made."""
    return panels.transpose(1, 2).flatten(0, 1)[:rows]
