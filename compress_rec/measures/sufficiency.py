"""How much of a score is missing when only its reasons are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec import curves
from compress_rec.coalitions import Floats, MaskGame
from compress_rec.explanations import Readout, per_user
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class Sufficiency(Measure):
    """How far the score lies below the whole while only the most important units are kept, on average over their number: lower is better.

    The pairs and the margin are those of ``faithfulness``; below 0 where a part of the history speaks more strongly for the item than the
    whole of it. As with ``comprehensiveness`` the limits differ from model to model: compare explainers with it, not models.

    Values: one a user, the mean over the items, in units of cosine. Undefined (``None``) where the user has no history or no item is left
    to recommend.

    items: explained recommendations a user; explainer: which explanations; readout: ``margin`` or ``cosine``; sample: at most so many users

    Source: DeYoung et al., ERASER, ACL 2020, with every number of units in place of shares.
    """

    name: ClassVar[str] = "sufficiency"
    group: ClassVar[str] = "Explanations"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "lower"
    items: int = 3
    explainer: str = "shapley"
    readout: Readout = "margin"
    sample: int = 200

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a drawn user; ``NotApplicable`` for a ranker without a pooled user."""
        return per_user(ranker, trial, self, kept)


def kept(game: MaskGame, attributions: Floats) -> list[float | None]:
    """Return the area for each question of a game."""
    return [float(value) for value in curves.sufficiency(game.values, curves.order_of(attributions))]
