"""Whether a variant ranks all the reasons as the uncompressed model does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from scipy.stats import rankdata

from compress_rec.coalitions import Floats
from compress_rec.explanations import Readout, per_user_compared
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class AttributionCorrelation(Measure):
    """Spearman's correlation between a variant's attributions and the reference's: 1 is the same order, 0 none in common, −1 reversed.

    All units of the history count, the last reasons as much as the first; signs are kept. Ties get average ranks. The pairs and the margin
    are those of ``faithfulness``.

    Values: one a user, the mean over the items. Undefined (``None``) where the history has fewer than two units, and for an item to which
    either side gives every unit the same attribution.

    items: explained recommendations a user; explainer: which explanations, drawn anew for the variant where they are random; readout:
    ``margin`` or ``cosine``; sample: at most so many users, drawn by the seed
    """

    name: ClassVar[str] = "attribution_correlation"
    group: ClassVar[str] = "Explanations"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    items: int = 3
    explainer: str = "shapley"
    readout: Readout = "margin"
    sample: int = 200

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a drawn user; ``NotApplicable`` for a ranker without a pooled user."""
        return per_user_compared(ranker, trial, self, spearman)


def spearman(ours: Floats, theirs: Floats) -> float | None:
    """(n,), (n,) -> Spearman's rank correlation with average ranks; ``None`` where it is undefined."""
    if len(ours) < 2 or np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return None
    return float(np.corrcoef(rankdata(ours), rankdata(theirs))[0, 1])
