"""What a step of fine-tuning sees: texts as padded ids, what their vectors should be, and how much each counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.teacher import Teacher
from compress_rec.tokens import padded
from compress_rec.towers import Towers
from compress_rec.trial import Catalogue


@dataclass(frozen=True, eq=False)
class TrainingSide:
    """What fine-tuning may see. histories: (events,) item indexes a user, oldest first, warm items only."""

    catalogue: Catalogue
    histories: Sequence[np.ndarray]

    def positions(self) -> np.ndarray:
        """(positions, 2): user and place of every event that has another before it."""
        return np.concatenate(
            [np.stack([np.full(len(h) - 1, user), np.arange(1, len(h))], 1) for user, h in enumerate(self.histories) if len(h) > 1]
            or [np.zeros((0, 2), dtype=np.int64)]
        )

    def texts_of(self, positions: np.ndarray, last: int) -> list[str]:
        """Return the history before each position as one text."""
        return self.catalogue.history_texts([self.histories[u][:t].tolist() for u, t in positions.tolist()], last)


@dataclass(frozen=True, eq=False)
class Part:
    """Texts of one kind in one step.

    ids, mask: (texts, length); targets: head -> (texts, dimensions), empty for the softmax; weights: (texts,), how much each counts, or for
    the softmax which item each one is
    """

    ids: Tensor
    mask: Tensor
    targets: Mapping[str, Tensor]
    weights: Tensor

    def to(self, device: torch.device) -> Part:
        """Return the part on another device."""
        targets = {head: target.to(device) for head, target in self.targets.items()}
        return Part(self.ids.to(device), self.mask.to(device), targets, self.weights.to(device))


class TeacherExamples:
    """Warm items in a new order each pass and history texts at random training positions beside them.

    batch: items a step; histories: history texts a step; popularity: power of an item's count that weighs its loss
    """

    def __init__(
        self, towers: Towers, side: TrainingSide, teacher: Teacher, batch: int, histories: int, popularity: float, seed: int
    ) -> None:
        self.towers, self.side, self.teacher, self.seed = towers, side, teacher, seed
        self.size, self.histories, self.popularity = batch, histories, popularity
        self.warm = torch.nonzero(~side.catalogue.cold & (side.catalogue.uses > 0))[:, 0]
        if not len(self.warm):
            raise CompressRecError("no item was used in training, so that there is nothing to learn from: give more events")
        self.positions = side.positions()
        self.ids = towers.tower_of("item").tokens.ids(side.catalogue.texts, towers.role("item").length)
        self.count = -(-len(self.warm) // batch)

    def batch(self, number: int) -> Mapping[str, Part]:
        """Return the texts of one step."""
        round_, place = divmod(number, self.count)
        order = torch.randperm(len(self.warm), generator=torch.Generator().manual_seed(self.seed * 1_000_003 + round_))
        rows = self.warm[order[place * self.size : (place + 1) * self.size]]
        items = padded(self.ids, rows.tolist())
        # rare items' vectors are mostly noise, but the tail is what cold items resemble: a power between 0 and 1 weighs the two
        weights = self.side.catalogue.uses[rows].float() ** self.popularity
        targets = {"item": self.teacher.items[rows], "behaviour": self.teacher.behaviours[rows]}
        made = {"item": Part(items.ids, items.mask, targets, weights)}
        if self.histories and len(self.positions):
            made["text"] = self._histories(number)
        return made

    def _histories(self, number: int) -> Part:
        generator = torch.Generator().manual_seed(self.seed * 7_368_787 + number)
        chosen = self.positions[torch.randint(len(self.positions), (self.histories,), generator=generator).numpy()]
        texts = self.side.texts_of(chosen, self.towers.history)
        ids = self.towers.tower_of("text").tokens.ids(texts, self.towers.role("text").length)
        piece = padded(ids, range(len(ids)))
        before = [self.side.histories[u][:t].tolist() for u, t in chosen.tolist()]
        users = Towers({}, {}, self.teacher.recency).pooled(self.teacher.behaviours, before)
        return Part(piece.ids, piece.mask, {"text": users}, torch.ones(len(ids)))


class SoftmaxExamples:
    """Training positions in a new order each pass: the history's text and the text of the item that came."""

    def __init__(self, towers: Towers, side: TrainingSide, batch: int, seed: int) -> None:
        self.towers, self.side, self.size, self.seed = towers, side, batch, seed
        self.positions = side.positions()
        if len(self.positions) < 2:
            raise CompressRecError("an in-batch softmax needs at least two training positions, but fewer came: give more events")
        self.count = -(-len(self.positions) // batch)
        self.ids = towers.tower_of("item").tokens.ids(side.catalogue.texts, towers.role("item").length)

    def batch(self, number: int) -> Mapping[str, Part]:
        """Return the texts of one step."""
        round_, place = divmod(number, self.count)
        order = np.random.default_rng((self.seed, round_)).permutation(len(self.positions))
        chosen = self.positions[order[place * self.size : (place + 1) * self.size]]
        texts = self.side.texts_of(chosen, self.towers.history)
        ids = self.towers.tower_of("text").tokens.ids(texts, self.towers.role("text").length)
        users = padded(ids, range(len(ids)))
        rows = [int(self.side.histories[u][t]) for u, t in chosen.tolist()]
        items = padded(self.ids, rows)
        return {"text": Part(users.ids, users.mask, {}, torch.zeros(0)), "item": Part(items.ids, items.mask, {}, torch.tensor(rows))}
