"""The teacher learns a planted rule, sees nothing of cold items, and gives the same bits for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measures.ndcg import Ndcg
from compress_rec.planted import planted
from compress_rec.split import Split, split
from compress_rec.teacher import CHUNK, Teacher, TeacherSettings, pieces, teach_ids
from compress_rec.trial import Catalogue, TableRanker, Trial

SETTINGS = TeacherSettings(dimensions=16, window=4, epochs=12, batch=512, learning_rate=0.1, dropout=0.1)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tables this small only lose by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world() -> Split:
    return split(planted(users=192, topics=6, styles=4, events=6).interactions, seed=0, cold_items=0.1)


def taught(world: Split, settings: TeacherSettings = SETTINGS, seed: int = 0, histories: Sequence[np.ndarray] | None = None) -> Teacher:
    trial = Trial.of(world, Catalogue.of(world), "validation")
    validate = lambda teacher: ndcg(teacher, trial)  # noqa: E731
    return teach_ids(histories or world.train, len(world.interactions.items), validate, settings, seed, world.cold)


def ndcg(teacher: Teacher, trial: Trial) -> float:
    values = Ndcg(k=10).take(TableRanker("ids", teacher.items, teacher.behaviours, teacher.recency), trial).defined
    return float(np.mean(values))


def test_the_planted_rule_is_learned(world: Split) -> None:
    """The last item names the next one: an NDCG of 1 is possible, and an untaught teacher is far from it."""
    trial = Trial.of(world, Catalogue.of(world), "test")
    start = taught(world, TeacherSettings(dimensions=16, window=4, epochs=1, batch=128, learning_rate=1e-6))
    teacher = taught(world)
    assert ndcg(start, trial) < 0.5
    assert ndcg(teacher, trial) > 0.85
    assert teacher.scale > 1
    for vectors in (teacher.items, teacher.behaviours):
        assert vectors.shape == (24, 16)
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(24))


def test_the_recency_learns_that_the_last_item_matters_most(world: Split) -> None:
    recency = taught(world).recency
    assert recency.shape == (4,)
    assert recency[0] > recency[1:].max()


def test_same_seed_same_bits_other_seed_other_bits(world: Split) -> None:
    short = TeacherSettings(dimensions=8, window=4, epochs=2, batch=128)
    one, two, other = taught(world, short), taught(world, short), taught(world, short, seed=1)
    for name in ("items", "behaviours", "recency"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert one.scale == two.scale
    assert not torch.equal(one.items, other.items)


def test_the_random_numbers_of_the_caller_go_on(world: Split) -> None:
    short = TeacherSettings(dimensions=8, window=4, epochs=1, batch=128)
    before = torch.random.get_rng_state()
    taught(world, short)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    one, two = taught(world, short), taught(world, short)
    assert torch.equal(one.items, two.items), "nor does the caller's state reach the teacher"


def test_what_cold_items_texts_say_changes_no_warm_vector(world: Split) -> None:
    settings = TeacherSettings(dimensions=8, window=4, epochs=3, batch=128, map_learning_rate=0.02)
    features = torch.randn(len(world.cold), 12, generator=torch.Generator().manual_seed(0))
    cold = torch.from_numpy(world.cold.copy())
    other = torch.where(cold[:, None], 7 * features.roll(1, 0), features)
    one, two = (teach_ids(world.train, len(cold), lambda _: 0.0, settings, 0, world.cold, given) for given in (features, other))
    assert torch.equal(one.items[~cold], two.items[~cold])
    assert torch.equal(one.behaviours[~cold], two.behaviours[~cold])
    assert torch.equal(one.recency, two.recency)
    assert not torch.equal(one.items[cold], two.items[cold])


def test_cold_items_are_in_no_softmax(world: Split) -> None:
    """Their rows keep their direction: no gradient reaches them, and weight decay only shortens them before they are scaled to length 1."""
    short = TeacherSettings(dimensions=8, window=4, epochs=2, batch=128)
    # a rate so small that no float32 moves by it
    frozen = TeacherSettings(dimensions=8, window=4, epochs=2, batch=128, learning_rate=1e-30)
    moved, still = taught(world, short), taught(world, frozen)
    cold = torch.from_numpy(world.cold.copy())
    assert cold.any()
    cosine = (moved.items * still.items).sum(-1)
    torch.testing.assert_close(cosine[cold], torch.ones(int(cold.sum())))
    assert cosine[~cold].max() < 1 - 1e-4
    # without knowing which are cold, all of them are pushed away from every user
    blind = teach_ids(world.train, len(cold), lambda teacher: 0.0, short, 0, None)
    assert ((blind.items * still.items).sum(-1)[cold] < 1 - 1e-4).all()


def test_early_stopping_returns_the_best_state_and_stops(world: Split) -> None:
    seen: list[Teacher] = []
    figures = iter([0.1, 0.5, 0.3, 0.4, 0.2, 0.9])

    def validate(teacher: Teacher) -> float:
        seen.append(teacher)
        return next(figures)

    told: list[Any] = []
    settings = TeacherSettings(dimensions=8, window=4, epochs=6, batch=128, patience=3)
    best = teach_ids(world.train, 24, validate, settings, 0, world.cold, progress=lambda *where: told.append(where))
    assert len(seen) == 5, "three evaluations without a better figure end it"
    assert best is seen[1]
    assert told == [(1, 6, 0.1), (2, 6, 0.5), (3, 6, 0.3), (4, 6, 0.4), (5, 6, 0.2)]


def test_histories_are_cut_into_stretches_with_what_lies_before() -> None:
    history = np.arange(CHUNK + 3)
    table = pieces([history, np.array([7]), np.array([], dtype=np.int64)], window=2)
    assert table.shape == (2, 2 + CHUNK)
    assert table[0].tolist() == [-1, -1, *range(CHUNK)]
    assert table[1].tolist() == [CHUNK - 2, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 2, *[-1] * (CHUNK - 3)]
    # every event but a history's first is asked exactly once
    targets, before = table[:, -CHUNK:], table[:, -CHUNK - 1 : -1]
    assert sorted(targets[(targets >= 0) & (before >= 0)].tolist()) == list(range(1, CHUNK + 3))


def test_without_two_events_nothing_can_be_learned() -> None:
    with pytest.raises(CompressRecError, match="no user has two training events, so that nothing can be learned: give more events"):
        pieces([np.array([1]), np.array([], dtype=np.int64)], window=2)


def test_the_maps_from_text_give_cold_items_a_place(world: Split) -> None:
    """Features that name topic and style let the maps find the rule; ids alone know nothing of an item that nobody used."""
    names = [" ".join(attributes.values()).split() for attributes in world.interactions.attributes]
    words = sorted({word for name in names for word in name})
    features = torch.tensor([[float(word in name) for word in words] for name in names])
    trial = Trial.of(world, Catalogue.of(world), "validation")
    cold = torch.from_numpy(world.cold.copy())
    settings = TeacherSettings(dimensions=16, window=4, epochs=12, batch=128, learning_rate=0.02, map_learning_rate=0.02, dropout=0.1)
    teacher = teach_ids(world.train, len(names), lambda found: ndcg(found, trial), settings, 0, world.cold, features)
    assert teacher.item_map is not None
    assert teacher.item_map.shape == (len(words), 16)
    said = torch.nn.functional.normalize(features @ teacher.item_map, dim=-1)
    # what an untouched row holds is what the map says, since its own part only decays
    assert float((teacher.items[cold] * said[cold]).sum(-1).min()) > 0.9
    alone = teach_ids(
        world.train, len(names), lambda found: ndcg(found, trial), replace(settings, map_learning_rate=0.0), 0, world.cold, features
    )
    assert alone.item_map is None
