import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from compress_rec.coalitions import MaskGame, PooledTable, pooled_tables, shapley_weights, sizes, subset_sums, units_of
from compress_rec.errors import CompressRecError
from compress_rec.measure import NotApplicable
from compress_rec.trial import Catalogue, TableRanker, Trial, VariantRanker
from tests.measures.worlds import Scored, trial
from tests.models import small_texts, small_variant

seeds = st.integers(0, 2**32 - 1)


def table(seed: int, n: int, dimensions: int = 6) -> PooledTable:
    generator = np.random.default_rng(seed)
    return PooledTable(generator.normal(size=dimensions) / 5, generator.normal(size=(n, dimensions)))


def direct(made: PooledTable, subset: int) -> np.ndarray:
    members = [j for j in range(made.n) if subset >> j & 1]
    total = made.parts[members].sum(0)
    return total / np.linalg.norm(total) if members else made.empty


def permutation_shapley(values: np.ndarray, n: int) -> np.ndarray:
    shares = np.zeros((n, values.shape[1]))
    for order in itertools.permutations(range(n)):
        subset = 0
        for j in order:
            shares[j] += values[subset | 1 << j] - values[subset]
            subset |= 1 << j
    return shares / math.factorial(n)


@given(seeds, st.integers(0, 8))
@settings(max_examples=25, deadline=None)
def test_every_subset_is_the_direct_sum_brought_to_unit_length(seed, n):
    made = table(seed, n)
    embeddings = made.embeddings()
    assert embeddings.shape == (2**n, 6)
    np.testing.assert_allclose(embeddings, [direct(made, subset) for subset in range(2**n)], atol=1e-9)
    queries = np.random.default_rng(seed + 1).normal(size=(3, 6))
    np.testing.assert_allclose(made.values(queries), embeddings @ queries.T, atol=1e-9)


@given(seeds, st.integers(1, 10))
@settings(max_examples=25, deadline=None)
def test_vector_shapley_values_add_up_to_the_whole_minus_the_empty_set(seed, n):
    made = table(seed, n)
    np.testing.assert_allclose(made.shapley().sum(0), made.embeddings()[-1] - made.empty, atol=1e-9)


@given(seeds, st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_shapley_values_are_the_mean_over_all_orders(seed, n):
    made, queries = table(seed, n), np.random.default_rng(seed + 1).normal(size=(2, 6))
    np.testing.assert_allclose(shapley_weights(n) @ made.values(queries), permutation_shapley(made.values(queries), n), atol=1e-9)


@given(seeds, st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_one_vector_table_answers_every_item_and_every_margin(seed, n):
    made, queries = table(seed, n), np.random.default_rng(seed + 1).normal(size=(4, 6))
    shares = made.shapley() @ queries.T
    np.testing.assert_allclose(shares, shapley_weights(n) @ made.values(queries), atol=1e-9)
    margin = queries[:1] - queries[1:2]
    np.testing.assert_allclose(shares[:, :1] - shares[:, 1:2], shapley_weights(n) @ made.values(margin), atol=1e-9)


@given(seeds, st.integers(2, 9))
@settings(max_examples=15, deadline=None)
def test_equal_units_get_equal_shares_and_an_inert_unit_gets_none(seed, n):
    made = table(seed, n)
    made.parts[1] = made.parts[0]
    shares = made.shapley()
    np.testing.assert_allclose(shares[0], shares[1], atol=1e-9)
    made.parts[-1] = 0
    np.testing.assert_allclose(made.shapley()[-1], 0, atol=1e-9)


def test_events_that_cancel_stand_as_the_empty_set():
    made = PooledTable(np.array([0.1, 0.2]), np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0]]))
    embeddings = made.embeddings()
    np.testing.assert_array_equal(embeddings[0b011], made.empty)
    np.testing.assert_array_equal(made.values(np.eye(2))[0b011], made.empty)
    np.testing.assert_allclose(embeddings[0b111], [0, 1])


def test_shapley_values_equal_shaps_exact_explainer(monkeypatch):
    # compiling shap's loops takes far longer than running them as plain Python
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)
    import shap

    game = MaskGame(table(3, 10, 32), np.random.default_rng(4).normal(size=(3, 32)))
    masker = shap.maskers.Independent(np.zeros((1, 10)), max_samples=1)
    found = shap.ExactExplainer(game, masker)(np.ones((1, 10)), max_evals=2**10).values[0]
    np.testing.assert_allclose(shapley_weights(10) @ game.values, found, atol=1e-9)


def test_a_game_reads_masks_unit_by_unit():
    game = MaskGame(table(0, 3), np.eye(6))
    masks = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 1]])
    np.testing.assert_array_equal(game(masks), game.values[[0, 1, 6]])


def test_subsets_are_numbered_by_their_bits():
    np.testing.assert_array_equal(subset_sums(np.array([1.0, 10.0, 100.0])), [0, 1, 10, 11, 100, 101, 110, 111])
    np.testing.assert_array_equal(sizes(3), [0, 1, 1, 2, 1, 2, 2, 3])


@given(st.integers(0, 40), st.integers(2, 12))
def test_units_make_up_the_whole_history_the_most_recent_first(length, limit):
    units = units_of(range(100, 100 + length), limit)
    assert [place for unit in units for place in unit] == list(range(length - 1, -1, -1))
    assert len(units) == min(length, limit)
    assert all(len(unit) == 1 for unit in units[: limit - 1])


@pytest.mark.parametrize("recency", [None, torch.tensor([1.0, 0.5, 0.25]), 0.9 ** torch.arange(50)])
def test_all_units_together_are_the_user_whom_the_ranker_ranks_for(recency):
    generator = torch.Generator().manual_seed(0)
    vectors = F.normalize(torch.randn(40, 8, generator=generator), dim=-1)
    ranker = TableRanker("table", vectors, vectors, recency)
    world = trial([[1], [2, 3, 4], list(range(5, 35)), []], [0, 0, 0, 0], 40)
    tables = pooled_tables(ranker, world)
    users = world.user_vectors(ranker).double().numpy()
    for place in range(3):
        made, units = tables(place)
        assert made.n == len(units) == min(12, len(world.histories[place]))
        np.testing.assert_allclose(made.embeddings()[-1], users[place], atol=1e-6)
        np.testing.assert_allclose(made.empty, users.mean(0), atol=1e-7)
    assert tables(3)[0].embeddings().shape == (1, 8)


def test_an_event_keeps_its_weight_when_later_ones_are_removed():
    vectors = torch.eye(4)
    world = trial([[0, 1, 2]], [3], 4)
    made, _ = pooled_tables(TableRanker("table", vectors, vectors, torch.tensor([1.0, 0.5, 0.25])), world)(0)
    # without the most recent event (unit 0) the other two keep weights .5 and .25
    np.testing.assert_allclose(made.embeddings()[0b110], np.array([0.25, 0.5, 0, 0]) / np.hypot(0.5, 0.25), atol=1e-12)


def test_a_variant_is_taken_apart_like_a_table():
    texts = small_texts(24)
    catalogue = Catalogue(tuple(map(str, range(24))), texts, torch.zeros(24, dtype=torch.bool), torch.ones(24, dtype=torch.int64))
    ranker = VariantRanker(small_variant())
    world = Trial(catalogue, ("a", "b"), (tuple(range(4)), tuple(range(5, 22))), torch.tensor([23, 22]))
    tables = pooled_tables(ranker, world)
    for user in range(2):
        np.testing.assert_allclose(tables(user)[0].embeddings()[-1], world.user_vectors(ranker)[user].double(), atol=1e-6)


def test_a_ranker_without_a_pooled_user_is_not_applicable():
    with pytest.raises(NotApplicable, match="'scored' has no pooled user"):
        pooled_tables(Scored("scored", torch.ones(1, 3)), trial([[0]], [1], 3))


def test_nan_is_refused():
    vectors = torch.eye(3)
    with pytest.raises(CompressRecError, match="'broken' gives NaN or infinity for"):
        pooled_tables(TableRanker("broken", vectors, vectors * torch.nan), trial([[0]], [1], 3))
