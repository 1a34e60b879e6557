import pytest

from compress_rec.measure import MEASURES
from compress_rec.measures.mrr import Mrr
from tests.measures.worlds import Scored, descending, trial, values

WORLD = trial([[0], [1, 2], [3]], [4, 0, 1], 6)
# ranks of the held-out items: 2, 1 and 5
SCORES = descending([[0, 5, 4], [2, 0], [3, 0, 2, 4, 5, 1]], 6)


@pytest.mark.parametrize(("k", "wanted"), [(1, (0.0, 1.0, 0.0)), (2, (0.5, 1.0, 0.0)), (5, (0.5, 1.0, 0.2))])
def test_hand_worked_values(k: int, wanted: tuple[float, ...]):
    assert values(Mrr(k=k), Scored("hand", SCORES), WORLD) == pytest.approx(wanted)


@pytest.mark.planted_bad
def test_the_best_reaches_the_ideal_and_the_worst_gets_nothing():
    best = descending([[4], [0], [1]], 6)
    assert values(Mrr(k=3), Scored("best", best), WORLD) == (Mrr.ideal,) * 3
    assert values(Mrr(k=3), Scored("worst", -best), WORLD) == (0.0,) * 3


def test_the_label_reads_back():
    assert Mrr().label == "mrr@10"
    assert MEASURES.build("mrr@3") == Mrr(3)
