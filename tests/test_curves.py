import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec import curves
from compress_rec.coalitions import subset_sums

seeds = st.integers(0, 2**32 - 1)


def all_orders(n: int) -> np.ndarray:
    return np.array(list(itertools.permutations(range(n)))).T  # (n, n!)


def test_hand_worked_areas():
    # v(∅) = 0, v(a) = 1, v(b) = 3, v(ab) = 5; order: b, then a
    values, order = np.array([[0.0], [1.0], [3.0], [5.0]]), np.array([[1], [0]])
    assert curves.comprehensiveness(values, order) == pytest.approx([((5 - 1) + (5 - 0)) / 2])
    assert curves.sufficiency(values, order) == pytest.approx([((5 - 3) + 0) / 2])
    assert curves.best_comprehensiveness(values) == pytest.approx([4.5])
    assert curves.mean_comprehensiveness(values) == pytest.approx([(4.5 + (5 - 3 + 5) / 2) / 2])


@given(seeds, st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_the_bound_is_the_best_of_all_orders_and_the_baseline_their_mean(seed, n):
    values = np.random.default_rng(seed).normal(size=(2**n, 1))
    orders = all_orders(n)
    reached = curves.comprehensiveness(np.repeat(values, orders.shape[1], axis=1), orders)
    assert curves.best_comprehensiveness(values)[0] == pytest.approx(reached.max(), abs=1e-12)
    assert curves.mean_comprehensiveness(values)[0] == pytest.approx(reached.mean(), abs=1e-12)


@given(seeds, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_questions_do_not_touch_each_other(seed, n):
    generator = np.random.default_rng(seed)
    values, shares = generator.normal(size=(2**n, 3)), generator.normal(size=(n, 3))
    order = curves.order_of(shares)
    for column in range(3):
        one = slice(column, column + 1)
        assert curves.comprehensiveness(values, order)[one] == pytest.approx(curves.comprehensiveness(values[:, one], order[:, one]))
        assert curves.best_comprehensiveness(values)[one] == pytest.approx(curves.best_comprehensiveness(values[:, one]))


@given(seeds, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_in_an_additive_game_the_units_own_worth_is_the_best_order(seed, n):
    worth = np.random.default_rng(seed).normal(size=(n, 1))
    values = subset_sums(worth)
    assert curves.comprehensiveness(values, curves.order_of(worth)) == pytest.approx(curves.best_comprehensiveness(values), abs=1e-12)


def test_equal_attributions_go_to_the_more_recent_unit():
    assert curves.order_of(np.array([[1.0], [2.0], [1.0], [2.0]])).ravel().tolist() == [1, 3, 0, 2]


def test_no_unit_is_worth_nothing():
    assert curves.mean_comprehensiveness(np.ones((1, 2))).tolist() == curves.best_comprehensiveness(np.ones((1, 2))).tolist() == [0, 0]
