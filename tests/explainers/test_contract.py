import numpy as np
import pytest

from compress_rec.explainer import EXPLAINERS
from tests.explainers.games import game

NAMES = sorted(EXPLAINERS.classes())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [1, 2, 7, 12])
def test_one_finite_attribution_a_unit_and_question(name, n):
    shares = EXPLAINERS.build(name).explain(game(n, questions=3), 0)
    assert shares.shape == (n, 3)
    assert shares.dtype == np.float64
    assert np.isfinite(shares).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_user_without_history_has_no_attributions(name):
    assert EXPLAINERS.build(name).explain(game(0), 0).shape == (0, 2)


@pytest.mark.parametrize("name", NAMES)
def test_same_game_and_seed_same_bits(name):
    explainer = EXPLAINERS.build(name)
    np.testing.assert_array_equal(explainer.explain(game(6), 3), explainer.explain(game(6), 3))


@pytest.mark.parametrize("name", NAMES)
def test_the_label_reads_back_and_there_is_a_card(name):
    explainer = EXPLAINERS.build(name)
    assert EXPLAINERS.build(explainer.label) == explainer
    assert EXPLAINERS.cards()[name]
