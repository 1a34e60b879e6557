import pytest
import torch

from compress_rec.measure import MEASURES
from compress_rec.measures.recall import Recall
from tests.measures.worlds import Scored, descending, trial, values

WORLD = trial([[0], [1, 2], [3]], [4, 0, 1], 6)
# ranks of the held-out items: 2, 1 and 5
SCORES = descending([[0, 5, 4], [2, 0], [3, 0, 2, 4, 5, 1]], 6)


@pytest.mark.parametrize(("k", "wanted"), [(1, (0.0, 1.0, 0.0)), (2, (1.0, 1.0, 0.0)), (4, (1.0, 1.0, 0.0)), (5, (1.0, 1.0, 1.0))])
def test_hand_worked_values(k: int, wanted: tuple[float, ...]):
    assert values(Recall(k=k), Scored("hand", SCORES), WORLD) == wanted


@pytest.mark.planted_bad
def test_the_best_reaches_the_ideal_and_the_worst_gets_nothing():
    best = descending([[4], [0], [1]], 6)
    assert values(Recall(k=1), Scored("best", best), WORLD) == (Recall.ideal,) * 3
    assert values(Recall(k=1), Scored("worst", -best), WORLD) == (0.0,) * 3


def test_a_random_ranker_gets_k_of_the_unseen_items():
    users, items = 400, 41
    generator = torch.Generator().manual_seed(1)
    world = trial([[0]] * users, torch.randint(1, items, (users,), generator=generator).tolist(), items)
    found = values(Recall(), Scored("random", torch.rand(users, items, generator=generator)), world)
    # 10 of 40 unseen items; five standard errors of a share of a quarter
    assert sum(found) / users == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / users) ** 0.5)


def test_the_label_reads_back():
    assert Recall().label == "recall@10"
    assert MEASURES.build("recall@20") == Recall(20)
