"""The k items nearest to each query by cosine, from unit item vectors laid out in panels, as a kept index holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from compress_rec.op import described, op, refuse
from compress_rec.ops.cosine_top_k import check_exclusions, check_sizes, check_vectors, ranked, unit
from compress_rec.panels import ROWS, unpacked

_NAME = "cosine_top_k_panels"


def _fake(
    queries: Tensor, panels: Tensor, count: int, k: int, exclude: Tensor | None = None, exclude_offsets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    shape = (queries.shape[0], k)
    return queries.new_empty(shape), queries.new_empty(shape, dtype=torch.int64)


@op(
    "cosine_top_k_panels(Tensor queries, Tensor panels, int count, int k, Tensor? exclude=None, Tensor? exclude_offsets=None)"
    " -> (Tensor scores, Tensor ids)",
    close="twice",
    fake=_fake,
)
def cosine_top_k_panels(
    queries: Tensor, panels: Tensor, count: int, k: int, exclude: Tensor | None = None, exclude_offsets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Rank all items that are left for every query by cosine and return the best k.

    queries: (queries, dimensions) float32, of any length; they are normalised in float64
    panels: (ceil(count / 16), dimensions, 16) float32, item vectors of length 1 (or 0) as ``compress_rec.panels.packed`` lays them out;
        they are taken as they come. An item whose vector holds NaN is removed: it is never returned
    count: the items in the panels, removed ones among them
    k: how many to return, 1 … count
    exclude, exclude_offsets: as ``cosine_top_k`` takes them

    returns: scores (queries, k) float32, falling; ids (queries, k) int64. Equal scores are ordered by the smaller id. Where fewer
        than k items remain, the tail has id -1 and score -inf.

    A query of length 0 has cosine 0 with everything. The compiled kernel gives a query the same bits whatever else is in the batch and
    however many threads run; the reference leaves the order of its sums to torch's matmul, so its last bits may depend on the batch.

    Errors: NaN or infinity in queries; k below 1 or above count; excluded ids outside the catalogue; inputs that require grad.
    """
    check_vectors(_NAME, "queries", queries)
    if panels.dtype != torch.float32 or panels.dim() != 3 or panels.shape[2] != ROWS:
        raise refuse(_NAME, "panels", "float32 (panels, dimensions, 16)", described(panels), "pack them with compress_rec.panels.packed")
    if count < 0 or -(-count // ROWS) != len(panels):
        raise refuse(_NAME, "count", f"the number of items in {len(panels)} panels of 16", f"{count}", "give the number that was packed")
    check_sizes(_NAME, "panels", queries, panels.shape[1], count, k)
    check_exclusions(_NAME, len(queries), count, exclude, exclude_offsets)
    items = unpacked(panels, count)
    return ranked(unit(_NAME, "queries", queries), items, k, exclude, exclude_offsets, items.isnan().any(dim=1))
