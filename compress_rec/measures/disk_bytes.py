"""How many bytes a model takes on disk."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from compress_rec.footprint import table_tensors
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial, VariantRanker
from compress_rec.variant import size_on_disk


@dataclass(frozen=True)
class DiskBytes(Measure):
    """Bytes of the saved model: tensors, configuration and tokenizers, of a folder that is really written.

    The golden vectors, which only check a copy, do not count. Neither does the index of item vectors, which every model needs as well: its
    bytes stand apart in the notes, beside the parts. Edge cases: a lookup table counts the bytes of its tables. Values: a single one.
    """

    name: ClassVar[str] = "disk_bytes"
    group: ClassVar[str] = "Size"
    unit: ClassVar[str] = "bytes"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    summary: ClassVar[Literal["mean", "median", "p95", "p99", "only"]] = "only"

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """A single value."""
        if isinstance(ranker, VariantRanker):
            with tempfile.TemporaryDirectory() as folder:
                parts = size_on_disk(ranker.variant.save(Path(folder) / "variant"))
        else:
            parts = {name: tensor.numel() * tensor.element_size() for name, tensor in table_tensors(ranker, trial).items()}
        vectors = trial.items(ranker)
        notes = {"parts": parts, "index": vectors.numel() * vectors.element_size()}
        return Samples((float(sum(parts.values())),), {}, trial.seed, notes)
