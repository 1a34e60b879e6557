"""Lists over the full catalogue; never over sampled candidates."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from compress_rec.errors import CompressRecError


def top_k(users: Tensor, items: Tensor, k: int, exclude: Sequence[Sequence[int]] | None = None) -> tuple[Tensor, Tensor]:
    """Return the k items with the largest cosine for each user, without the excluded ones.

    users: (users, dimensions) float32; items: (items, dimensions) float32
    exclude: item indexes a user, usually the history
    returns: scores (users, k) float32 and ids (users, k) int64, best first, ties by the smaller id; score -inf and id -1 where fewer are
    left
    """
    if users.shape[-1] != items.shape[-1]:
        raise CompressRecError(
            f"users have {users.shape[-1]} dimensions and items {items.shape[-1]}: they do not come from one model, encode both with it"
        )
    from compress_rec.index import CosineIndex

    return CosineIndex(items).search(users, k, exclude=exclude)
