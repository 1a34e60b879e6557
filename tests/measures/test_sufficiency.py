import numpy as np
import pytest
import torch

from compress_rec.measures.sufficiency import Sufficiency
from tests.explainers.games import Negated
from tests.measures.reasons import ITEMS, ranker, world

WORLD = world()
REFERENCE = WORLD.reference
assert REFERENCE is not None


def means(*explainers: object) -> list[float]:
    return [float(np.mean(Sufficiency(explainer=name).take(REFERENCE, WORLD).defined)) for name in explainers]  # type: ignore[arg-type]


@pytest.mark.planted_bad
def test_true_reasons_alone_keep_more_of_the_score_than_random_and_those_more_than_the_worst():
    shapley, random, worst = means("shapley", "random", Negated())
    assert shapley < random < worst


def test_nothing_is_missing_where_the_first_reason_is_the_only_one():
    only_last = ranker(recency=torch.tensor([1.0]))
    values = Sufficiency(items=1).take(only_last, world(only_last)).defined
    assert values == pytest.approx([0.0] * len(values), abs=1e-9)


def test_undefined_without_history_and_where_nothing_is_left_to_recommend():
    small = world(histories=[[], [3], list(range(ITEMS))])
    assert [value is None for value in Sufficiency().take(ranker(), small).values] == [True, False, True]
