"""The k items nearest to each query by cosine, from a catalogue in int8: exact where the vectors are kept beside it."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.int8_items import Int8Items, codes_of
from compress_rec.int8_panels import GROUP, ROWS
from compress_rec.op import described, op, refuse
from compress_rec.ops.cosine_top_k import check_exclusions, check_sizes, check_vectors, ranked, unit

_NAME = "cosine_top_k_int8"
_QUANTISE = "quantise the items with compress_rec.int8_items.quantized"
# of the query (twice, where an index converted it first), of the item and of the score to float32: at most 2^-24 each, and room for their
# products
ROUNDING = 5 * 2.0**-24


def _fake(
    queries: Tensor,
    panels: Tensor,
    sums: Tensor,
    scales: Tensor,
    residuals: Tensor,
    items: Tensor | None,
    k: int,
    exclude: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64), queries.new_empty(shape)


@op(
    "cosine_top_k_int8(Tensor queries, Tensor panels, Tensor sums, Tensor scales, Tensor residuals, Tensor? items, int k,"
    " Tensor? exclude=None, Tensor? exclude_offsets=None) -> (Tensor scores, Tensor ids, Tensor bounds)",
    close="twice",
    fake=_fake,
)
def cosine_top_k_int8(
    queries: Tensor,
    panels: Tensor,
    sums: Tensor,
    scales: Tensor,
    residuals: Tensor,
    items: Tensor | None,
    k: int,
    exclude: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rank all items that are left for every query by cosine and return the best k.

    queries: (queries, dimensions) float32, of any length; they are normalised in float64
    panels, sums, scales, residuals: the catalogue in int8, as ``Int8Items`` describes it; removed items are never returned
    items: (items, dimensions) float32, the unit vectors that were quantised, or ``None``
    k, exclude, exclude_offsets: as ``cosine_top_k`` takes them

    returns: scores (queries, k) float32, falling; ids (queries, k) int64; bounds (queries, k) float32. Equal scores are ordered by the
        smaller id. Where fewer than k items remain, the tail has id -1 and score -inf.

    With ``items`` the result is exact: a score is the product of the unit vectors in float64, rounded to float32 once, and no item left
    out has a larger one. A kernel screens in int8 and scores only those whose upper bound, with all roundings in it, reaches the k-th
    best. Without ``items``, ``scale * codes`` stands for the vector: scores and order are those of the codes, and a score lies within
    ``bounds`` of the cosine.

    Errors: NaN or infinity in queries; k below 1 or above the items; excluded ids outside the catalogue; inputs that require grad.
    """
    check_vectors(_NAME, "queries", queries)
    width, count = queries.shape[1], sums.numel()
    if sums.dtype != torch.int32 or sums.dim() != 1:
        raise refuse(_NAME, "sums", "int32 (items,)", described(sums), _QUANTISE)
    shape = (-(-count // ROWS), -(-width // (2 * GROUP)), 2, ROWS, GROUP)
    if panels.dtype != torch.int8 or panels.shape != shape:
        wanted = f"int8 ({', '.join(map(str, shape))})"
        raise refuse(_NAME, "panels", wanted, described(panels), "encode both with the same recommender")
    for argument, values in (("scales", scales), ("residuals", residuals)):
        if values.dtype != torch.float32 or values.shape != (count,):
            raise refuse(_NAME, argument, f"float32 ({count},), one number an item", described(values), _QUANTISE)
    if items is not None and (items.dtype != torch.float32 or items.shape != (count, width)):
        raise refuse(_NAME, "items", f"float32 ({count}, {width})", described(items), "give the vectors that were quantised")
    check_sizes(_NAME, "panels", queries, width, count, k)
    check_exclusions(_NAME, len(queries), count, exclude, exclude_offsets)
    removed = scales.isnan()
    if items is None:
        codes = codes_of(Int8Items(panels, sums, scales, residuals), width)
        offered = codes.double() * scales.double().masked_fill(removed, 0.0)[:, None]
    else:
        offered = items.double().masked_fill(removed[:, None], 0.0)
    scores, ids = ranked(unit(_NAME, "queries", queries).double(), offered, k, exclude, exclude_offsets, removed)
    lost = residuals[ids.clamp(min=0)].masked_fill(ids < 0, 0.0) if items is None else torch.zeros_like(scores)
    return scores, ids, lost + ROUNDING
