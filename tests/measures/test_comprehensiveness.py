import numpy as np
import pytest

from compress_rec.measures.comprehensiveness import Comprehensiveness
from tests.explainers.games import Negated
from tests.measures.reasons import ITEMS, ranker, world

WORLD = world()
REFERENCE = WORLD.reference
assert REFERENCE is not None


def means(*explainers: object) -> list[float]:
    return [float(np.mean(Comprehensiveness(explainer=name).take(REFERENCE, WORLD).defined)) for name in explainers]  # type: ignore[arg-type]


@pytest.mark.planted_bad
def test_true_reasons_take_more_of_the_score_with_them_than_random_and_those_more_than_the_worst():
    shapley, random, worst = means("shapley", "random", Negated())
    assert shapley > 1.5 * random > 0
    assert random > 1.5 * worst


def test_a_single_event_takes_the_whole_score_over_the_empty_set():
    small = world(histories=[[3], [10, 20]])
    judged = small.reference
    assert judged is not None
    value = Comprehensiveness(items=1).take(judged, small).values[0]
    lists = small.lists(judged, "pooled", 11)[0].tolist()
    question = (small.items(judged)[lists[0]] - small.items(judged)[lists[10]]).double()
    users = small.user_vectors(judged).double()
    assert value == pytest.approx(float((users[0] - users.mean(0)) @ question), abs=1e-6)


def test_undefined_without_history_and_where_nothing_is_left_to_recommend():
    small = world(histories=[[], [3], list(range(ITEMS))])
    assert [value is None for value in Comprehensiveness().take(ranker(), small).values] == [True, False, True]
