"""Whether a variant gives the same reasons as the uncompressed model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from compress_rec.coalitions import Floats
from compress_rec.curves import order_of
from compress_rec.errors import CompressRecError
from compress_rec.explanations import Readout, per_user_compared
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class AttributionAgreement(Measure):
    """How many of a recommendation's first k reasons are the reference's: 1 is all of them, 0 what chance gives, below 0 fewer.

    For n units of history, m = min(k, ⌈n/3⌉) reasons are compared; their overlap A has the chance level c = m/n, which is taken out,
    κ = (A − c)/(1 − c). The user and item pairs and the margin are those of ``faithfulness``, the same for every ranker, and both rankers'
    explanations are of that pair, whatever they recommend themselves. Equal attributions go to the more recent unit on both sides.

    Values: one a user, the mean over the items. Undefined (``None``) where the history has fewer than two units, and for an item to which
    either side gives every unit the same attribution.

    k: reasons compared; items: explained recommendations a user; explainer: which explanations, drawn anew for the variant where
    they are random, so that the reference against itself then shows the explainer's own noise; readout: ``margin`` or ``cosine``;
    sample: at most so many users, drawn by the seed

    Source: Krishna et al., The Disagreement Problem in Explainable ML, 2022 (feature agreement), corrected for chance.
    """

    name: ClassVar[str] = "attribution_agreement"
    group: ClassVar[str] = "Explanations"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    k: int = 3
    items: int = 3
    explainer: str = "shapley"
    readout: Readout = "margin"
    sample: int = 200

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a drawn user; ``NotApplicable`` for a ranker without a pooled user."""
        if self.k < 1:
            raise CompressRecError(f"'{self.label}' compares the first k reasons, but k is {self.k}: choose 1 or more")
        return per_user_compared(ranker, trial, self, lambda ours, theirs: agreement(ours, theirs, self.k))


def agreement(ours: Floats, theirs: Floats, k: int) -> float | None:
    """(n,), (n,) -> κ of the first min(k, ⌈n/3⌉) units; ``None`` where it is undefined."""
    n = len(ours)
    if n < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    first = min(k, -(-n // 3))
    shared = len(np.intersect1d(order_of(ours)[:first], order_of(theirs)[:first]))
    chance = first / n
    return (shared / first - chance) / (1 - chance)
