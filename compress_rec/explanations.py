"""Which recommendations are explained, the same for every ranker, and what the report shows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from compress_rec.coalitions import Floats, MaskGame, pooled_tables
from compress_rec.errors import CompressRecError
from compress_rec.explainer import EXPLAINERS
from compress_rec.measure import NotApplicable, Samples
from compress_rec.trial import Ranker, Trial

Readout = Literal["margin", "cosine"]
LIST = 10


@dataclass(frozen=True)
class Case:
    """One user whose recommendations are explained.

    user: the place in the trial; items: the explained recommendations; against: the item whose score is subtracted for a margin
    """

    user: int
    items: tuple[int, ...]
    against: int


class Asked(Protocol):
    """What the measures of explanations are asked with: their common options."""

    @property
    def items(self) -> int: ...
    @property
    def explainer(self) -> str: ...
    @property
    def readout(self) -> Readout: ...
    @property
    def sample(self) -> int: ...


@dataclass(frozen=True)
class Question:
    """The options of a question that no measure asks."""

    items: int
    explainer: str
    readout: Readout
    sample: int


def cases(trial: Trial, users: int, items: int) -> tuple[Case, ...]:
    """Return the users and items to be explained: they come from the reference's lists and are the same for every ranker.

    A change of what is recommended would otherwise pass for a change of why. users: how many, drawn by the trial's seed from the
    sorted ids, so that the order of users does not matter; items: how many from the top of each list. Each is compared with the first
    item behind a list of 10, or the last one where fewer are left; a user to whom one item or none is left has no case items.
    """
    if users < 1 or items < 1:
        raise CompressRecError(
            f"explanations want at least 1 user and 1 item a user, but users={users}, items={items} came: give larger ones"
        )
    reference = trial.needs_reference()

    def make() -> tuple[Case, ...]:
        lists = trial.lists(reference, "pooled", min(LIST + 1, len(trial.catalogue))).tolist()
        found = []
        for user in chosen_users(trial, users):
            left = [item for item in lists[user] if item >= 0]
            found.append(Case(user, tuple(left[:-1][:items]), left[-1] if left else -1))
        return tuple(found)

    return trial.once(reference, ("cases", users, items), make)  # type: ignore[no-any-return]


def chosen_users(trial: Trial, users: int) -> list[int]:
    """Return the places of the users drawn by the trial's seed, in the trial's order."""
    order = sorted(range(len(trial.users)), key=trial.users.__getitem__)
    drawn = np.random.default_rng(trial.seed).choice(len(order), min(users, len(order)), replace=False)
    return sorted(order[place] for place in drawn)


def games(ranker: Ranker, trial: Trial, found: tuple[Case, ...], readout: Readout = "margin") -> Iterator[MaskGame]:
    """Yield the game of each case for one ranker: one question an explained item, in the case's order.

    readout: ``cosine``, or ``margin``, how far the item's cosine lies above the other's, where a shift of all cosines cancels
    Refuses with ``NotApplicable`` where the ranker has no pooled user.
    """
    vectors = trial.items(ranker).double().numpy()
    table = pooled_tables(ranker, trial)
    for case in found:
        queries = vectors[list(case.items)]
        if readout == "margin" and case.items:
            queries = queries - vectors[case.against]
        yield MaskGame(table(case.user)[0], queries, trial.users[case.user])


def attributions(ranker: Ranker, trial: Trial, asked: Asked, seed: int) -> tuple[Floats, ...]:
    """Return the attributions of each case, (n, explained items); made once for a ranker and a seed."""
    found, explainer = cases(trial, asked.sample, asked.items), EXPLAINERS.build(asked.explainer)

    def make() -> tuple[Floats, ...]:
        return tuple(explainer.explain(game, seed) for game in games(ranker, trial, found, asked.readout))

    return trial.once(ranker, ("attributions", asked.sample, asked.items, explainer, asked.readout, seed), make)  # type: ignore[no-any-return]


def per_user(ranker: Ranker, trial: Trial, asked: Asked, of: Callable[[MaskGame, Floats], Sequence[float | None]]) -> Samples:
    """Return one sample a drawn user: the mean over the items of what ``of`` says of the user's game and the ranker's own attributions."""
    found = cases(trial, asked.sample, asked.items)
    given = attributions(ranker, trial, asked, trial.seed)
    values = [
        mean_defined(of(game, shares)) if len(shares) else None
        for game, shares in zip(games(ranker, trial, found, asked.readout), given, strict=True)
    ]
    return _samples(trial, found, values)


def per_user_compared(ranker: Ranker, trial: Trial, asked: Asked, of: Callable[[Floats, Floats], float | None]) -> Samples:
    """Return one sample a drawn user: the mean over the items of what ``of`` says of the ranker's attributions and the reference's.

    The ranker's are drawn with a seed of their own: where an explainer is random, comparing it with itself shows how much.
    """
    found = cases(trial, asked.sample, asked.items)
    ours = attributions(ranker, trial, asked, trial.seed + 1)
    theirs = attributions(trial.needs_reference(), trial, asked, trial.seed)
    values = [
        mean_defined([of(mine, other) for mine, other in zip(one.T, two.T, strict=True)]) for one, two in zip(ours, theirs, strict=True)
    ]
    return _samples(trial, found, values)


def mean_defined(values: Sequence[float | None]) -> float | None:
    """Return the mean of those that are defined; ``None`` where none is."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _samples(trial: Trial, found: Sequence[Case], values: Sequence[float | None]) -> Samples:
    return Samples(tuple(values), {"user": tuple(trial.users[case.user] for case in found)}, trial.seed)


def panel(trial: Trial, rankers: Mapping[str, Ranker], users: int = 3, explainer: str = "shapley") -> list[dict[str, Any]]:
    """Return what the report shows of a few users: why the reference's first recommendation was made, before and after.

    rankers: by variant name; those without a pooled user are left out, since nothing of them can be shown
    returns: for each user and variant ``user``, ``item_title``, ``variant``, ``units`` (titles, most recent first; the last may stand
        for all older ones) and the attributions of the margin, ``reference`` and ``variant_values``, one a unit; plain JSON values
    """
    reference = trial.needs_reference()
    asked = Question(1, explainer, "margin", users)
    found = cases(trial, users, 1)
    units = pooled_tables(reference, trial)
    before = attributions(reference, trial, asked, trial.seed)
    rows: dict[int, list[dict[str, Any]]] = {case.user: [] for case in found}
    for name, ranker in rankers.items():
        try:
            after = attributions(ranker, trial, asked, trial.seed)
        except NotApplicable:
            continue
        for case, old, new in zip(found, before, after, strict=True):
            if not old.size:
                continue  # no history to explain with, or nothing left to recommend
            history = trial.histories[case.user]
            rows[case.user].append(
                {
                    "user": trial.users[case.user],
                    "item_title": trial.catalogue.texts[case.items[0]],
                    "variant": name,
                    "units": [_title(trial, history, unit) for unit in units(case.user)[1]],
                    "reference": old[:, 0].tolist(),
                    "variant_values": new[:, 0].tolist(),
                }
            )
    return [row for user in rows.values() for row in user]


def _title(trial: Trial, history: tuple[int, ...], unit: tuple[int, ...]) -> str:
    return trial.catalogue.texts[history[unit[0]]] if len(unit) == 1 else f"{len(unit)} older ones"
