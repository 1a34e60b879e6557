"""The planted data: the rule holds, the oracle knows it, popularity does not, and the texts carry it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec.errors import CompressRecError
from compress_rec.interactions import load
from compress_rec.known_sets import KNOWN_SETS, first_wrong
from compress_rec.planted import STYLES, TOPICS, planted
from compress_rec.split import split
from compress_rec.texts import item_texts


def rank_of(scores: np.ndarray, item: int, excluded: np.ndarray) -> int:
    """The rank of ``item`` among all items that are not excluded, counting every tie against it."""
    allowed = np.ones(len(scores), dtype=bool)
    allowed[excluded] = False
    allowed[item] = False
    return 1 + int(np.count_nonzero(scores[allowed] >= scores[item]))


def test_default_sizes() -> None:
    data = planted().interactions
    assert (len(data.users), len(data.items), len(data.event_items)) == (160, 80, 1440)
    assert data.dropped == ()


@settings(max_examples=15, deadline=None)
@given(topics=st.integers(3, 12), styles=st.integers(2, 16), seed=st.integers(0, 5), data=st.data())
def test_the_oracle_ranks_every_held_out_item_first(topics: int, styles: int, seed: int, data: st.DataObject) -> None:
    made = planted(users=20, topics=topics, styles=styles, events=data.draw(st.integers(3, topics)), seed=seed)
    taken = split(made.interactions)
    for user in taken.warm_users:
        history = taken.histories[user]
        assert rank_of(made.oracle(history), int(taken.test[user]), history) == 1


def test_popularity_knows_nothing() -> None:
    taken = split(planted(users=160).interactions)
    counts = np.bincount(np.concatenate(taken.train), minlength=80)
    assert set(counts) == {14}  # 160 users, 7 training events each, 80 items


def test_words_of_a_cold_item_are_known_from_warm_ones() -> None:
    made = planted()
    taken = split(made.interactions, cold_items=0.1)
    texts = item_texts(made.interactions)
    warm_words = {word for item in np.flatnonzero(~taken.cold) for word in texts[item].split()}
    assert int(taken.cold.sum()) == 8
    assert all(word in warm_words for item in np.flatnonzero(taken.cold) for word in texts[item].split())
    assert len(taken.cold_users) > 50
    # style alone finds the cold answers
    for user in taken.cold_users:
        scores = made.oracle(taken.histories[user])
        best = np.flatnonzero(taken.cold)[np.argsort(-scores[taken.cold], kind="stable")[:10]]
        assert set(taken.cold_answers[user]) <= set(best)


def test_texts_are_distinct_and_names_their_topic_and_style() -> None:
    made = planted(topics=12, styles=16)
    texts = item_texts(made.interactions)
    assert len(set(texts)) == len(texts) == 192
    for text, topic, style in zip(texts, made.topic, made.style, strict=True):
        assert text.split()[0] == STYLES[style]
        assert text.split()[-1] == list(TOPICS)[topic]
        assert len(set(text.split())) == 4


def test_same_seed_same_data_other_seed_other_data() -> None:
    one, again, other = (planted(seed=seed).interactions for seed in (3, 3, 4))
    assert np.array_equal(one.event_items, again.event_items)
    assert np.array_equal(one.event_times, again.event_times)
    assert not np.array_equal(one.event_items, other.event_items)


def test_every_word_is_one_piece_of_the_vocabulary() -> None:
    folder = Path(os.environ.get("COMPRESS_REC_DATA") or Path(__file__).parents[1] / "data") / "minilm-l6"
    if first_wrong(folder, KNOWN_SETS["minilm-l6"]) is not None:
        pytest.skip(f"minilm-l6 does not lie in {folder}: run `compress-rec data minilm-l6` first")
    vocabulary = set((folder / "vocab.txt").read_text(encoding="utf-8").split())
    words = {*STYLES, *TOPICS, *(word for words in TOPICS.values() for word in words)}
    assert words <= vocabulary


def test_a_study_file_can_ask_for_it() -> None:
    data = load({"name": "planted", "users": 40, "topics": 5, "styles": 4, "events": 5, "seed": 2, "cold_items": 0.1})
    assert (len(data.users), len(data.items), len(data.event_items)) == (40, 20, 200)


@pytest.mark.parametrize(
    "wrong", [{"users": 1}, {"topics": 13}, {"styles": 1}, {"events": 11}, {"events": 2}, {"seed": -1}, {"users": True}]
)
def test_sizes_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(CompressRecError, match=f"^{next(iter(wrong))} of the planted data must be a whole number .* but .* came$"):
        planted(**wrong)
