"""How the cases of an op are written down, and the tensors they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def strided(tensor: Tensor) -> Tensor:
    """The same values with gaps between them in memory."""
    wide = torch.stack([tensor, torch.full_like(tensor, 77)], dim=-1)
    return wide[..., 0]


def along_axes(axes: list[int], width: int) -> Tensor:
    """Queries along axes, so that every product with whole numbers is exact and many items tie."""
    return torch.nn.functional.one_hot(torch.tensor(axes), width).float() * 7


def assert_the_full_ranking(
    scores: Tensor, ids: Tensor, items: Tensor, axes: list[int], k: int, left_out: Sequence[Collection[int]]
) -> None:
    """The k best of ``items`` along each axis, ties and all, without those left out of that query; -1 and -inf behind them."""
    for row, axis in enumerate(axes):
        allowed = [i for i in range(len(items)) if i not in left_out[row]]
        wanted = sorted(allowed, key=lambda i, axis=axis: (-float(items[i, axis]), i))[:k]
        missing = k - len(wanted)
        assert ids[row].tolist() == wanted + [-1] * missing
        assert scores[row].tolist() == [float(items[i, axis]) for i in wanted] + [-math.inf] * missing


@dataclass(frozen=True)
class Owed:
    """The cases of one op: arguments, the float64 run to compare with, and refusals with their exact sentences."""

    cases: Mapping[str, Callable[[], tuple[Any, ...]]]
    precise: Callable[..., Tensor]
    refusals: Mapping[str, tuple[Callable[[], tuple[Any, ...]], str]] = field(default_factory=dict)
