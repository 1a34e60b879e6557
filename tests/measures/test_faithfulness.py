import numpy as np
import pytest
import torch

from compress_rec import curves
from compress_rec.errors import CompressRecError
from compress_rec.explanations import cases, games
from compress_rec.measure import MEASURES, NotApplicable
from compress_rec.measures.faithfulness import Faithfulness, normalised
from compress_rec.trial import TableRanker
from tests.explainers.games import Negated, game
from tests.measures.reasons import ITEMS, chance, ranker, world
from tests.measures.worlds import Scored

WORLD = world()
REFERENCE = WORLD.reference
assert REFERENCE is not None


def mean(measure: Faithfulness, judged=REFERENCE) -> float:
    return float(np.mean(measure.take(judged, WORLD).defined))


def test_shapley_lies_close_above_occlusion_and_far_above_random():
    shapley, occlusion = mean(Faithfulness()), mean(Faithfulness(explainer="occlusion"))
    assert 0.9 < shapley <= 1
    assert occlusion < shapley


def test_random_attributions_come_out_at_nought():
    values = Faithfulness(explainer="random").take(REFERENCE, WORLD).defined
    assert abs(np.mean(values)) < 4 * np.std(values) / len(values) ** 0.5


@pytest.mark.planted_bad
def test_planted_bad_reasons_are_worse_than_random():
    assert mean(Faithfulness(explainer=Negated())) < -0.5  # type: ignore[arg-type]


def test_the_ideal_is_reached_where_one_item_is_the_only_reason():
    only_last = ranker(recency=torch.tensor([1.0]))
    values = Faithfulness().take(only_last, world(only_last)).defined
    assert values == pytest.approx([Faithfulness.ideal] * len(values), abs=1e-9)


@pytest.mark.parametrize("place", range(9))
def test_hand_worked_value_where_the_only_reason_is_named_at_some_place(place):
    # AOPC is D(n - p)/n for the single cause at place p, the best D, the mean D(n + 1)/2n: F = 1 - 2p/(n - 1)
    only_last = ranker(recency=torch.tensor([1.0]))
    small = world(only_last)
    asked = next(games(only_last, small, cases(small, 1, 1)))
    shares = -np.arange(9.0)
    shares[0] = -place - 0.5  # the last event, unit 0, behind units 1 … place
    assert normalised(asked, shares[:, None]) == pytest.approx([1 - 2 * place / 8])


def test_it_is_the_gain_over_random_in_terms_of_the_best_gain():
    asked = game(6)
    shares = np.random.default_rng(0).normal(size=(6, 2))
    chance_level = curves.mean_comprehensiveness(asked.values)
    gain = curves.comprehensiveness(asked.values, curves.order_of(shares)) - chance_level
    assert normalised(asked, shares) == pytest.approx(list(gain / (curves.best_comprehensiveness(asked.values) - chance_level)))


def test_undefined_for_histories_with_fewer_than_two_units_and_for_full_ones():
    small = world(histories=[[], [3], [3, 5], list(range(ITEMS))])
    assert small.reference is not None
    values = Faithfulness().take(small.reference, small).values
    assert [value is None for value in values] == [True, True, False, True]


def test_undefined_for_a_model_that_does_not_look_at_the_history():
    same = TableRanker("same", ranker().items, torch.ones(ITEMS, 48) / 48**0.5)
    assert set(Faithfulness().take(same, WORLD).values) == {None}


def test_the_pairs_are_the_references_whatever_is_judged():
    other = Faithfulness(sample=20).take(chance("other", 2), WORLD)
    assert other.units == Faithfulness(sample=20).take(REFERENCE, WORLD).units
    assert len(other.values) == 20


def test_a_ranker_without_a_pooled_user_is_not_applicable():
    with pytest.raises(NotApplicable, match="'scored' has no pooled user"):
        Faithfulness().take(Scored("scored", torch.ones(80, ITEMS)), WORLD)


def test_an_unknown_explainer_is_refused_with_the_nearest():
    with pytest.raises(CompressRecError, match="did you mean 'shapley'"):
        Faithfulness(explainer="shaply").take(REFERENCE, WORLD)


def test_the_label_reads_back():
    assert Faithfulness().label == "faithfulness"
    assert MEASURES.build("faithfulness[items=1,explainer=random]") == Faithfulness(1, "random")
