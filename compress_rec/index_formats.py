"""The ways an index can keep its items: what is stored, how it is searched, and how items join and leave it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from compress_rec.ops.cosine_top_k_panels import cosine_top_k_panels
from compress_rec.panels import ROWS, packed, unpacked

Stored = Mapping[str, Tensor]
Bounded = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Format:
    """How items are kept and searched. Unit rows are (rows, dimensions) float32 of length 1 or 0; a row that holds NaN is a removed item.

    pack: unit rows → what is stored, by name
    search: (stored, rows, queries, k, exclude, exclude_offsets) → scores and ids as ``cosine_top_k`` gives them, and bounds (queries, k)
        float32: how far a score may lie from the cosine of the given vectors
    vectors: (stored, rows, dimensions) → unit rows, as exactly as the format holds them
    append: (stored, rows, further unit rows) → what is stored then; nothing that was given changes
    forget: (stored, ids) marks these rows removed, in place
    removed: (stored, rows) → (rows,) bool, which are
    written: (stored, rows, dimensions) → what a file holds: rows one behind the other, in the layout of no kernel
    contents: (rows, dimensions) → dtype and shape of each tensor in such a file
    read: the contents of a file → what is stored
    op: the op that serves
    bytes: stored bytes a dimension, without what is stored once a row
    exact: whether scores are those of float32 arithmetic
    """

    pack: Callable[[Tensor], dict[str, Tensor]]
    search: Callable[[Stored, int, Tensor, int, Tensor | None, Tensor | None], Bounded]
    vectors: Callable[[Stored, int, int], Tensor]
    append: Callable[[Stored, int, Tensor], dict[str, Tensor]]
    forget: Callable[[Stored, Tensor], None]
    removed: Callable[[Stored, int], Tensor]
    written: Callable[[Stored, int, int], dict[str, Tensor]]
    contents: Callable[[int, int], dict[str, tuple[torch.dtype, tuple[int, ...]]]]
    read: Callable[[Stored], dict[str, Tensor]]
    op: str
    bytes: int
    exact: bool


def float32_bound(dimensions: int) -> float:
    """Return how far a float32 score may lie from the cosine of the given vectors in exact arithmetic.

    With u = 2^-24 and γ(n) = n·u / (1 - n·u), for which γ(m) + γ(n) + γ(m)·γ(n) ≤ γ(m + n):

    An item is divided by its length in float64 and rounded once, so that it lies within u of its unit vector x, as a vector, apart
    from float64's own errors, 2^29 times smaller. A query of another dtype is so rounded to float32; the op divides what it gets by its
    length (in float64) and rounds again. Division by the length takes no error further: two vectors of which one is a unit vector and
    whose distance is e enclose an angle of sine ≤ e. So the query lies within 2u of its unit vector q, and by Cauchy and Schwarz the
    exact product of what is multiplied within 2u + u·(1 + 2u) ≤ γ(3) of q·x.

    Each of the d products goes through at most d roundings, of the product and of the sums or of a chain of FMAs, in whatever order,
    so the computed sum lies within γ(d) · Σ|q_i·x_i| ≤ γ(d) · |q|·|x| ≤ γ(d) · (1 + γ(3)) of the exact one. Both together are at most
    γ(d + 3). One more u holds float64's errors and numbers below float32's normal ones (2^-149 each), another the rounding of the bound
    itself.

    The reference multiplies with torch's matmul: this holds at its default precision ("highest"), not for TF32 or bfloat16.
    """
    roundings = (dimensions + 5) * 2.0**-24
    return roundings / (1 - roundings)


def _search_float32(stored: Stored, rows: int, queries: Tensor, k: int, exclude: Tensor | None, offsets: Tensor | None) -> Bounded:
    scores, ids = cosine_top_k_panels(queries, stored["panels"], rows, k, exclude, offsets)
    return scores, ids, torch.full_like(scores, float32_bound(queries.shape[1]))


def _append_float32(stored: Stored, rows: int, unit: Tensor) -> dict[str, Tensor]:
    return {"panels": _joined(stored["panels"], rows, unit)}


def _forget_float32(stored: Stored, ids: Tensor) -> None:
    stored["panels"][ids // ROWS, :, ids % ROWS] = math.nan


def _joined(panels: Tensor, rows: int, unit: Tensor) -> Tensor:
    """Return the panels of the old rows and the new: all but the last old one are taken as they are."""
    whole = rows // ROWS
    return torch.cat([panels[:whole], packed(torch.cat([unpacked(panels[whole:], rows % ROWS), unit]))])


FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "float32": Format(
            pack=lambda unit: {"panels": packed(unit)},
            search=_search_float32,
            vectors=lambda stored, rows, dimensions: unpacked(stored["panels"], rows),
            append=_append_float32,
            forget=_forget_float32,
            removed=lambda stored, rows: stored["panels"].isnan().any(dim=1).flatten()[:rows],
            written=lambda stored, rows, dimensions: {"items": unpacked(stored["panels"], rows)},
            contents=lambda rows, dimensions: {"items": (torch.float32, (rows, dimensions))},
            read=lambda held: {"panels": packed(held["items"])},
            op="cosine_top_k_panels",
            bytes=4,
            exact=True,
        )
    }
)
