"""What is learnt from, chosen by and asked at the end: each user's events taken apart, and the cold items that are held out of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress_rec.errors import CompressRecError, nearest
from compress_rec.interactions import Interactions

HOWS = ("auto", "last", "random", "global-time")
# a cold item is ranked for users of whom enough is known to say something about taste
COLD_HISTORY = 5
# streams of the seed, so that a change of one draw does not move the others
_COLD_STREAM, _RANDOM_STREAM = 1, 2


@dataclass(frozen=True, eq=False)
class Split:
    """A user's events, taken apart; items are numbers into ``interactions.items``.

    how, seed: what made the split
    train: for every user, (events,) int64, oldest first, warm items only
    validation: (users,) int64, the item to predict while fitting, -1 where there is none
    test: (users,) int64, the item to predict at the end, -1 where there is none or it is cold
    histories: for every user, (events,) int64, oldest first: the warm items known at test time, the validation item included
    cold: (items,) bool, items that are held out until the test; an item that happens to have no event in training is not cold
    cold_answers: for every user, (answers,) int64, ascending: the cold items that the user used at any time
    notes: what was left out and why, and what the split assumes
    """

    interactions: Interactions
    how: str
    seed: int
    train: tuple[np.ndarray, ...]
    validation: np.ndarray
    test: np.ndarray
    histories: tuple[np.ndarray, ...]
    cold: np.ndarray
    cold_answers: tuple[np.ndarray, ...]
    notes: tuple[str, ...]

    @property
    def warm_users(self) -> np.ndarray:
        """The users with a warm item to predict at the end: (users,) int64, ascending."""
        return np.flatnonzero(self.test >= 0)

    @property
    def cold_users(self) -> np.ndarray:
        """The users with at least five warm items known at test time and a cold item among what they used: (users,) int64, ascending."""
        enough = [
            len(history) >= COLD_HISTORY and len(answers) > 0 for history, answers in zip(self.histories, self.cold_answers, strict=True)
        ]
        return np.flatnonzero(np.array(enough, dtype=bool))


def split(
    interactions: Interactions,
    seed: int = 0,
    cold_items: float = 0.0,
    how: str = "auto",
    min_events: int = 3,
    test_share: float = 0.1,
    validation_share: float = 0.1,
) -> Split:
    """Take each user's events apart.

    how:
      "last": the last event is the test and the last warm event before it the validation; equal times keep the order of the file. This
      looks into the future of other users, and only "global-time" does not.
      "random": the test and the validation are drawn among the user's events, the rest keeps its order.
      "global-time": one moment for all. The test is a user's first event after it; what lies before is the history. The validation is the
      first event after an earlier moment. ``test_share`` and ``validation_share`` are the shares of all events after each.
      "auto": "last" where the data has times, else "random".
    cold_items: the share of the items, drawn by ``seed`` among those used, that leave every user's train, validation and history. A test
      event on a cold item is no test (-1): the usual figures are taken over users whose held-out item is warm.
    min_events: users with fewer warm events (the test among them) keep them for training and are not evaluated

    Same interactions and seed, same split; the global random state is neither read nor changed.
    """
    _check(interactions, seed, cold_items, how, min_events, test_share, validation_share)
    notes: list[str] = []
    if how == "auto":
        how = "last" if interactions.event_times is not None else "random"
        if how == "random":
            notes.append("no time is mapped, so test and validation events were drawn at random")
    if how in ("last", "global-time") and interactions.last_ties > 0:
        notes.append(
            f"{interactions.last_ties:.0%} of the users tie on the time of their last two events; ties keep the order of the file, so the "
            "order of time is weak evidence there"
        )
    cold = _draw_cold(interactions, seed, cold_items)
    moments = _moments(interactions, test_share, validation_share) if how == "global-time" else (0.0, 0.0)
    train, histories, answers = [], [], []
    validation = np.full(len(interactions.users), -1, dtype=np.int64)
    test = np.full(len(interactions.users), -1, dtype=np.int64)
    few = cold_tests = 0
    for user in range(len(interactions.users)):
        events = interactions.events_of(user)
        items = interactions.event_items[events]
        is_cold = cold[items]
        answers.append(np.sort(items[is_cold]))
        if how == "global-time":
            assert interactions.event_times is not None
            tested, validated, past, known = _cut(interactions.event_times[events], is_cold, moments)
            evaluated = (tested is not None or validated is not None) and len(known) + 1 >= min_events
        else:
            order = np.arange(len(items)) if how == "last" else np.random.default_rng([seed, _RANDOM_STREAM, user]).permutation(len(items))
            tested, validated, past, known = _last(order, is_cold)
            evaluated = int(np.count_nonzero(~is_cold)) >= min_events
        if not evaluated:
            few += 1
            past = known = np.flatnonzero(~is_cold) if how != "global-time" else past
            tested = validated = None
        if validated is not None:
            validation[user] = items[validated]
        if tested is not None and is_cold[tested]:
            cold_tests += 1
        elif tested is not None:
            test[user] = items[tested]
        train.append(_fixed(items[past]))
        histories.append(_fixed(items[known]))
    if few:
        wanted = "no event after the cut, or no history before it" if how == "global-time" else f"fewer than {min_events} warm events"
        notes.append(f"{few} users are not evaluated: {wanted}")
    if cold.any():
        notes.append(
            f"{int(cold.sum())} of {len(interactions.items)} items are cold: held out until the test, ranked in the catalogue; "
            f"{cold_tests} users have a cold item held out and no warm one"
        )
        notes.append("cold answers are all the cold items that a user used, whenever that was")
    done = Split(
        interactions,
        how,
        seed,
        tuple(train),
        _fixed(validation),
        _fixed(test),
        tuple(histories),
        _fixed(cold),
        tuple(map(_fixed, answers)),
        tuple(notes),
    )
    if not len(done.warm_users):
        raise CompressRecError(
            f"the split '{how}' of {interactions.name} leaves no user with an item to predict, but at least one was wanted: give users "
            f"with {min_events} events or more, or lower min_events or cold_items"
        )
    return done


def split_from(interactions: Interactions, settings: Mapping[str, Any], seed: int = 0) -> Split:
    """Split as the ``[data]`` table of a study file says: ``split``, ``cold_items``, ``min_events`` and ``seed``."""
    return split(
        interactions,
        seed=settings.get("seed", seed),
        cold_items=settings.get("cold_items", 0.0),
        how=settings.get("split", "auto"),
        min_events=settings.get("min_events", 3),
    )


def _last(order: np.ndarray, is_cold: np.ndarray) -> tuple[int | None, int | None, np.ndarray, np.ndarray]:
    """Return the positions of the test and the validation, and those known while fitting and at test time, in the events' order."""
    if not len(order):
        return None, None, order, order
    tested = int(order[-1])
    before = [int(position) for position in order[:-1] if not is_cold[position]]
    known = np.array(sorted(before), dtype=np.int64)
    validated = before[-1] if before else None
    return tested, validated, known[known != validated] if before else known, known


def _cut(times: np.ndarray, is_cold: np.ndarray, moments: tuple[float, float]) -> tuple[int | None, int | None, np.ndarray, np.ndarray]:
    """The same for one moment for all; an event at a moment lies after it."""
    earlier, later = moments
    past = np.flatnonzero(~is_cold & (times < earlier))
    known = np.flatnonzero(~is_cold & (times < later))
    between = np.flatnonzero(~is_cold & (times >= earlier) & (times < later))
    after = np.flatnonzero(times >= later)
    tested = int(after[0]) if len(after) and len(known) else None
    validated = int(between[0]) if len(between) and len(past) else None
    return tested, validated, past, known


def _moments(interactions: Interactions, test_share: float, validation_share: float) -> tuple[float, float]:
    assert interactions.event_times is not None
    ordered = np.sort(interactions.event_times)
    later = ordered[min(len(ordered) - 1, int(np.floor(len(ordered) * (1 - test_share))))]
    earlier = ordered[min(len(ordered) - 1, int(np.floor(len(ordered) * (1 - test_share - validation_share))))]
    return float(earlier), float(later)


def _draw_cold(interactions: Interactions, seed: int, share: float) -> np.ndarray:
    cold = np.zeros(len(interactions.items), dtype=bool)
    # an item that nobody used would be no answer to anybody
    used = np.unique(interactions.event_items)
    count = round(share * len(used))
    if share > 0 and count == 0:
        raise CompressRecError(
            f"cold_items = {share} of {len(used)} items is none, but at least one was wanted: raise it, or set it to 0 for none"
        )
    cold[np.random.default_rng([seed, _COLD_STREAM]).permutation(used)[:count]] = True
    return cold


def _fixed(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _check(
    interactions: Interactions, seed: int, cold_items: float, how: str, min_events: int, test_share: float, validation_share: float
) -> None:
    if how not in HOWS:
        raise CompressRecError(f"there is no split called '{how}'{nearest(str(how), HOWS)}")
    if how in ("last", "global-time") and interactions.event_times is None:
        raise CompressRecError(
            f"the split '{how}' needs times, but {interactions.name} has none: map the time column in [data], or set split = \"random\""
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise CompressRecError(f"the seed of a split must be a whole number of 0 or more, but {seed!r} came")
    if isinstance(cold_items, bool) or not isinstance(cold_items, int | float) or not 0 <= cold_items <= 0.5:
        raise CompressRecError(f"cold_items must be a share between 0 and 0.5, but {cold_items!r} came: write 0.1 for a tenth of the items")
    if isinstance(min_events, bool) or not isinstance(min_events, int) or min_events < 2:
        raise CompressRecError(f"min_events must be 2 or more (one to predict and one to know), but {min_events!r} came")
    for name, value in (("test_share", test_share), ("validation_share", validation_share)):
        if not 0 < value < 0.5:
            raise CompressRecError(f"{name} must lie between 0 and 0.5, but {value!r} came: write 0.1 for a tenth of the events")
