import math

import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES
from compress_rec.measures.ndcg import Ndcg
from tests.measures.worlds import Scored, descending, trial, values

# three users over six items, each with a history that is left out and one held-out item
WORLD = trial([[0], [1, 2], [3]], [4, 0, 1], 6)
# user 0: (0) 5 4 …, rank 2; user 1: (2) 0 …, rank 1; user 2: (3) 0 2 4 5 1, rank 5
SCORES = descending([[0, 5, 4], [2, 0], [3, 0, 2, 4, 5, 1]], 6)


def test_hand_worked_values():
    assert values(Ndcg(k=5), Scored("hand", SCORES), WORLD) == pytest.approx((1 / math.log2(3), 1.0, 1 / math.log2(6)))
    assert values(Ndcg(k=4), Scored("hand", SCORES), WORLD) == pytest.approx((1 / math.log2(3), 1.0, 0.0))
    assert values(Ndcg(k=1), Scored("hand", SCORES), WORLD) == (0.0, 1.0, 0.0)


@pytest.mark.planted_bad
def test_the_best_reaches_the_ideal_and_the_worst_gets_nothing():
    best = descending([[4], [0], [1]], 6)
    assert values(Ndcg(k=3), Scored("best", best), WORLD) == (Ndcg.ideal,) * 3
    assert values(Ndcg(k=3), Scored("worst", -best), WORLD) == (0.0,) * 3


def test_the_history_is_not_ranked():
    first_two_seen = trial([[0, 1]], [2], 5)
    assert values(Ndcg(k=1), Scored("hand", descending([[0, 1, 2]], 5)), first_two_seen) == (1.0,)


def test_an_item_of_the_own_history_cannot_be_found():
    assert values(Ndcg(k=5), Scored("hand", descending([[2]], 5)), trial([[2]], [2], 5)) == (0.0,)


def test_the_user_option_asks_the_other_tower():
    ranker = Scored("both", -SCORES, text=descending([[4], [0], [1]], 6))
    assert values(Ndcg(k=5, user="text"), ranker, WORLD) == (1.0, 1.0, 1.0)
    assert values(Ndcg(k=5), ranker, WORLD) != (1.0, 1.0, 1.0)


def test_more_than_the_catalogue_is_refused_and_so_is_nothing():
    with pytest.raises(CompressRecError, match="k is 7, but the catalogue has 6 items"):
        Ndcg(k=7).take(Scored("hand", SCORES), WORLD)
    with pytest.raises(CompressRecError, match="at least 1, but 0 came"):
        Ndcg(k=0).take(Scored("hand", SCORES), WORLD)


def test_the_order_of_users_does_not_matter():
    turned = trial([[3], [1, 2], [0]], [1, 0, 4], 6)
    assert values(Ndcg(k=5), Scored("turned", SCORES.flip(0)), turned) == values(Ndcg(k=5), Scored("hand", SCORES), WORLD)[::-1]


def test_the_label_reads_back():
    assert Ndcg().label == "ndcg@10"
    assert MEASURES.build("ndcg@5[user=text]") == Ndcg(5, "text")


def test_a_random_ranker_gets_what_chance_gives():
    users, items = 400, 40
    generator = torch.Generator().manual_seed(0)
    world = trial([[0]] * users, torch.randint(1, items, (users,), generator=generator).tolist(), items)
    found = values(Ndcg(), Scored("random", torch.rand(users, items, generator=generator)), world)
    expected = sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / (items - 1)
    # five standard errors: a single value has a deviation below .23
    assert sum(found) / users == pytest.approx(expected, abs=5 * 0.23 / users**0.5)
