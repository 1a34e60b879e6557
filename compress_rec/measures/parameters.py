"""How many numbers a model stores."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from compress_rec.footprint import table_tensors
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, VariantRanker

# what says where numbers stand is not a number of the model
STRUCTURE = (".mask", ".extent")


@dataclass(frozen=True)
class Parameters(Measure):
    """The stored numbers of all towers, each once, whatever their width.

    Counted are weights, int8 codes and their scales, and the non-zeros of sparse weights. A tower that serves several roles counts once.
    The index of item vectors is no part of the model and does not count. The notes split the sum by part: embeddings, layers, shared
    weights, heads, recency; for a lookup table its tables. Edge cases: a model without a layer has none in that part. Values: a single
    one.
    """

    name: ClassVar[str] = "parameters"
    group: ClassVar[str] = "Size"
    unit: ClassVar[str] = "parameters"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only"]] = "only"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """A single value."""
        named: dict[str, Tensor] = ranker.variant.tensors() if isinstance(ranker, VariantRanker) else table_tensors(ranker, trial)
        parts: Counter[str] = Counter()
        for name, tensor in named.items():
            if not name.endswith(STRUCTURE):
                parts[_part(name)] += tensor.numel()
        return Samples((float(parts.total()),), {}, trial.seed, {"parts": dict(parts)})


def _part(name: str) -> str:
    """``embeddings`` of ``both.encoder.embeddings.words.weight``, ``heads`` of ``both.heads.item.0.weight``, ``recency`` of itself."""
    pieces = name.split(".")
    if len(pieces) < 3:
        return name
    return pieces[2] if pieces[1] == "encoder" else pieces[1]
