"""Whether the reasons given for a recommendation are its reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from compress_rec import curves
from compress_rec.coalitions import Floats, MaskGame
from compress_rec.explanations import Readout, per_user
from compress_rec.measure import Measure, Samples
from compress_rec.trial import Ranker, Trial

# the vectors are float32: where the best order gains less than this over a random one, only rounding is left to be ordered
FLAT = 1e-6


@dataclass(frozen=True)
class Faithfulness(Measure):
    """How well an explanation orders the history: 1 is the best order there is, 0 what random attributions reach, below 0 is worse.

    The history's units are removed one after the other by falling attribution, and AOPC is the mean fall of the score (comprehensiveness).
    F = (AOPC − random) / (best − random), with the exact best order and the exact mean of all orders for this very model, user and item:
    raw areas have limits that differ from model to model, so only the normalised one may be compared. The pairs are the same for every
    ranker: the first items of the reference's lists; the score is the margin over the item that the reference puts behind its first 10.

    Values: one a user, the mean over the items. Undefined (``None``) for an item whose score no order can tell apart (best − random below
    1e-6: fewer than two units that matter, or a model that does not look at the history), and for a user all of whose items are so.

    items: explained recommendations a user; explainer: which explanations (``random`` comes out at 0 on average); readout: ``margin`` or
    ``cosine``; sample: at most so many users, drawn by the seed

    Source: Edin et al., Normalized AOPC, ACL 2025; Samek et al. 2017. The longest-path bound is exact, see ``curves``.
    """

    name: ClassVar[str] = "faithfulness"
    group: ClassVar[str] = "Explanations"
    better: ClassVar[Literal["higher", "lower", "neither"]] = "higher"
    ideal: ClassVar[float | None] = 1.0
    items: int = 3
    explainer: str = "shapley"
    readout: Readout = "margin"
    sample: int = 200

    def take(self, ranker: Ranker, trial: Trial) -> Samples:
        """One value a drawn user; ``NotApplicable`` for a ranker without a pooled user."""
        return per_user(ranker, trial, self, normalised)


def normalised(game: MaskGame, attributions: Floats) -> list[float | None]:
    """Return F for each question of a game."""
    values = game.values
    chance = curves.mean_comprehensiveness(values)
    span = curves.best_comprehensiveness(values) - chance
    gained = curves.comprehensiveness(values, curves.order_of(attributions)) - chance
    return [float(g / s) if s >= FLAT else None for g, s in zip(gained, span, strict=True)]
