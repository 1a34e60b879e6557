"""Lists over the whole catalogue, against numpy sorting everything."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress_rec.errors import CompressRecError
from compress_rec.ranking import top_k

TIED = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def vectors(rows: int, seed: int) -> Tensor:
    """Four of eight places are ±1: every cosine is a quarter, without any rounding, and many are tied."""
    generator = np.random.default_rng(seed)
    signs = generator.choice([-1.0, 1.0], (rows, 8))
    return torch.from_numpy(signs * (generator.permuted(np.tile(np.arange(8), (rows, 1)), axis=1) < 4)).float()


def sorted_whole(scores: np.ndarray, exclude: list[list[int]], k: int) -> list[list[int]]:
    """The k best of each row by a full sort, ties by the smaller id, -1 where fewer are left."""
    done = []
    for row, out in zip(scores, exclude, strict=True):
        order = [item for item in np.lexsort((np.arange(len(row)), -row)).tolist() if item not in out]
        done.append([*order, *[-1] * k][:k])
    return done


@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 40), st.data())
@settings(max_examples=30, deadline=None)
def test_the_top_is_that_of_a_full_sort_without_what_is_excluded(seed: int, users: int, items: int, data: st.DataObject) -> None:
    one, other = vectors(users, seed), vectors(items, seed + 1)
    k = data.draw(st.integers(1, items))
    exclude = [data.draw(st.lists(st.integers(0, items - 1), max_size=items)) for _ in range(users)]
    scores, ids = top_k(one, other, k, exclude)
    assert (scores.shape, scores.dtype, ids.shape, ids.dtype) == ((users, k), torch.float32, (users, k), torch.int64)
    exact = one.double().numpy() @ other.double().numpy().T / 4
    assert ids.tolist() == sorted_whole(exact, exclude, k)
    left = ids >= 0
    found = torch.from_numpy(exact).gather(1, ids.clamp(min=0))
    assert torch.equal(scores[left].double(), found[left])
    assert (scores[~left] == -math.inf).all()


def test_ties_go_to_the_smaller_id() -> None:
    scores, ids = top_k(torch.tensor([[1.0, 0, 0], [0, 1, 0]]), TIED, 6)
    assert ids.tolist() == [[0, 2, 1, 3, 4, 5], [1, 4, 0, 2, 3, 5]]
    assert scores.tolist() == [[1, 1, 0, 0, 0, -1], [1, 1, 0, 0, 0, 0]]
    assert top_k(torch.tensor([[1.0, 0, 0]]), TIED, 3, [[0, 1]])[1].tolist() == [[2, 3, 4]]


def test_fewer_left_than_asked_for_end_in_minus_one() -> None:
    scores, ids = top_k(torch.tensor([[1.0, 0, 0]]), TIED, 4, [[0, 1, 3, 4, 4]])
    assert ids.tolist() == [[2, 5, -1, -1]]
    assert scores.tolist() == [[1, -1, -math.inf, -math.inf]]


def test_vectors_of_two_models_are_refused() -> None:
    with pytest.raises(CompressRecError) as caught:
        top_k(torch.ones(2, 3), torch.ones(4, 5), 1)
    assert str(caught.value) == "users have 3 dimensions and items 5: they do not come from one model, encode both with it"
