"""What genres and years alone say about an item."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from compress_rec.attributes import attribute_columns, multi_hot
from compress_rec.baseline import Baseline, Vectors, check_rows
from compress_rec.errors import CompressRecError, nearest
from compress_rec.trial import Catalogue, TableRanker

PENALTIES = tuple(float(10**power) for power in np.arange(-1, 5.01, 0.25))


@dataclass(frozen=True)
class AttributeRidge(Baseline):
    """Ridge regression from item attributes to the teacher's item and behaviour vectors, learned on the warm items.

    The attributes are the words of the columns that sort items into groups (genres, brand, department) and years with their decades, as a
    multi-hot table. It ranks cold items from their attributes, without reading a title: a text model that does no better on them has
    not understood the text. All rows are predictions, the warm ones too, so that the whole table is what attributes can say; with
    ``warm = "teacher"`` the warm rows are the teacher's own, as one would serve it beside a lookup table. (Predictions lie near the middle
    of the teacher's vectors and get larger cosines than these, so that cold items then crowd the lists: read ``cold_rank`` with care.)

    An item weighs as much as it was used in training, since the teacher's vectors of little-used items are mostly noise. The penalty is the
    one of ``PENALTIES`` with the least weighted leave-one-out error, in closed form. The features are centred, the intercept is free.

    columns: which attributes; ``None`` for all that sort items into groups; warm: "predicted" or "teacher"

    Source: Hoerl and Kennard, Ridge regression, Technometrics 1970; Allen's PRESS for leaving one out, Technometrics 1974.
    """

    name: ClassVar[str] = "attribute_ridge"
    columns: tuple[str, ...] | None = None
    warm: str = "predicted"

    def __post_init__(self) -> None:
        if self.warm not in ("predicted", "teacher"):
            raise CompressRecError(f"{self.name} has no warm='{self.warm}'{nearest(self.warm, ('predicted', 'teacher'))}")

    def fit(
        self, catalogue: Catalogue, train: Sequence[np.ndarray], attributes: Sequence[Mapping[str, str]], teacher: Vectors
    ) -> TableRanker:
        """Learn on the warm items that were used, and predict every item."""
        check_rows(catalogue, teacher)
        if len(attributes) != len(catalogue):
            raise CompressRecError(
                f"{len(attributes)} items have attributes and the catalogue has {len(catalogue)} items: give one mapping each"
            )
        weights = np.bincount(np.concatenate([np.asarray(events, dtype=np.int64) for events in train]), minlength=len(catalogue)).astype(
            float
        )
        known = (weights > 0) & ~catalogue.cold.numpy()
        table, names = multi_hot(attributes, self._columns(attributes), known)
        if not names or not known.any():
            raise CompressRecError(
                f"{self.name} found no attribute that three used items share: name columns such as genres with columns = […]"
            )
        taught = np.concatenate([teacher.items.detach().double().numpy(), teacher.behaviours.detach().double().numpy()], axis=1)
        model = ridge(table[known], taught[known], weights[known])
        found = torch.from_numpy(model(table)).float()
        items, behaviours = (F.normalize(part, dim=-1) for part in found.split(teacher.items.shape[1], dim=1))
        if self.warm == "teacher":
            keep = torch.from_numpy(known)[:, None]
            items = torch.where(keep, teacher.items.detach().float(), items)
            behaviours = torch.where(keep, teacher.behaviours.detach().float(), behaviours)
        return TableRanker(self.row, items, behaviours, teacher.recency.detach().float().clone())

    def _columns(self, attributes: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
        if self.columns is None:
            return attribute_columns(attributes)
        for column in self.columns:
            if column not in attributes[0]:
                raise CompressRecError(f"{self.name}: items have no column '{column}'{nearest(column, attributes[0])}")
        return self.columns


@dataclass(frozen=True)
class Ridge:
    """A fitted linear map. penalty: the chosen one; errors: the mean squared error of leaving one out, by penalty."""

    centre: NDArray[np.float64]
    weights: NDArray[np.float64]
    intercept: NDArray[np.float64]
    penalty: float
    errors: Mapping[float, float]

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """(rows, features) -> (rows, outputs)."""
        return (x - self.centre) @ self.weights + self.intercept


def ridge(x: NDArray[np.float64], y: NDArray[np.float64], sample: NDArray[np.float64], penalties: Sequence[float] = PENALTIES) -> Ridge:
    """Fit weighted ridge regression with a free intercept, and choose the penalty by leaving one row out.

    x: (rows, features); y: (rows, outputs); sample: (rows,) weights above 0
    penalties: times the mean weight, so that they do not depend on the scale of the weights

    Leaving row i out changes its residual by 1 / (1 − h_i), h the weighted hat matrix's diagonal, intercept included.
    """
    share = sample / sample.sum()
    centre, middle = share @ x, share @ y
    root = np.sqrt(sample / sample.mean())[:, None]
    left, singular, right = np.linalg.svd(root * (x - centre), full_matrices=False)
    turned = left.T @ (root * (y - middle))
    errors: dict[float, float] = {}
    for penalty in penalties:
        shrink = singular**2 / (singular**2 + penalty)
        residual = (y - middle) - left @ (shrink[:, None] * turned) / root
        lever = share + (left**2 * shrink).sum(1)
        alone = residual / np.maximum(1 - lever, 1e-9)[:, None]
        errors[penalty] = float(share @ (alone**2).mean(1))
    penalty = min(errors, key=errors.__getitem__)
    weights = right.T @ ((singular / (singular**2 + penalty))[:, None] * turned)
    return Ridge(centre, weights, middle, penalty, errors)
