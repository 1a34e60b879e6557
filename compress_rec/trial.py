"""The held-out side: what every measure may look at, and what ranks.

A ``Ranker`` gives unit vectors for items and for users; a variant does it through its towers, a baseline from a table. Measures ask the
``Trial``, which encodes each ranker once and keeps the vectors and lists.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.measure import NotApplicable
from compress_rec.ranking import top_k
from compress_rec.split import Split
from compress_rec.texts import history_text, item_texts
from compress_rec.variant import Variant

UserKind = Literal["pooled", "text"]
DEPTH = 100


@dataclass(frozen=True)
class Catalogue:
    """The items that can be recommended. items: ids; texts: one text an item; cold: (items,) bool, those that nobody has used in training;
    uses: (items,) int64, how often an item was used in training."""

    items: tuple[str, ...]
    texts: tuple[str, ...]
    cold: Tensor
    uses: Tensor

    @classmethod
    def of(cls, split: Split) -> Catalogue:
        """Build the catalogue of a split's data, with the data's own template."""
        count = len(split.interactions.items)
        used = np.concatenate([np.zeros(0, dtype=np.int64), *split.train]).astype(np.int64)
        cold = torch.from_numpy(np.array(split.cold, dtype=bool))
        return cls(split.interactions.items, item_texts(split.interactions), cold, torch.from_numpy(np.bincount(used, minlength=count)))

    def __len__(self) -> int:
        return len(self.items)

    def history_texts(self, histories: Sequence[Sequence[int]], last: int) -> list[str]:
        """Return each history (item indexes, oldest first) as one text: its last titles, the most recent first."""
        return [history_text([self.texts[item] for item in history], last) for history in histories]


class Ranker(ABC):
    """Whatever ranks items for users by the cosine of unit vectors."""

    name: str

    @abstractmethod
    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        """(items, dimensions) float32, unit length."""

    @abstractmethod
    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        """(users, dimensions) float32, unit length; ``NotApplicable`` where this ranker has no such user tower."""

    def pooled_parts(self, catalogue: Catalogue) -> tuple[Tensor, Tensor | None]:
        """What the pooled user is made of: behaviours (items, dimensions) and the recency weights (most recent first; ``None``: equal).

        ``NotApplicable`` where this ranker has no pooled user: nothing of it can be explained by history items.
        """
        raise NotApplicable(f"'{self.name}' has no pooled user, so no vector can be taken apart into history items")

    def read_items(self, texts: Sequence[str]) -> Tensor:
        """(texts, dimensions) float32, unit length: what items with these texts would get; ``NotApplicable`` where no text is read."""
        raise NotApplicable(f"'{self.name}' looks its items up and reads no text: an edit of a text changes nothing")


class VariantRanker(Ranker):
    """A variant seen as a ranker; its behaviour vectors are encoded once a catalogue."""

    def __init__(self, variant: Variant) -> None:
        self.variant, self.name = variant, variant.name
        self._encoded: tuple[Catalogue, Tensor, Tensor] | None = None

    def _both(self, catalogue: Catalogue) -> tuple[Tensor, Tensor]:
        """Item and behaviour vectors; where the two roles differ in their head alone, the texts pass the encoder once."""
        if self._encoded is None or self._encoded[0] is not catalogue:
            towers = self.variant.towers
            item, behaviour = towers.role("item"), towers.role("behaviour")
            if (item.tower, item.length) == (behaviour.tower, behaviour.length):
                made = towers.towers[item.tower].encode_heads(catalogue.texts, (item.head, behaviour.head), item.length)
                self._encoded = (catalogue, made[item.head], made[behaviour.head])
            else:
                self._encoded = (catalogue, self.variant.encode(catalogue.texts, "item"), self.variant.encode(catalogue.texts, "behaviour"))
        return self._encoded[1], self._encoded[2]

    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        return self._both(catalogue)[0]

    def behaviour_vectors(self, catalogue: Catalogue) -> Tensor:
        """(items, dimensions): each item's text in the role ``behaviour``."""
        return self._both(catalogue)[1]

    def pooled_parts(self, catalogue: Catalogue) -> tuple[Tensor, Tensor | None]:
        return self.behaviour_vectors(catalogue), self.variant.towers.recency

    def read_items(self, texts: Sequence[str]) -> Tensor:
        return self.variant.encode(texts, "item")

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        if kind == "pooled":
            return self.variant.towers.pooled(self.behaviour_vectors(catalogue), histories)
        return self.variant.encode(catalogue.history_texts(histories, self.variant.towers.history), "text")


class TableRanker(Ranker):
    """A baseline without a text encoder at serving time: a vector an item and a vector a behaviour.

    recency: (positions,) weights of the last behaviours, the most recent first; ``None`` means equal weights
    """

    def __init__(self, name: str, items: Tensor, behaviours: Tensor, recency: Tensor | None = None) -> None:
        from compress_rec.towers import Towers

        self.name, self.items, self.behaviours = name, items, behaviours
        self._pool = Towers({}, {}, recency)

    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        return self.items

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        if kind == "text":
            raise NotApplicable(f"'{self.name}' looks vectors up by item and reads no text: only the pooled user can be asked of it")
        return self._pool.pooled(self.behaviours, histories)

    def pooled_parts(self, catalogue: Catalogue) -> tuple[Tensor, Tensor | None]:
        return self.behaviours, self._pool.recency


@dataclass(frozen=True, eq=False)
class Trial:
    """The held-out events and what the rankers make of them.

    catalogue: every item, warm and cold; titles: what a person reads
    users: ids; histories: each user's items before the held-out event, oldest first; targets: (users,) the held-out item
    cold_users: ids; cold_histories; cold_answers: the cold items each of them used
    reference: the uncompressed model, to which lists and explanations are compared
    seed: of everything drawn at random
    """

    catalogue: Catalogue
    users: tuple[str, ...]
    histories: tuple[tuple[int, ...], ...]
    targets: Tensor
    cold_users: tuple[str, ...] = ()
    cold_histories: tuple[tuple[int, ...], ...] = ()
    cold_answers: tuple[tuple[int, ...], ...] = ()
    reference: Ranker | None = None
    seed: int = 0
    # not copied by dataclasses.replace: what was made for other users or another seed must not be handed on
    _kept: weakref.WeakKeyDictionary[Ranker, dict[Any, Any]] = field(default_factory=weakref.WeakKeyDictionary, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.users:
            raise CompressRecError("the trial has no user with a held-out item: at least one is needed; give more events or hold fewer out")

    @classmethod
    def of(cls, split: Split, catalogue: Catalogue, stage: Literal["validation", "test"] = "test", seed: int = 0) -> Trial:
        """Build the trial of one side of a split; the cold items belong to the test alone. The reference is set by ``against``."""
        targets, histories = (split.test, split.histories) if stage == "test" else (split.validation, split.train)
        rows = [user for user in range(len(targets)) if targets[user] >= 0 and len(histories[user])]
        cold = [int(user) for user in split.cold_users] if stage == "test" else []
        ids = split.interactions.users
        return cls(
            catalogue,
            tuple(ids[user] for user in rows),
            tuple(tuple(histories[user].tolist()) for user in rows),
            torch.tensor([int(targets[user]) for user in rows], dtype=torch.int64),
            tuple(ids[user] for user in cold),
            tuple(tuple(split.histories[user].tolist()) for user in cold),
            tuple(tuple(split.cold_answers[user].tolist()) for user in cold),
            seed=seed,
        )

    def against(self, reference: Ranker) -> Trial:
        """Return the same trial with ``reference`` as the uncompressed model."""
        return replace(self, reference=reference)

    def once(self, ranker: Ranker, key: Any, make: Callable[[], Any]) -> Any:
        """Return what ``make`` made for this ranker and key, making it at the first call."""
        kept = self._kept.setdefault(ranker, {})
        if key not in kept:
            kept[key] = make()
        return kept[key]

    def items(self, ranker: Ranker) -> Tensor:
        """(items, dimensions): the ranker's item vectors, encoded once; NaN and infinity are refused."""

        return self.once(ranker, "items", lambda: _finite(ranker, ranker.item_vectors(self.catalogue), "items"))  # type: ignore[no-any-return]

    def user_vectors(self, ranker: Ranker, kind: UserKind = "pooled") -> Tensor:
        """(users, dimensions): the vectors of the users with a held-out item, made once; NaN and infinity are refused."""

        def make() -> Tensor:
            return _finite(ranker, ranker.user_vectors(self.catalogue, self.histories, kind), "users")

        return self.once(ranker, ("users", kind), make)  # type: ignore[no-any-return]

    def lists(self, ranker: Ranker, kind: UserKind = "pooled", k: int = 10) -> Tensor:
        """(users, k) int64: the top k of the whole catalogue minus each user's history, best first; -1 where fewer are left."""
        if k > len(self.catalogue):
            raise CompressRecError(f"k is {k}, but the catalogue has {len(self.catalogue)} items: choose a smaller k")
        depth = min(max(k, DEPTH), len(self.catalogue))

        def make() -> Tensor:
            return top_k(self.user_vectors(ranker, kind), self.items(ranker), depth, self.histories)[1]

        found: Tensor = self.once(ranker, ("lists", kind, depth), make)
        return found[:, :k]

    def cold_scores(self, ranker: Ranker, kind: UserKind = "pooled") -> Tensor:
        """(cold users, items): cosines of the whole catalogue, for the users who used cold items."""

        def make() -> Tensor:
            users = _finite(ranker, ranker.user_vectors(self.catalogue, self.cold_histories, kind), "users")
            return users @ self.items(ranker).T

        return self.once(ranker, ("cold", kind), make)  # type: ignore[no-any-return]

    def needs_reference(self) -> Ranker:
        """Return the uncompressed model, or refuse where the trial has none."""
        if self.reference is None:
            raise CompressRecError("this measure compares with the uncompressed model, but the trial has none: give reference=…")
        return self.reference


def _finite(ranker: Ranker, vectors: Tensor, what: str) -> Tensor:
    bad = int((~torch.isfinite(vectors).all(-1)).sum())
    if bad:
        raise CompressRecError(
            f"'{ranker.name}' gives NaN or infinity for {bad} of {len(vectors)} {what}: it cannot be ranked; undo its last step"
        )
    return vectors


def slices(trial: Trial) -> Mapping[str, tuple[str, ...]]:
    """Return users by how often their held-out item was used in training: the lower, middle and upper third of the users."""
    uses = trial.catalogue.uses[trial.targets]
    order = torch.argsort(uses, stable=True)
    thirds = torch.tensor_split(order, 3)
    return {name: tuple(trial.users[i] for i in part.tolist()) for name, part in zip(("tail", "middle", "head"), thirds, strict=True)}
