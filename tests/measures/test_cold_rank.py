import pytest
import torch

from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.cold_rank import ColdRank
from tests.measures.worlds import Scored, descending, trial, values

ITEMS, COLD = 8, (5, 6, 7)


def world(answers: tuple[tuple[int, ...], ...], history: tuple[int, ...] = (0, 1)):
    return trial(
        [[0]], [1], ITEMS, cold=COLD, cold_users=tuple(f"c{user}" for user in range(len(answers))),
        cold_histories=(history,) * len(answers), cold_answers=answers,
    )  # fmt: skip


def scored(cold: torch.Tensor) -> Scored:
    return Scored("hand", torch.ones(1, ITEMS), cold=cold)


def test_hand_worked_values():
    # ranked: 0 2 6 3 7 4 1 5, history 0 and 1. User 0 wants 6: of 2 3 4 5 7 one is above, 1/5. User 1 wants 6 and 5: of 2 3 4 7 one is
    # above 6 and all four above 5, (1/4 + 1) / 2
    order = [0, 2, 6, 3, 7, 4, 1, 5]
    assert values(ColdRank(), scored(descending([order, order], ITEMS)), world(((6,), (5, 6)))) == pytest.approx((1 / 5, 5 / 8))


@pytest.mark.planted_bad
def test_the_best_reaches_the_ideal_and_the_worst_stands_last():
    best = descending([[0, 1, 6], [0, 1, 5, 6]], ITEMS)
    assert values(ColdRank(), scored(best), world(((6,), (5, 6)))) == (ColdRank.ideal,) * 2
    assert values(ColdRank(), scored(-best), world(((6,), (5, 6)))) == (1.0, 1.0)


def test_ties_count_by_half():
    assert values(ColdRank(), scored(torch.ones(1, ITEMS)), world(((6,),))) == (0.5,)


def test_nothing_left_to_compare_with_is_undefined():
    assert values(ColdRank(), scored(torch.ones(1, ITEMS)), world(((5, 6, 7),), history=(0, 1, 2, 3, 4))) == (None,)


def test_it_does_not_apply_without_cold_items():
    with pytest.raises(NotApplicable, match="set cold_items"):
        ColdRank().take(scored(torch.ones(1, ITEMS)), trial([[0]], [1], ITEMS))


def test_the_label_reads_back():
    assert ColdRank().label == "cold_rank"
    assert MEASURES.build("cold_rank[user=text]") == ColdRank("text")
