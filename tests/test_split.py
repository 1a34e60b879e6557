"""Splits: one worked by hand, then what must hold for any data."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec.errors import CompressRecError
from compress_rec.interactions import Interactions
from compress_rec.split import HOWS, Split, split, split_from


def made(events: list[tuple[int, int, float]], items: int, timed: bool = True) -> Interactions:
    """Interactions of (user, item, time), given in the order of a file."""
    order = sorted(range(len(events)), key=lambda row: (events[row][0], events[row][2] if timed else 0, row))
    users = 1 + max(user for user, _, _ in events)
    return Interactions(
        name="made",
        users=tuple(f"u{user}" for user in range(users)),
        items=tuple(f"i{item}" for item in range(items)),
        attributes=tuple({"title": f"item {item}"} for item in range(items)),
        template="{title}",
        event_users=np.array([events[row][0] for row in order], dtype=np.int64),
        event_items=np.array([events[row][1] for row in order], dtype=np.int64),
        event_times=np.array([events[row][2] for row in order]) if timed else None,
    )


def cold_seed(data: Interactions, share: float, wanted: set[int]) -> int:
    """The first seed that draws exactly the wanted items as cold ones."""
    return next(seed for seed in range(1000) if set(np.flatnonzero(split(data, seed=seed, cold_items=share).cold)) == wanted)


HAND = [
    # user 0: 0 1 2 3 4 in time order, given out of order
    *((0, 3, 30.0), (0, 0, 1.0), (0, 1, 2.0), (0, 2, 3.0), (0, 4, 40.0)),
    # user 1: items 5 and 1 tie at the end; the file says 5, then 1
    *((1, 0, 1.0), (1, 2, 2.0), (1, 5, 9.0), (1, 1, 9.0)),
    # user 2: too few
    *((2, 0, 1.0), (2, 1, 2.0)),
    # user 3: item 5 last
    *((3, 0, 1.0), (3, 3, 2.0), (3, 4, 3.0), (3, 5, 4.0)),
]


def test_last_event_out_by_hand() -> None:
    taken = split(made(HAND, items=6), how="last")
    assert [items.tolist() for items in taken.train] == [[0, 1, 2], [0, 2], [0, 1], [0, 3]]
    assert taken.validation.tolist() == [3, 5, -1, 4]
    assert taken.test.tolist() == [4, 1, -1, 5]
    assert taken.histories[0].tolist() == [0, 1, 2, 3]
    assert taken.histories[1].tolist() == [0, 2, 5]
    assert taken.warm_users.tolist() == [0, 1, 3]
    assert taken.cold_users.tolist() == []
    assert [items.tolist() for items in taken.train] == [[0, 1, 2], [0, 2], [0, 1], [0, 3]]
    assert "1 users are not evaluated: fewer than 3 warm events" in taken.notes
    assert any(note.startswith("25% of the users tie") for note in taken.notes)


def test_cold_items_by_hand() -> None:
    data = made(HAND, items=6)
    taken = split(data, seed=cold_seed(data, 1 / 6, {5}), cold_items=1 / 6)
    # user 1's history loses item 5; user 3's last event is on it, so there is no warm test and everything warm before it is known
    assert [items.tolist() for items in taken.train] == [[0, 1, 2], [0], [0, 1], [0, 3]]
    assert taken.validation.tolist() == [3, 2, -1, 4]
    assert taken.test.tolist() == [4, 1, -1, -1]
    assert [taken.histories[user].tolist() for user in range(4)] == [[0, 1, 2, 3], [0, 2], [0, 1], [0, 3, 4]]
    assert [answers.tolist() for answers in taken.cold_answers] == [[], [5], [], [5]]
    assert taken.warm_users.tolist() == [0, 1]
    assert any("1 of 6 items are cold" in note and "1 users have a cold item held out" in note for note in taken.notes)


def test_cold_users_have_five_warm_items_known_and_an_answer() -> None:
    events = (
        [(0, item, float(item)) for item in range(7)]
        + [(1, item, float(item)) for item in range(1, 7)]
        + [(2, item, float(item)) for item in range(1, 8)]
    )
    data = made(events, items=8)
    taken = split(data, seed=cold_seed(data, 1 / 8, {0}), cold_items=1 / 8)
    # user 0 knows 1..5 and used the cold item 0; user 1 knows 1..5 without an answer
    assert taken.test.tolist() == [6, 6, 7]
    assert taken.cold_users.tolist() == [0]
    taken = split(data, seed=cold_seed(data, 1 / 8, {2}), cold_items=1 / 8)
    # user 0 knows 0 1 3 4 5, user 1 only 1 3 4 5, user 2 1 3 4 5 6
    assert taken.cold_users.tolist() == [0, 2]


def test_global_time_by_hand() -> None:
    events = [
        *((0, 0, 0.0), (0, 1, 1.0), (0, 2, 5.0), (0, 3, 6.0), (0, 4, 8.0)),
        *((1, 0, 2.0), (1, 1, 3.0), (1, 2, 4.0)),
        *((2, 3, 7.0), (2, 4, 9.0)),
    ]
    # ten events at 0..9; a fifth of them after 8, a further three tenths after 5
    taken = split(made(events, items=5), how="global-time", test_share=0.2, validation_share=0.3, min_events=2)
    assert [items.tolist() for items in taken.train] == [[0, 1], [0, 1, 2], []]
    assert taken.validation.tolist() == [2, -1, -1]
    assert taken.test.tolist() == [4, -1, 4]
    assert [items.tolist() for items in taken.histories] == [[0, 1, 2, 3], [0, 1, 2], [3]]
    assert "1 users are not evaluated: no event after the cut, or no history before it" in taken.notes


def test_without_time_the_draw_is_random_and_said() -> None:
    taken = split(made(HAND, items=6, timed=False))
    assert taken.how == "random"
    assert "no time is mapped, so test and validation events were drawn at random" in taken.notes
    assert split(made(HAND, items=6)).how == "last"


def random_data(draw: st.DrawFn, timed: bool) -> Interactions:
    items = draw(st.integers(6, 12))
    events = []
    for user in range(draw(st.integers(2, 5))):
        used = draw(st.lists(st.integers(0, items - 1), min_size=4, max_size=items, unique=True))
        events += [(user, item, float(draw(st.integers(0, 6)))) for item in used]
    return made(events, items, timed)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), how=st.sampled_from(["last", "random", "global-time"]), share=st.sampled_from([0.0, 0.2]), seed=st.integers(0, 20))
def test_what_holds_for_any_split(data: st.DataObject, how: str, share: float, seed: int) -> None:
    interactions = data.draw(st.composite(random_data)(timed=how != "random"))
    try:
        taken = split(interactions, seed=seed, cold_items=share, how=how)
    except CompressRecError as refusal:
        assert "leaves no user with an item to predict" in str(refusal)  # noqa: PT017
        return
    for user in range(len(interactions.users)):
        used = interactions.history(user).tolist()
        history, train = taken.histories[user].tolist(), taken.train[user].tolist()
        known = {*history, *train}
        # cold items are nowhere but in the answers, and the answers are all of them
        assert not taken.cold[list(known)].any()
        assert taken.cold_answers[user].tolist() == sorted(item for item in used if taken.cold[item])
        # what is asked is the user's, warm and not known before
        assert taken.test[user] == -1 or (taken.test[user] in used and taken.test[user] not in known and not taken.cold[taken.test[user]])
        assert taken.validation[user] == -1 or (taken.validation[user] in history and taken.validation[user] not in train)
        # oldest first, and nothing is made up
        assert history == [item for item in used if item in history]
        assert set(train) <= set(history)
        if how != "global-time" and taken.validation[user] >= 0:
            assert set(history) - set(train) == {taken.validation[user]}
        if how == "last" and taken.test[user] >= 0:
            assert taken.test[user] == used[-1]


def same(one: Split, other: Split) -> bool:
    arrays = ("validation", "test", "cold")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays) and all(
        np.array_equal(a, b) for a, b in zip(one.train, other.train, strict=True)
    )


def test_the_seed_alone_decides() -> None:
    data = made([(user, (user + step) % 20, float(step)) for user in range(30) for step in range(8)], items=20)
    before = split(data, seed=1, cold_items=0.1, how="random")
    np.random.seed(5)
    state = np.random.get_state()[1].tolist()
    again = split(data, seed=1, cold_items=0.1, how="random")
    assert np.random.get_state()[1].tolist() == state
    assert same(before, again)
    assert not same(before, split(data, seed=2, cold_items=0.1, how="random"))
    assert int(before.cold.sum()) == 2


def test_cold_items_are_drawn_among_used_ones() -> None:
    data = made([(user, (user + step) % 10, float(step)) for user in range(10) for step in range(6)], items=1000)
    taken = split(data, cold_items=0.2)
    assert int(taken.cold.sum()) == 2
    assert not taken.cold[10:].any()


def test_arrays_cannot_be_changed() -> None:
    taken = split(made(HAND, items=6))
    for array in (taken.test, taken.validation, taken.cold, taken.train[0], taken.histories[0], taken.cold_answers[0]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_settings_of_a_study_file() -> None:
    data = made(HAND, items=6)
    settings = {"interactions": "x.csv", "split": "random", "cold_items": 0.2, "min_events": 2}
    assert same(split_from(data, settings, seed=7), split(data, seed=7, cold_items=0.2, how="random", min_events=2))
    assert same(split_from(data, {"seed": 3, "split": "random"}, seed=7), split(data, seed=3, how="random"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"how": "lats"}, f"there is no split called 'lats'; did you mean 'last'? known are {', '.join(sorted(HOWS))}"),
        ({"cold_items": 10}, "cold_items must be a share between 0 and 0.5, but 10 came: write 0.1 for a tenth of the items"),
        ({"cold_items": "0.1"}, "cold_items must be a share between 0 and 0.5, but '0.1' came"),
        ({"cold_items": 0.01}, "cold_items = 0.01 of 6 items is none, but at least one was wanted"),
        ({"seed": -1}, "the seed of a split must be a whole number of 0 or more, but -1 came"),
        ({"min_events": 1}, "min_events must be 2 or more (one to predict and one to know), but 1 came"),
        ({"min_events": 9}, "the split 'last' of made leaves no user with an item to predict"),
        ({"how": "global-time", "test_share": 0.9}, "test_share must lie between 0 and 0.5, but 0.9 came"),
    ],
)
def test_refusals(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(CompressRecError, match=re.escape(sentence)):
        split(made(HAND, items=6), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", ["last", "global-time"])
def test_times_are_needed_where_time_decides(how: str) -> None:
    with pytest.raises(CompressRecError, match=f"the split '{how}' needs times, but made has none: map the time column"):
        split(made(HAND, items=6, timed=False), how=how)
