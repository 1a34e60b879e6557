"""How much of a score goes when its reasons go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec import curves
from compress_rec.coalitions import Floats, MaskGame
from compress_rec.explanations import Readout, per_user
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial


@dataclass(frozen=True)
class Comprehensiveness(Measure):
    """The mean fall of the score while the history's units are removed, the most important first: in units of cosine.

    The pairs and the margin are those of ``faithfulness``. The limits of this area differ from model to model, so compare two explainers
    on one model with it, and two models with ``faithfulness``; it has no common ideal for that reason.

    Values: one a user, the mean over the items. Undefined (``None``) where the user has no history or no item is left to recommend.

    items: explained recommendations a user; explainer: which explanations; readout: ``margin`` or ``cosine``; sample: at most so many users

    Source: DeYoung et al., ERASER, ACL 2020, with every number of units in place of shares.
    """

    name: ClassVar[str] = "comprehensiveness"
    group: ClassVar[str] = "Explanations"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    items: int = 3
    explainer: str = "shapley"
    readout: Readout = "margin"
    sample: int = 200

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a drawn user; ``NotApplicable`` for a ranker without a pooled user."""
        return per_user(ranker, trial, self, removed)


def removed(game: MaskGame, attributions: Floats) -> list[float | None]:
    """Return the area for each question of a game."""
    return [float(value) for value in curves.comprehensiveness(game.values, curves.order_of(attributions))]
