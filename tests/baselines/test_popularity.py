import numpy as np
import pytest
import torch

from compress_rec.baseline import BASELINES
from compress_rec.baselines.popularity import Popularity
from compress_rec.measure import NotApplicable
from compress_rec.measures.cold_recall import ColdRecall
from compress_rec.measures.ndcg import Ndcg
from compress_rec.teacher import Teacher
from tests.measures.worlds import catalogue, trial

NOTHING = Teacher(torch.zeros(0, 1), torch.zeros(0, 1), torch.ones(1), 1.0)


def fit(train, items: int, cold=()):
    return Popularity().fit(catalogue(items, cold), [np.array(events, dtype=np.int64) for events in train], [{}] * items, NOTHING)


def test_lists_go_by_the_training_count_minus_the_history():
    # counts: 0 twice, 1 once, 2 three times, 3 never
    ranker = fit([[2, 0], [2, 0, 1], [2]], 4)
    assert ranker.name == "popularity"
    assert trial([[], [2], [0, 2]], [0, 0, 1], 4).lists(ranker, k=3).tolist() == [[2, 0, 1], [0, 1, 3], [1, 3, -1]]


def test_counts_of_neighbours_stay_apart_however_large():
    many = np.repeat([0, 1, 2], [1_000_000, 1_000_001, 999_999])
    ranker = fit([many], 3)
    assert trial([[]], [0], 3).lists(ranker, k=3).tolist() == [[1, 0, 2]]
    assert torch.allclose(ranker.items.norm(dim=1), torch.ones(3))


def test_equal_counts_tie_exactly_and_the_unused_stand_last():
    ranker = fit([[0, 1], [1, 0], [2]], 5)
    cosines = ranker.items[:, 0].tolist()
    assert cosines == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_a_catalogue_without_any_use_ties_throughout():
    assert fit([], 3).items.tolist() == [[0.0, 1.0]] * 3


def test_the_most_used_item_is_found_and_a_rare_one_is_not():
    ranker = fit([[0]] * 9 + [[1]] * 5 + [[2]], 3)
    world = trial([[], []], [0, 2], 3)
    assert Ndcg(k=1).take(ranker, world).values == (1.0, 0.0)


def test_cold_items_get_what_chance_gives():
    ranker = fit([[0, 1], [1]], 7, cold=(2, 3, 4, 5, 6))
    world = trial([[0]], [1], 7, cold=(2, 3, 4, 5, 6), cold_users=("c",), cold_histories=((0, 1),), cold_answers=((6,),))
    assert ColdRecall(k=2).take(ranker, world).values == pytest.approx((2 / 5,))


def test_it_reads_no_text_and_is_found_by_name():
    with pytest.raises(NotApplicable, match="only the pooled user"):
        trial([[]], [0], 3).lists(fit([[0]], 3), "text", 1)
    assert BASELINES.build("popularity") == Popularity()
