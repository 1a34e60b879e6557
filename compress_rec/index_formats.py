"""The ways an index can keep its items: what is stored, how it is searched, and how items join and leave it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.int8_items import Int8Items, codes_of, quantized
from compress_rec.int8_panels import ROWS, fit
from compress_rec.int8_panels import pack as pack_codes
from compress_rec.ops.cosine_top_k_int8 import cosine_top_k_int8
from compress_rec.ops.cosine_top_k_panels import cosine_top_k_panels
from compress_rec.panels import packed, unpacked

Stored = Mapping[str, Tensor]
Bounded = tuple[Tensor, Tensor, Tensor]
Searched = tuple[Tensor, Tensor, Tensor | float]  # one bound, or one a score


@dataclass(frozen=True)
class Format:
    """How items are kept and searched. Unit rows are (rows, dimensions) float32 of length 1 or 0; a row that holds NaN is a removed item.

    pack: unit rows → what is stored, by name
    search: (stored, rows, queries, k, exclude, exclude_offsets) → scores and ids as ``cosine_top_k`` gives them, and how far a score
        may lie from the cosine of the given vectors: one number for all, or (queries, k) float32
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
    search: Callable[[Stored, int, Tensor, int, Tensor | None, Tensor | None], Searched]
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


def _search_float32(stored: Stored, rows: int, queries: Tensor, k: int, exclude: Tensor | None, offsets: Tensor | None) -> Searched:
    scores, ids = cosine_top_k_panels(queries, stored["panels"], rows, k, exclude, offsets)
    return scores, ids, float32_bound(queries.shape[1])


def _append_float32(stored: Stored, rows: int, unit: Tensor) -> dict[str, Tensor]:
    return {"panels": _joined(stored["panels"], rows, packed(unit), len(unit), 2)}


def _forget_float32(stored: Stored, ids: Tensor) -> None:
    stored["panels"][ids // ROWS, :, ids % ROWS] = math.nan


def _joined(panels: Tensor, rows: int, more: Tensor, more_rows: int, axis: int) -> Tensor:
    """Return panels of the rows of both, where ``axis`` is that of a panel's 16 rows; the whole panels of the first stay as they are."""
    whole = rows // ROWS
    ends = [part.movedim(axis, 1).flatten(0, 1)[:count] for part, count in ((panels[whole:], rows % ROWS), (more, more_rows))]
    both = torch.cat(ends)
    padded = F.pad(both.flatten(1), (0, 0, 0, -len(both) % ROWS))
    return torch.cat([panels[:whole], padded.view(-1, ROWS, *both.shape[1:]).movedim(1, axis)])


def _int8(with_items: bool) -> Format:
    """Codes with their scales and residuals; with the unit rows beside them, a search is exact."""

    def parts(stored: Stored) -> Int8Items:
        return Int8Items(stored["panels"], stored["sums"], stored["scales"], stored["residuals"])

    def items_of(unit: Tensor) -> dict[str, Tensor]:
        return {"items": unit} if with_items else {}

    def pack(unit: Tensor) -> dict[str, Tensor]:
        return {**quantized(unit)._asdict(), **items_of(unit)}

    def search(stored: Stored, rows: int, queries: Tensor, k: int, exclude: Tensor | None, offsets: Tensor | None) -> Searched:
        found: Searched = cosine_top_k_int8(queries, *parts(stored), stored.get("items"), k, exclude, offsets)
        return found

    def vectors(stored: Stored, rows: int, dimensions: int) -> Tensor:
        return stored["items"] if with_items else codes_of(parts(stored), dimensions) * stored["scales"][:, None]

    def append(stored: Stored, rows: int, unit: Tensor) -> dict[str, Tensor]:
        more = pack(unit)
        panels = _joined(stored["panels"], rows, more.pop("panels"), len(unit), 3)
        return {"panels": panels, **{name: torch.cat([stored[name], tensor]) for name, tensor in more.items()}}

    def forget(stored: Stored, ids: Tensor) -> None:
        for name in ("scales", "items"):
            if name in stored:
                stored[name][ids] = math.nan

    def written(stored: Stored, rows: int, dimensions: int) -> dict[str, Tensor]:
        return {
            **{name: tensor for name, tensor in stored.items() if name not in ("panels", "sums")},
            "codes": codes_of(parts(stored), dimensions),
        }

    def contents(rows: int, dimensions: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        matrix, column = (rows, dimensions), (rows,)
        items = {"items": (torch.float32, matrix)} if with_items else {}
        return {"codes": (torch.int8, matrix), "scales": (torch.float32, column), "residuals": (torch.float32, column), **items}

    def read(held: Stored) -> dict[str, Tensor]:
        if not fit(held["codes"]):  # more than the kernel's 16 bits hold
            raise CompressRecError("codes must be as an index writes them, but larger ones came: save the index again")
        packed_codes = pack_codes(held["codes"])
        return {
            "panels": packed_codes.panels,
            "sums": packed_codes.sums,
            **{name: tensor for name, tensor in held.items() if name != "codes"},
        }

    return Format(
        pack=pack,
        search=search,
        vectors=vectors,
        append=append,
        forget=forget,
        removed=lambda stored, rows: stored["scales"].isnan(),
        written=written,
        contents=contents,
        read=read,
        op="cosine_top_k_int8",
        bytes=5 if with_items else 1,
        exact=with_items,
    )


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
        ),
        "int8": _int8(with_items=True),
        "int8-only": _int8(with_items=False),
    }
)
