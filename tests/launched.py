"""Fine-tunes a tiny model as ``accelerate launch`` starts it, and writes a digest of what each process ends with."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import torch

from compress_rec.examples import TrainingSide
from compress_rec.planted import planted
from compress_rec.split import split
from compress_rec.towers import Towers
from compress_rec.training import FitSettings, fit
from compress_rec.trial import Catalogue
from compress_rec.variant import Variant
from tests.tiny_study import planted_model

torch.set_num_threads(1)
data = split(planted(users=48, topics=6, styles=4, events=6).interactions)
settings = FitSettings(
    method="softmax",
    steps=int(sys.argv[2]),
    batch=64,
    dimensions=16,
    item_length=8,
    text_length=24,
    history=3,
    learning_rate=1e-3,
    evaluate_every=1,
    patience=1,
)
rank = int(os.environ.get("RANK", 0))
figures: list[float] = []


def validate(_: Towers) -> float:
    """Rises in process 0 and falls in every other one, which would stop after its second figure if it went by its own."""
    figures.append(-1.0 if rank else 1.0)
    return float(sum(figures))


side = TrainingSide(Catalogue.of(data), data.train)
done = fit(planted_model().towers, side, validate, settings)
digest = hashlib.sha256()
for _, tensor in sorted(Variant("any", done.towers).tensors().items()):
    digest.update(tensor.detach().numpy().tobytes())
(Path(sys.argv[1]) / os.environ.get("RANK", "alone")).write_text(f"{digest.hexdigest()} {done.figures}")
