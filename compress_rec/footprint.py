"""What a ranker without an encoder stores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from compress_rec.measure import NotApplicable

if TYPE_CHECKING:
    from compress_rec.trial import Ranker, Trial


def table_tensors(ranker: Ranker, trial: Trial) -> dict[str, Tensor]:
    """Return the tables of a lookup by name, one that serves as items and behaviours once; ``NotApplicable`` for what stores no vectors."""
    from compress_rec.trial import TableRanker

    if not isinstance(ranker, TableRanker):
        raise NotApplicable(f"'{ranker.name}' is neither a model nor a table of vectors: its size is not defined")
    behaviours, recency = ranker.pooled_parts(trial.catalogue)
    named = {"items": ranker.items}
    if behaviours.data_ptr() != ranker.items.data_ptr():
        named["behaviours"] = behaviours
    if recency is not None:
        named["recency"] = recency
    return named
