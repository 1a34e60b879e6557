import numpy as np

from compress_rec.explainers.random import Random
from tests.explainers.games import game


def test_it_hangs_on_the_seed_and_the_key_and_on_nothing_of_the_model():
    first = Random().explain(game(6, seed=0, key="a"), 0)
    np.testing.assert_array_equal(first, Random().explain(game(6, seed=1, key="a"), 0))
    assert (first != Random().explain(game(6, key="b"), 0)).all()
    assert (first != Random().explain(game(6, key="a"), 1)).all()
