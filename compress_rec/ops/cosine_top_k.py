"""The k items nearest to each query by cosine, without those each query has already seen."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.op import described, op, refuse

_BLOCK_SCORES = 1 << 22  # scores the reference holds at a time: 16 MB of floats, 32 MB of keys
_MOST_ITEMS = (1 << 31) - 1
_NAME = "cosine_top_k"


def _fake(
    queries: Tensor,
    items: Tensor,
    k: int,
    exclude: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
    normalised: bool = False,
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)


@op(
    "cosine_top_k(Tensor queries, Tensor items, int k, Tensor? exclude=None, Tensor? exclude_offsets=None, bool normalised=False)"
    " -> (Tensor scores, Tensor ids)",
    close="twice",
    fake=_fake,
)
def cosine_top_k(
    queries: Tensor,
    items: Tensor,
    k: int,
    exclude: Tensor | None = None,
    exclude_offsets: Tensor | None = None,
    normalised: bool = False,
) -> tuple[Tensor, Tensor]:
    """Rank all items for every query by cosine and return the best k.

    queries: (queries, dimensions) float32, of any length
    items: (items, dimensions) float32, of any length
    k: how many to return, 1 … items
    exclude: (excluded,) int64, item ids that must not be returned: those of query q are ``exclude[exclude_offsets[q] :
        exclude_offsets[q + 1]]``, in any order, repeats allowed
    exclude_offsets: (queries + 1,) int64, rising from 0 to the length of ``exclude``; given exactly when ``exclude`` is
    normalised: the caller's word that every item has length 1, which saves the norms; queries are normalised always

    returns: scores (queries, k) float32, falling; ids (queries, k) int64. Equal scores are ordered by the smaller id. Where fewer
        than k items remain, the tail has id -1 and score -inf.

    A vector of length 0 has cosine 0 with everything. Norms are taken in float64, so that no finite vector overflows.
    The compiled kernel gives a query the same bits whatever else is in the batch and however many threads run; the reference leaves
    the order of its sums to torch's matmul, so its last bits may depend on the batch.

    Errors: NaN or infinity in queries or items; k below 1 or above the number of items; excluded ids outside the catalogue; inputs
    that require grad.
    """
    check_vectors(_NAME, "queries", queries)
    check_vectors(_NAME, "items", items)
    check_sizes(_NAME, "items", queries, items.shape[1], len(items), k)
    check_exclusions(_NAME, len(queries), len(items), exclude, exclude_offsets)
    wanted = unit(_NAME, "queries", queries)
    offered = finite(_NAME, "items", items) if normalised else unit(_NAME, "items", items)
    return ranked(wanted, offered, k, exclude, exclude_offsets)


def ranked(
    wanted: Tensor,
    offered: Tensor,
    k: int,
    exclude: Tensor | None,
    exclude_offsets: Tensor | None,
    removed: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return what a search of unit vectors returns; ``removed`` (items,) bool says which items are never found.

    Products are taken in the vectors' own dtype, and rounded to float32.
    """
    scores = wanted.new_empty((len(wanted), k), dtype=torch.float32)
    ids = wanted.new_empty((len(wanted), k), dtype=torch.int64)
    block = max(1, _BLOCK_SCORES // len(offered))
    for start in range(0, len(wanted), block):
        rows = slice(start, min(start + block, len(wanted)))
        cosines = (wanted[rows] @ offered.T).float() + 0.0  # adding 0 turns -0 into 0, so that they tie
        if removed is not None:
            cosines[:, removed] = -torch.inf
        if exclude is not None and exclude_offsets is not None:
            lengths = exclude_offsets[rows.start + 1 : rows.stop + 1] - exclude_offsets[rows.start : rows.stop]
            whose = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
            cosines[whose, exclude[exclude_offsets[rows.start] : exclude_offsets[rows.stop]]] = -torch.inf
        order = _keys(cosines).topk(k, sorted=True).values
        ids[rows] = _MOST_ITEMS - (order & _MOST_ITEMS)
        scores[rows] = cosines.gather(1, ids[rows])
    ids[scores == -torch.inf] = -1
    return scores, ids


def _keys(scores: Tensor) -> Tensor:
    """Return int64 keys that order by (score, then smaller id): the score's bits in an order of integers, then the id from the top."""
    bits = scores.view(torch.int32)
    rising = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).to(torch.int64)
    falling_ids = _MOST_ITEMS - torch.arange(scores.shape[1], device=scores.device)
    return (rising << 31) | falling_ids


def finite(name: str, argument: str, vectors: Tensor) -> Tensor:
    """Return the vectors, or refuse NaN and infinity for the op ``name``."""
    bad = ~torch.isfinite(vectors).all(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        worst = "nan" if vectors[row].isnan().any() else "inf"
        raise refuse(name, argument, "finite", f"{worst} in row {row}", "drop or repair that row")
    return vectors


def unit(name: str, argument: str, vectors: Tensor) -> Tensor:
    """Return the vectors at length 1 (or 0), normalised in float64."""
    norms = torch.linalg.vector_norm(finite(name, argument, vectors).double(), dim=1, keepdim=True)
    return (vectors / norms.masked_fill(norms == 0, 1.0)).to(vectors.dtype)


def check_vectors(name: str, argument: str, vectors: Tensor) -> None:
    """Refuse what is not a float32 matrix of vectors."""
    if vectors.dtype != torch.float32 or vectors.dim() != 2:
        raise refuse(name, argument, f"float32 ({argument}, dimensions)", described(vectors), "reshape it, or convert it with .float()")


def check_sizes(name: str, items: str, queries: Tensor, width: int, count: int, k: int) -> None:
    """Refuse queries of another width than the items, too many items, and a k that cannot be had."""
    if queries.shape[1] != width:
        came = f"width {queries.shape[1]}"
        raise refuse(name, "queries", f"as wide as {items} ({width})", came, "encode both with the same recommender")
    if count > _MOST_ITEMS:
        raise refuse(name, items, f"at most {_MOST_ITEMS} rows", f"{count} rows", "search it in parts")
    if not 1 <= k <= count:
        raise refuse(name, "k", f"from 1 to the number of items ({count})", f"{k}", "ask for fewer")


def check_exclusions(name: str, queries: int, count: int, exclude: Tensor | None, exclude_offsets: Tensor | None) -> None:
    """Refuse excluded ids that do not go with so many queries and items."""
    if (exclude is None) != (exclude_offsets is None):
        missing = "exclude_offsets" if exclude_offsets is None else "exclude"
        raise refuse(name, missing, "given with its partner", "only one of exclude and exclude_offsets", "give both or neither")
    if exclude is None or exclude_offsets is None:
        return
    for argument, values in (("exclude", exclude), ("exclude_offsets", exclude_offsets)):
        if values.dtype != torch.int64 or values.dim() != 1:
            raise refuse(name, argument, f"int64 ({argument},)", described(values), "flatten it, or convert it with .long()")
    steps = exclude_offsets.diff()
    if len(exclude_offsets) != queries + 1 or exclude_offsets[0] != 0 or exclude_offsets[-1] != len(exclude) or (steps < 0).any():
        wanted = f"{queries + 1} numbers rising from 0 to {len(exclude)}"
        raise refuse(name, "exclude_offsets", wanted, "something else", "give one more offset than queries")
    outside = (exclude < 0) | (exclude >= count)
    if outside.any():
        raise refuse(name, "exclude", f"item ids from 0 to {count - 1}", f"id {int(exclude[outside][0])}", "leave unknown ids out")
