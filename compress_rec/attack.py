"""Where items stand in every user's list before and after their text was edited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.measure import NotApplicable
from compress_rec.perturbation import PERTURBATIONS
from compress_rec.trial import Ranker, Trial, UserKind

# the share of the used items, the most used ones, that are too popular to be worth an attack
HEAD = 0.2
# scores are float64 products of float32 vectors: what lies closer together than this is the same score, rounded otherwise
TIED = 1e-9
_USERS = 256


@dataclass(frozen=True)
class Attacked:
    """Ranks, 1 for the best, among what each user has not used; 0 where the user has used the item, so that it is never listed.

    targets: item indexes; before: (targets, users) int64; after: for each target (edits, users) int64
    """

    targets: tuple[int, ...]
    before: Tensor
    after: tuple[Tensor, ...]


def attack(ranker: Ranker, trial: Trial, edit: str, targets: int, user: UserKind) -> Attacked:
    """Edit the text of each target and rank it anew for every held-out user; made once for a ranker and these options.

    Exact without ranking anything again: one item changes and all others keep their scores, so its new place is one more than the
    number of other items that score higher; the users' vectors keep too, since whoever has the item in the history is never shown it.
    Equal scores are ordered by the smaller id, as they are served. Only the edited texts are encoded.
    """
    perturbation = PERTURBATIONS.build(edit)
    chosen = targets_of(trial, targets)

    def make() -> Attacked:
        texts = [perturbation.edits(item, trial.catalogue, trial.seed) for item in chosen]
        edited = ranker.read_items([text for several in texts for text in several])
        items, users = trial.items(ranker).double(), trial.user_vectors(ranker, user).double()
        if not bool(torch.isfinite(edited).all()):
            raise CompressRecError(f"'{ranker.name}' gives NaN or infinity for an edited text: it cannot be ranked; undo its last step")
        used = _used(trial, chosen)
        owners = [place for place, several in enumerate(texts) for _ in several]
        ranks = torch.empty(len(chosen) + len(owners), len(users), dtype=torch.int64)
        for start in range(0, len(users), _USERS):
            part = slice(start, start + _USERS)
            scores = users[part] @ items.T
            for row, history in enumerate(trial.histories[part]):
                scores[row, list(history)] = -torch.inf
            old = users[part] @ items[list(chosen)].T
            new = users[part] @ edited.double().T
            for place, item in enumerate(chosen):
                ranks[place, part] = _rank(scores, old[:, place], item)
            for number, place in enumerate(owners):
                ranks[len(chosen) + number, part] = _rank(scores, new[:, number], chosen[place])
        ranks[torch.cat([used, used[owners]])] = 0
        counts = [len(several) for several in texts]
        return Attacked(chosen, ranks[: len(chosen)], torch.split(ranks[len(chosen) :], counts))

    return trial.once(ranker, ("attack", perturbation, targets, user), make)  # type: ignore[no-any-return]


def targets_of(trial: Trial, count: int) -> tuple[int, ...]:
    """Return the items to be promoted, in the catalogue's order: drawn by the trial's seed among the used ones outside the head.

    Used are the warm items with a use in training. The head are the most used fifth of them: they are listed anyway. Drawn from the sorted
    ids, so that the order of items does not matter. ``NotApplicable`` where no used item is left.
    """
    if count < 1:
        raise CompressRecError(f"an attack wants at least 1 target, but targets={count} came: choose 1 or more")
    catalogue = trial.catalogue
    used = torch.nonzero(~catalogue.cold & (catalogue.uses > 0)).flatten().tolist()
    by_use = sorted(used, key=lambda item: (-int(catalogue.uses[item]), catalogue.items[item]))
    left = sorted(by_use[int(HEAD * len(by_use)) :], key=catalogue.items.__getitem__)
    if not left:
        raise NotApplicable("an attack promotes items that have been used in training, and the catalogue has none")
    drawn = np.random.default_rng(trial.seed).choice(len(left), min(count, len(left)), replace=False)
    return tuple(sorted(left[place] for place in drawn))


def _rank(scores: Tensor, own: Tensor, item: int) -> Tensor:
    """(users, items), (users,) -> (users,) the place of ``own`` among all items but ``item``."""
    better = scores > own[:, None] + TIED
    better[:, item] = False
    tied = (scores[:, :item] - own[:, None]).abs() <= TIED
    return better.sum(1) + tied.sum(1) + 1


def _used(trial: Trial, items: tuple[int, ...]) -> Tensor:
    """(items, users) bool: which of these items each user has used."""
    place = {item: row for row, item in enumerate(items)}
    used = torch.zeros(len(items), len(trial.users), dtype=torch.bool)
    for user, history in enumerate(trial.histories):
        for item in history:
            if item in place:
                used[place[item], user] = True
    return used
