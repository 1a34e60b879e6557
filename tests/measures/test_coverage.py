import pytest

from compress_rec.measure import MEASURES
from compress_rec.measures.coverage import Coverage
from tests.measures.worlds import Scored, descending, trial

WORLD = trial([[0], [0], [0]], [1, 1, 1], 10)


def covered(ranker: Scored, k: int) -> float | None:
    samples = Coverage(k=k).take(ranker, WORLD)
    assert samples.units == {}
    return samples.values[0]


def test_hand_worked_values():
    # lists 1 2, 2 3 and 1 4: four of ten items
    assert covered(Scored("hand", descending([[0, 1, 2], [2, 3], [1, 4]], 10)), 2) == 0.4
    assert Coverage(k=2).take(Scored("hand", descending([[1, 2]] * 3, 10)), WORLD).notes == {"items": 2, "users": 3, "most": 0.6}


@pytest.mark.planted_bad
def test_the_same_list_for_all_is_the_least_and_disjoint_lists_are_the_most():
    assert covered(Scored("same", descending([[1, 2, 3]] * 3, 10)), 3) == 0.3
    assert covered(Scored("disjoint", descending([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 10)), 3) == 0.9


def test_missing_places_do_not_count():
    # one item is left
    assert Coverage(k=3).take(Scored("hand", descending([[0]], 4)), trial([[0, 1, 2]], [3], 4)).values == (0.25,)


def test_the_label_reads_back():
    assert Coverage().label == "coverage@10"
    assert MEASURES.build("coverage@20") == Coverage(20)
    assert Coverage.summary == "once"
    assert pytest.approx(1.0) == Coverage(k=10).take(Scored("all", descending([[9]] * 3, 10)), trial([[], [], []], [1, 1, 1], 10)).values[0]
