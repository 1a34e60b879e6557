import numpy as np
import pytest
import torch

from compress_rec.errors import CompressRecError
from compress_rec.measures.attribution_agreement import AttributionAgreement, agreement
from compress_rec.trial import TableRanker
from tests.measures.reasons import ITEMS, chance, ranker, vectors, world

WORLD = world()
REFERENCE = WORLD.reference
assert REFERENCE is not None


def near(values: tuple[float, ...]) -> bool:
    return abs(np.mean(values)) < 4 * np.std(values) / len(values) ** 0.5


def test_hand_worked_values():
    # 9 units: 3 compared, chance 1/3; two of three shared: (2/3 - 1/3)/(2/3) = 1/2
    assert agreement(np.array([9.0, 8, 7, 0, 0, 0, 0, 0, 1]), np.array([9.0, 8, 0, 7, 0, 0, 0, 0, 1]), 3) == pytest.approx(0.5)
    # 4 units: ⌈4/3⌉ = 2 compared, chance 1/2; none shared: -1
    assert agreement(np.array([4.0, 3, 2, 1]), np.array([1.0, 2, 3, 4]), 3) == pytest.approx(-1)
    # 2 units: 1 compared
    assert agreement(np.array([1.0, 0]), np.array([2.0, 0]), 3) == pytest.approx(1)


def test_the_reference_reaches_the_ideal_against_itself_and_so_does_a_turned_copy_of_it():
    assert set(AttributionAgreement().take(REFERENCE, WORLD).values) == {AttributionAgreement.ideal}
    turn = torch.linalg.qr(torch.randn(48, 48, generator=torch.Generator().manual_seed(9)))[0]
    items, behaviours = vectors()
    turned = AttributionAgreement().take(TableRanker("turned", items @ turn, behaviours @ turn), WORLD).values
    assert turned == pytest.approx([1.0] * len(turned))


@pytest.mark.planted_bad
def test_a_model_of_random_vectors_agrees_as_chance_does():
    assert near(AttributionAgreement().take(chance("random", 5), WORLD).defined)


def test_random_attributions_agree_as_chance_does_even_for_the_reference():
    assert near(AttributionAgreement(explainer="random").take(REFERENCE, WORLD).defined)


def test_another_model_that_knows_the_rule_lies_between():
    values = AttributionAgreement().take(ranker("other", 1), WORLD).defined
    assert 0.05 < np.mean(values) < 0.9


def test_undefined_for_fewer_than_two_units_and_for_attributions_that_are_all_the_same():
    assert agreement(np.array([1.0]), np.array([1.0]), 3) is None
    assert agreement(np.zeros(4), np.arange(4.0), 3) is None
    small = world(histories=[[], [3], [3, 5], list(range(ITEMS))])
    assert [value is None for value in AttributionAgreement().take(ranker("x", 1), small).values] == [True, True, False, True]


def test_no_reason_to_compare_is_refused():
    with pytest.raises(CompressRecError, match="k is 0"):
        AttributionAgreement(k=0).take(REFERENCE, WORLD)
