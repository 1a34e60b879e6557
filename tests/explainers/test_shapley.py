import numpy as np

from compress_rec.explainers.shapley import Shapley
from tests.explainers.games import game


def test_attributions_add_up_to_the_whole_score_minus_the_empty_sets():
    asked = game(12, questions=5)
    np.testing.assert_allclose(Shapley().explain(asked, 0).sum(0), asked.values[-1] - asked.values[0], atol=1e-9)


def test_they_are_products_of_the_vector_values_with_the_questions():
    asked = game(9)
    np.testing.assert_allclose(Shapley().explain(asked, 0), asked.table.shapley() @ asked.queries.T, atol=1e-9)
