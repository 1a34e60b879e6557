"""cosine_top_k_panels: order, ties, exclusion, removed items, and that a query does not depend on its company."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec import op
from compress_rec.ops.cosine_top_k_panels import cosine_top_k_panels
from compress_rec.panels import packed
from tests.ops.tried import along_axes, assert_the_full_ranking, rand

TIERS = op.tiers()
tiers = pytest.mark.parametrize("tier", TIERS)


@tiers
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_exact_on_small_integers(tier: str, data: st.DataObject) -> None:
    """Where every product and sum is exact in float32, ids must be those of the full ranking, ties, removed items and all.

    The queries are unit vectors along an axis, so that many items tie. What lies behind the last item in its panel must not matter.
    """
    width = data.draw(st.integers(1, 11))
    count = data.draw(st.sampled_from([1, 7, 16, 33, 150, 700]))
    seed = data.draw(st.integers(0, 2**20))
    items = torch.randint(-2, 3, (count, width), generator=torch.Generator().manual_seed(seed)).float()
    removed = set(data.draw(st.lists(st.integers(0, count - 1), max_size=6)))
    for item in removed:
        items[item, data.draw(st.integers(0, width - 1))] = math.nan
    axes = data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=14))
    queries = along_axes(axes, width)
    k = data.draw(st.integers(1, count))
    lists = [data.draw(st.lists(st.integers(0, count - 1), max_size=12)) for _ in axes]
    exclude = torch.tensor([i for ids in lists for i in ids], dtype=torch.int64)
    offsets = torch.tensor([0, *[len(ids) for ids in lists]]).cumsum(0)
    panels = packed(items)
    if count % 16:
        panels[-1, :, count % 16 :] = data.draw(st.sampled_from([0.0, 99.0, math.nan]))
    with op.force(tier):
        scores, ids = cosine_top_k_panels(queries, panels, count, k, exclude, offsets)
    assert_the_full_ranking(scores, ids, items, axes, k, [{*excluded, *removed} for excluded in lists])


@tiers
@settings(max_examples=40, deadline=None)
@given(
    queries=st.integers(1, 15),
    items=st.integers(1, 90),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**20),
    magnitude=st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]),
)
def test_cosines_of_any_shape_and_length(tier: str, queries: int, items: int, width: int, seed: int, magnitude: float) -> None:
    """Against float64: a cosine of unit vectors rounded to float32 and summed in float32 is off by (width + 4) half units at most."""
    left, right = rand(queries, width, seed=seed) * magnitude, rand(items, width, seed=seed + 1).double()
    with op.force(tier):
        scores, ids = cosine_top_k_panels(left, packed(torch.nn.functional.normalize(right).float()), items, items)
    exact = torch.nn.functional.normalize(left.double(), eps=0) @ torch.nn.functional.normalize(right, eps=0).T
    assert torch.equal(ids.sort(dim=1).values, torch.arange(items).expand(queries, items))
    bound = (width + 4) * torch.finfo(torch.float32).eps / 2
    assert (scores.double() - exact.gather(1, ids)).abs().max() <= bound
    assert (exact.gather(1, ids).diff(dim=1) <= 2 * bound).all()


@pytest.mark.skipif("avx2" not in TIERS, reason=f"compiled kernels cannot run: {op.fallback('cosine_top_k_panels')}")
@pytest.mark.parametrize(("width", "count"), [(8, 9003), (37, 1203), (384, 7001)])
@pytest.mark.parametrize("k", [1, 17, 400])
def test_a_query_does_not_depend_on_its_company(width: int, count: int, k: int) -> None:
    """Alone, in batches of every size and place, with whole rows of scores or without, and with any number of threads: the same bits."""
    queries, panels = rand(200, width), packed(torch.nn.functional.normalize(rand(count, width, seed=1)))
    threads = torch.get_num_threads()
    try:
        with op.force("avx2"):
            torch.set_num_threads(1)
            together = cosine_top_k_panels(queries, panels, count, k)
            for first, last in ((0, 1), (1, 3), (2, 5), (0, 4), (5, 10), (3, 10), (190, 200), (199, 200)):
                for workers in (1, 2, 3):
                    torch.set_num_threads(workers)
                    part = cosine_top_k_panels(queries[first:last], panels, count, k)
                    assert torch.equal(part[0], together[0][first:last])
                    assert torch.equal(part[1], together[1][first:last])
    finally:
        torch.set_num_threads(threads)


@tiers
@pytest.mark.parametrize("count", [3000, 9000])
@pytest.mark.parametrize("k", [1, 50, 2500])
@pytest.mark.parametrize("order", ["rising", "falling", "equal", "shuffled", "in clumps"])
def test_every_order_of_arrival(tier: str, order: str, count: int, k: int) -> None:
    """The shortlist is cut often, never, or among ties, by the order in which the scores come."""
    angles = torch.linspace(0.1, 1.4, count)
    if order == "rising":
        angles = angles.flip(0)
    elif order == "equal":
        angles = torch.full_like(angles, 0.5)
    elif order == "shuffled":
        angles = angles[torch.randperm(count, generator=torch.Generator().manual_seed(0))]
    elif order == "in clumps":
        angles = torch.randint(1, 4, (count,), generator=torch.Generator().manual_seed(0)) * 0.3
    items = torch.stack([angles.cos(), angles.sin()], dim=1)
    with op.force(tier):
        _, ids = cosine_top_k_panels(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), packed(items), count, k)
    # of equal scores the smaller id comes first
    assert ids[0].tolist() == items[:, 0].sort(stable=True, descending=True).indices[:k].tolist()
    assert ids[1].tolist() == list(range(k))


@tiers
@pytest.mark.parametrize("count", [700, 9000])
def test_excluded_and_removed_items_never_come_back(tier: str, count: int) -> None:
    queries, items = rand(40, 32), torch.nn.functional.normalize(rand(count, 32, seed=1))
    with op.force(tier):
        _, before = cosine_top_k_panels(queries, packed(items), count, 30)
        exclude, offsets = before[:, :20].flip(1).reshape(-1), torch.arange(41) * 20
        scores, after = cosine_top_k_panels(queries, packed(items), count, 10, exclude, offsets)
        assert torch.equal(after, before[:, 20:])
        assert torch.isfinite(scores).all()
        items[before[0, :20]] = math.nan
        assert torch.equal(cosine_top_k_panels(queries[:1], packed(items), count, 10)[1], before[:1, 20:])


@tiers
@pytest.mark.parametrize("count", [6144, 20_000])
def test_nearly_everything_excluded_or_removed(tier: str, count: int) -> None:
    """Rows without a bound: fewer items are left than were asked for, and they lie anywhere."""
    left = torch.tensor([3, 2050, count - 1])
    gone = torch.ones(count, dtype=torch.bool).index_fill(0, left, False).nonzero()[:, 0]
    items = torch.nn.functional.normalize(rand(count, 5, seed=1))
    query = rand(1, 5)
    wanted = left[(items[left] @ query[0]).sort(descending=True).indices].tolist() + [-1] * 47
    with op.force(tier):
        assert cosine_top_k_panels(query, packed(items), count, 50, gone, torch.tensor([0, len(gone)]))[1].tolist() == [wanted]
        items[gone] = math.nan
        assert cosine_top_k_panels(query, packed(items), count, 50)[1].tolist() == [wanted]


def test_compiles_under_torch_compile() -> None:
    queries, panels = rand(3, 16), packed(torch.nn.functional.normalize(rand(40, 16, seed=1)))
    compiled = torch.compile(lambda q, p: torch.ops.compress_rec.cosine_top_k_panels(q * 2, p, 40, 4), backend="aot_eager", fullgraph=True)
    scores, ids = compiled(queries, panels)
    wanted = cosine_top_k_panels(queries * 2, panels, 40, 4)
    assert torch.equal(ids, wanted[1])
    assert torch.equal(scores, wanted[0])
