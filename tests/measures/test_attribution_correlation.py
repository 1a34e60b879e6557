import numpy as np
import pytest
from scipy.stats import spearmanr

from compress_rec.measures.attribution_correlation import AttributionCorrelation, spearman
from compress_rec.trial import TableRanker
from tests.measures.reasons import ITEMS, chance, ranker, vectors, world

WORLD = world()
REFERENCE = WORLD.reference
assert REFERENCE is not None


def test_it_is_spearmans_correlation_ties_included():
    ours, theirs = np.array([1.0, 2, 2, 5, 0]), np.array([3.0, 1, 4, 4, 0])
    assert spearman(ours, theirs) == pytest.approx(spearmanr(ours, theirs).statistic)


def test_the_reference_reaches_the_ideal_against_itself():
    values = AttributionCorrelation().take(REFERENCE, WORLD).values
    assert values == pytest.approx([AttributionCorrelation.ideal] * len(values))


@pytest.mark.planted_bad
def test_a_model_with_every_reason_turned_round_reaches_the_opposite():
    items, behaviours = vectors()
    values = AttributionCorrelation().take(TableRanker("against", -items, behaviours), WORLD).values
    assert values == pytest.approx([-1.0] * len(values))


def test_a_model_of_random_vectors_has_nothing_in_common():
    values = AttributionCorrelation().take(chance("random", 5), WORLD).defined
    assert abs(np.mean(values)) < 4 * np.std(values) / len(values) ** 0.5


def test_undefined_for_fewer_than_two_units_and_for_attributions_that_are_all_the_same():
    assert spearman(np.array([1.0]), np.array([1.0])) is None
    assert spearman(np.zeros(4), np.arange(4.0)) is None
    small = world(histories=[[], [3], [3, 5], list(range(ITEMS))])
    assert [value is None for value in AttributionCorrelation().take(ranker("x", 1), small).values] == [True, True, False, True]
