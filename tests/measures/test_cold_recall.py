import itertools

import pytest
import torch

from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.cold_recall import ColdRecall
from compress_rec.trial import TableRanker
from tests.measures.worlds import Scored, descending, trial, values

ITEMS, COLD = 8, (4, 5, 6, 7)
ANSWERS = ((5,), (4, 6, 7))


def world(answers: tuple[tuple[int, ...], ...] = ANSWERS, cold: tuple[int, ...] = COLD):
    return trial(
        [[0]], [1], ITEMS, cold=cold, cold_users=tuple(f"c{user}" for user in range(len(answers))),
        cold_histories=((0, 1),) * len(answers), cold_answers=answers,
    )  # fmt: skip


def scored(cold: torch.Tensor) -> Scored:
    return Scored("hand", torch.ones(1, ITEMS), cold=cold)


def test_hand_worked_values():
    # only 4 … 7 are ranked: user 0 sees 4 5 6 7 and wants 5; user 1 sees 5 7 4 6 and wants 4 6 7
    ranker = scored(descending([[0, 4, 1, 5, 6, 7], [5, 0, 7, 4, 6]], ITEMS))
    assert values(ColdRecall(k=1), ranker, world()) == (0.0, 0.0)
    assert values(ColdRecall(k=2), ranker, world()) == (1.0, 1 / 2)
    assert values(ColdRecall(k=3), ranker, world()) == pytest.approx((1.0, 2 / 3))
    assert values(ColdRecall(k=10), ranker, world()) == (1.0, 1.0)


@pytest.mark.planted_bad
def test_the_best_reaches_the_ideal_and_the_worst_gets_nothing():
    best = descending([[5], [4, 6, 7]], ITEMS)
    assert values(ColdRecall(k=2), scored(best), world()) == (ColdRecall.ideal,) * 2
    assert values(ColdRecall(k=1), scored(-best), world()) == (0.0, 0.0)


def test_warm_items_do_not_compete():
    ranker = scored(descending([[0, 1, 2, 3, 5], [0, 1, 2, 3, 4, 6, 7]], ITEMS))
    assert values(ColdRecall(k=1), ranker, world()) == (1.0, 1.0)


def test_who_knows_nothing_of_cold_items_gets_what_chance_gives():
    # all cold items tie: k of 4 are drawn, in expectation k/4 of the relevant ones are among them
    level = torch.ones(2, ITEMS)
    assert values(ColdRecall(k=1), scored(level), world()) == pytest.approx((1 / 4, 3 / 4))
    assert values(ColdRecall(k=2), scored(level), world()) == pytest.approx((2 / 4, 3 * 2 / 4 / 2))
    for k in (1, 2, 3, 4, 10):
        samples = ColdRecall(k=k).take(scored(level), world())
        assert samples.notes["chance"] == pytest.approx(sum(samples.defined) / 2)


def test_ties_equal_the_mean_over_all_orders():
    scores = torch.tensor([[0.0, 0, 0, 0, 2, 1, 1, 1]])
    ties = values(ColdRecall(k=2), scored(scores), world(((5, 6),)))
    broken = []
    for order in itertools.permutations((0.1, 0.2, 0.3)):
        row = scores.clone()
        row[0, 5:] += torch.tensor(order)
        broken += values(ColdRecall(k=2), scored(row), world(((5, 6),)))
    assert ties == pytest.approx((sum(broken) / 6,))
    assert ties == pytest.approx((1 / 3,))


def test_equal_vectors_tie_whatever_the_matrix_product_rounds_to():
    # 67 columns of 5 numbers: no multiple of a vector's width, so that the last columns take another path
    items = torch.nn.functional.normalize(torch.randn(1, 5, generator=torch.Generator().manual_seed(0)), dim=-1).repeat(67, 1)
    behaviours = torch.nn.functional.normalize(torch.randn(67, 5, generator=torch.Generator().manual_seed(1)), dim=-1)
    cold = tuple(range(7, 67))
    shelf = trial([[0]], [1], 67, cold=cold, cold_users=("c",), cold_histories=((0, 1, 2),), cold_answers=((66,),))
    assert values(ColdRecall(), TableRanker("level", items, behaviours), shelf) == pytest.approx((10 / 60,))


def test_it_does_not_apply_without_cold_items_or_without_users_of_them():
    with pytest.raises(NotApplicable, match="set cold_items"):
        ColdRecall().take(scored(torch.ones(2, ITEMS)), world(cold=()))
    with pytest.raises(NotApplicable, match="there are none"):
        ColdRecall().take(scored(torch.ones(2, ITEMS)), trial([[0]], [1], ITEMS, cold=COLD))


def test_the_label_reads_back():
    assert ColdRecall().label == "cold_recall@10"
    assert MEASURES.build("cold_recall@5") == ColdRecall(5)
