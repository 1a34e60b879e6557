"""The catalogues that searches are clocked on: Gaussian, clustered, and embeddings of real texts; width 384, unit length."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from bench import real

WIDTH = 384
CLUSTERS, SPREAD = 200, 0.5
KINDS = ("gaussian", "clustered", "real")
_BLOCK = 100_000


def items(kind: str, count: int) -> Tensor:
    """Return (count, 384) unit vectors float32. Errors: ``real.NotThere`` where real ones of that count cannot be had."""
    if kind == "real":
        return real.vectors(_real_catalogue(count))
    return _drawn(kind, count, seed=0)


def queries(kind: str, count: int) -> Tensor:
    """Return (count, 384) unit vectors float32, none of them an item."""
    return real.vectors("queries")[:count] if kind == "real" else _drawn(kind, count, seed=1)


def _real_catalogue(count: int) -> str:
    for name, there in (("large", real.LARGE), ("small", 1_682)):
        if count == there:
            return name
    raise real.NotThere(f"there are no {count} real texts: the catalogues have {real.LARGE} and 1682")


def _drawn(kind: str, count: int, seed: int) -> Tensor:
    """Gaussian directions, the worst case for a threshold, or 200 clusters: a cosine of about 0.8 within one, 0 between two."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn((CLUSTERS, WIDTH), generator=torch.Generator().manual_seed(7))
    found = torch.empty(count, WIDTH)
    for start in range(0, count, _BLOCK):  # a million at a time would double the memory
        rows = found[start : start + _BLOCK]
        rows.normal_(generator=generator)
        if kind == "clustered":
            rows.mul_(SPREAD).add_(centres[torch.randint(0, CLUSTERS, (len(rows),), generator=generator)])
        rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True))
    return found


def memory_available() -> float:
    """Return the bytes that can be had without swapping; without end where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return float("inf")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), float("inf"))
