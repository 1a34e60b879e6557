"""cosine_top_k_int8: exact whatever the screening lets through, ties by the smaller id, bounds that hold, no dependence on company."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from compress_rec import op
from compress_rec.int8_items import codes_of, quantized
from compress_rec.ops.cosine_top_k_int8 import cosine_top_k_int8
from tests.ops.tried import rand

tiers = pytest.mark.parametrize("tier", op.tiers())
unit = torch.nn.functional.normalize


def ranking(scores: Tensor, k: int) -> tuple[list[list[int]], Tensor]:
    """The best k by float32 score, equal ones by the smaller id: scores (queries, items) float64."""
    rounded = scores.float() + 0.0
    order = torch.sort(rounded, dim=1, descending=True, stable=True).indices[:, :k]
    return order.tolist(), rounded.gather(1, order)


def catalogue(kind: str, count: int, width: int, seed: int) -> Tensor:
    vectors = rand(count, width, seed=seed)
    if kind == "duplicates":
        vectors = vectors[torch.randint(0, max(1, count // 7), (count,), generator=torch.Generator().manual_seed(seed))]
    elif kind == "nearly the same":
        vectors = rand(1, width, seed=seed) + 1e-4 * vectors
    elif kind == "one large number":
        vectors[:, 0] = 40.0
    elif kind == "zeros among them":
        vectors[::3] = 0.0
    return unit(vectors)


@tiers
@settings(max_examples=120, deadline=None)
@given(
    kind=st.sampled_from(["gaussian", "duplicates", "nearly the same", "one large number", "zeros among them"]),
    count=st.sampled_from([1, 5, 16, 17, 90, 700]),
    queries=st.integers(1, 13),
    width=st.integers(1, 50),
    seed=st.integers(0, 2**20),
    part=st.floats(0, 1),
)
def test_exact_on_any_catalogue(tier: str, kind: str, count: int, queries: int, width: int, seed: int, part: float) -> None:
    """The ids and scores of a float64 ranking rounded to float32 once, but where rounding itself decides between two neighbours."""
    items, wanted = catalogue(kind, count, width, seed), unit(rand(queries, width, seed=seed + 1))
    k = max(1, round(part * count))
    with op.force(tier):
        scores, ids, bounds = cosine_top_k_int8(wanted, *quantized(items), items, k)
    exact = unit(wanted.double()) @ items.double().T
    best = exact.sort(dim=1, descending=True).values[:, :k]
    found = exact.gather(1, ids)
    assert all(len(set(row)) == k for row in ids.tolist())
    assert float((found - best).abs().max()) <= 2.0**-23  # a score's own rounding, and that of the query's length
    assert float((scores.double() - found).abs().max()) <= float(bounds.max()) == 5 * 2.0**-24
    tied = scores.diff(dim=1) == 0
    assert (scores.diff(dim=1) <= 0).all()
    assert (ids.diff(dim=1)[tied] > 0).all()


@tiers
def test_equal_items_come_by_their_ids(tier: str) -> None:
    items = unit(rand(7, 24)).repeat(300, 1)
    query = unit(rand(1, 24, seed=1))
    with op.force(tier):
        _, ids, _ = cosine_top_k_int8(query, *quantized(items), items, 301)
    first = int(ids[0, 0])
    assert ids[0, :300].tolist() == list(range(first, 2100, 7))


@tiers
@pytest.mark.parametrize("kind", ["gaussian", "nearly the same", "duplicates"])
@pytest.mark.parametrize(("count", "k"), [(9000, 10), (2500, 100)])
def test_a_query_does_not_depend_on_its_company(tier: str, kind: str, count: int, k: int) -> None:
    """Alone, in a batch, in another order, with two threads, and on either way through the kernel: the same bits."""
    items, queries = catalogue(kind, count, 48, 0), rand(21, 48, seed=1)
    held = quantized(items)
    before = torch.get_num_threads()
    with op.force(tier):
        together = cosine_top_k_int8(queries, *held, items, k)
        flipped = cosine_top_k_int8(queries.flip(0), *held, items, k)
        torch.set_num_threads(2 if before == 1 else 1)
        try:
            threaded = cosine_top_k_int8(queries, *held, items, k)
        finally:
            torch.set_num_threads(before)
        alone = [cosine_top_k_int8(queries[row : row + 1], *held, items, k) for row in range(5)]
    for part in range(3):
        assert torch.equal(flipped[part].flip(0), together[part])
        assert torch.equal(threaded[part], together[part])
        for row, found in enumerate(alone):
            assert torch.equal(found[part][0], together[part][row])


@tiers
def test_codes_alone_stay_within_their_bounds(tier: str) -> None:
    items, queries = catalogue("gaussian", 4000, 64, 0), rand(9, 64, seed=1)
    held = quantized(items)
    with op.force(tier):
        scores, ids, bounds = cosine_top_k_int8(queries, *held, None, 50)
    exact = unit(queries.double()) @ items.double().T
    assert ((scores - exact.gather(1, ids)).abs() <= bounds).all()
    assert 0.003 < float(bounds.mean()) < 0.02
    stands = unit(queries).double() @ (codes_of(held, 64).double() * held.scales.double()[:, None]).T
    order, best = ranking(stands, 50)
    assert float((scores - best).abs().max()) <= 2.0**-23
    assert sum(set(a) == set(b) for a, b in zip(order, ids.tolist(), strict=True)) >= 8


@tiers
def test_removed_items_never_come_back(tier: str) -> None:
    items = catalogue("gaussian", 500, 20, 0)
    items[::2] = math.nan
    queries = rand(12, 20, seed=1)
    with op.force(tier):
        for kept in (items, None):
            scores, ids, _ = cosine_top_k_int8(queries, *quantized(items), kept, 300)
            assert (ids[:, :250] % 2 == 1).all()
            assert (ids[:, 250:] == -1).all()
            assert (scores[:, 250:] == -math.inf).all()


def test_what_was_lost_is_no_less_than_said() -> None:
    items = unit(torch.cat([rand(3000, 40), rand(200, 40, seed=1) ** 9]))
    held = quantized(items)
    lost = (items.double() - codes_of(held, 40).double() * held.scales.double()[:, None]).norm(dim=1)
    assert (lost <= held.residuals.double()).all()
    assert float((held.residuals.double() - lost).max()) < 1e-6
    assert int(codes_of(held, 40).abs().max()) <= 112


def test_a_wrong_residual_would_be_noticed() -> None:
    """The certificate matters: with residuals of nothing, the screening loses items that belong among the best."""
    if op.tier() == op.REFERENCE:
        pytest.skip(f"only a kernel screens: {op.fallback('cosine_top_k_int8')}")
    items, queries = catalogue("gaussian", 20000, 8, 0), rand(64, 8, seed=1)
    held = quantized(items)
    right = cosine_top_k_int8(queries, *held, items, 10)[1]
    broken = held._replace(residuals=torch.full_like(held.residuals, -0.05))
    assert not torch.equal(cosine_top_k_int8(queries, *broken, items, 10)[1], right)
