"""How the cases of an op are written down, and the tensors they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True)
class Owed:
    """The cases of one op: arguments, the float64 run to compare with, and refusals with their exact sentences."""

    cases: Mapping[str, Callable[[], tuple[Any, ...]]]
    precise: Callable[..., Tensor]
    refusals: Mapping[str, tuple[Callable[[], tuple[Any, ...]], str]] = field(default_factory=dict)
