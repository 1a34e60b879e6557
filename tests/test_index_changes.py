"""Items join and leave an index, whatever the format: ids stay, what is removed is not found, and every score lies within its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.index import CosineIndex
from tests.test_index import ITEMS, QUERIES, formats, tiers


@tiers
@formats
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_life_of_adding_removing_and_searching(tier: str, format: str, data: st.DataObject) -> None:
    """Against a dictionary of float64 vectors: every score within its bound, nothing better left out, ids and exclusions respected."""
    draw = data.draw
    width = draw(st.integers(1, 20))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    scales = st.sampled_from([0.0, 1e-200, 1e-20, 1.0, 1e20, 1e200])

    def some(count: int) -> torch.Tensor:
        """Coarse numbers, so that there are duplicates and ties, at any length."""
        return torch.randint(-2, 3, (count, width), generator=generator).double() * draw(scales)

    def units(vectors: torch.Tensor) -> torch.Tensor:
        vectors = vectors / vectors.abs().amax(1, keepdim=True).clamp(min=1e-300)
        return torch.nn.functional.normalize(vectors, eps=1e-300)

    first = some(draw(st.sampled_from([1, 5, 16, 17, 40])))
    with op.force(tier):
        index, model, given_out = CosineIndex(first, format), dict(enumerate(units(first))), len(first)
        for deed in draw(st.lists(st.sampled_from(["add", "remove", "search", "search"]), max_size=12)):
            if deed == "add":
                more = some(draw(st.sampled_from([0, 1, 3, 15, 16, 33])))
                ids = index.add(more)
                assert ids.dtype == torch.int64
                assert ids.tolist() == list(range(given_out, given_out + len(more)))
                model |= dict(zip(ids.tolist(), units(more), strict=True))
                given_out += len(more)
            elif deed == "remove":
                gone = draw(st.lists(st.sampled_from(sorted(model)), unique=True, max_size=20)) if model else []
                index.remove(gone)
                for item in gone:
                    del model[item]
            elif model:
                queries = some(draw(st.integers(1, 4)))
                k = draw(st.integers(1, len(model)))
                exclude = [draw(st.lists(st.integers(0, given_out - 1), max_size=8)) for _ in queries]
                scores, ids, bounds = index.search(queries, k, exclude=exclude, bounds=True)
                widest = index.search(queries, len(model), bounds=True)[2].amax(dim=1)
                _check(model, units(queries), k, exclude, scores, ids, bounds, widest)
            assert len(index) == len(model)
            assert (~index.vectors.isnan().any(1)).nonzero()[:, 0].tolist() == sorted(model)


def _check(model, queries, k, exclude, scores, ids, bounds, widest) -> None:  # type: ignore[no-untyped-def]
    assert scores.shape == ids.shape == bounds.shape == (len(queries), k)
    rows = zip(queries, exclude, ids.tolist(), scores.double(), bounds.double(), widest.tolist(), strict=True)
    for query, excluded, found, row, near, wide in rows:
        left = {item: float(vector @ query) for item, vector in model.items() if item not in excluded}
        count = min(k, len(left))
        assert found[count:] == [-1] * (k - count)
        assert row[count:].tolist() == [-math.inf] * (k - count)
        assert near[count:].tolist() == [0.0] * (k - count)
        assert len(set(found[:count])) == count
        exact = torch.tensor([left[item] for item in found[:count]], dtype=torch.float64)  # a KeyError is an item that may not be found
        assert ((row[:count] - exact).abs() <= near[:count] + 1e-15).all()
        assert (row[:count].diff() <= 0).all()
        assert all(a < b for a, b, step in zip(found, found[1:], row[:count].diff().tolist(), strict=False) if step == 0)
        missed = [score for item, score in left.items() if item not in found]
        # what was left out scored at most the last one found, and lies as near to its exact cosine as the widest bound of all
        if missed and count:
            assert max(missed) <= float(row[count - 1]) + wide + 1e-15


@formats
def test_added_items_are_found_as_if_they_had_always_been_there(format: str) -> None:
    whole = CosineIndex(ITEMS, format)
    for first in (1, 16, 23, 48, 59):
        grown = CosineIndex(ITEMS[:first].float(), format)
        assert grown.add(ITEMS[first:].numpy()).tolist() == list(range(first, 60))
        # the first rows were rounded to float32 before their lengths were taken
        assert torch.equal(grown.search(QUERIES, 60)[1], whole.search(QUERIES, 60)[1])
    halves = CosineIndex(ITEMS[:23], format)
    halves.add(ITEMS[23:])
    for one, two in zip(halves.search(QUERIES, 60, bounds=True), whole.search(QUERIES, 60, bounds=True), strict=True):
        assert torch.equal(one, two)
    assert torch.equal(halves.vectors, whole.vectors)


@formats
@pytest.mark.parametrize("kind", [list, tuple, set, iter, np.array, torch.tensor])
def test_removed_items_are_not_found_and_may_still_be_excluded(format: str, kind) -> None:  # type: ignore[no-untyped-def]
    index = CosineIndex(ITEMS, format)
    best = index.search(QUERIES[:1], 6)[1][0].tolist()
    index.remove(kind(best[:2]))
    assert len(index) == 58
    assert index.search(QUERIES[:1], 4)[1][0].tolist() == best[2:]
    assert index.search(QUERIES[:1], 3, exclude=[best[:3]])[1][0].tolist() == best[3:]
    assert index.add(ITEMS[best[:1]]).tolist() == [60]
    assert index.search(QUERIES[:1], 2)[1][0].tolist() == [60, best[2]]


@formats
def test_an_index_may_lose_all_its_items_and_get_new_ones(format: str) -> None:
    index = CosineIndex(ITEMS, format)
    index.remove([])
    index.remove(range(60))
    assert len(index) == 0
    with pytest.raises(CompressRecError) as refused:
        index.search(QUERIES, 1)
    assert str(refused.value) == "a search needs at least one item in the index, but all 60 were removed: add items first"
    assert index.add(ITEMS[:2]).tolist() == [60, 61]
    assert sorted(index.search(QUERIES[:1], 2)[1][0].tolist()) == [60, 61]


@formats
def test_an_index_made_under_inference_mode_changes_outside(format: str) -> None:
    with torch.inference_mode():
        index = CosineIndex(ITEMS, format)
    best = index.search(QUERIES[:1], 2)[1][0].tolist()
    index.remove(best[:1])
    index.add(ITEMS[:1])
    assert index.search(QUERIES[:1], 1)[1].tolist() == [best[1:]]


@pytest.mark.parametrize("change", [lambda i: i.add(ITEMS.index_fill(0, torch.tensor(4), math.inf)), lambda i: i.remove([1, 2, 60])])
@formats
def test_a_refused_change_changes_nothing(change, format: str) -> None:  # type: ignore[no-untyped-def]
    index, untouched = CosineIndex(ITEMS, format), CosineIndex(ITEMS, format)
    with pytest.raises(CompressRecError):
        change(index)
    assert len(index) == 60
    assert torch.equal(index.search(QUERIES, 60)[0], untouched.search(QUERIES, 60)[0])
