import numpy as np

from compress_rec.explainers.occlusion import Occlusion
from tests.explainers.games import game


def test_it_is_the_fall_of_the_score_without_the_unit():
    asked = game(5)
    masks = np.ones((5, 5), dtype=bool) ^ np.eye(5, dtype=bool)
    np.testing.assert_allclose(Occlusion().explain(asked, 0), asked(np.ones((1, 5))) - asked(masks), atol=1e-12)


def test_units_that_stand_in_for_each_other_get_nothing():
    asked = game(2)
    asked.table.parts[1] = asked.table.parts[0]
    np.testing.assert_allclose(Occlusion().explain(asked, 0), 0, atol=1e-12)
