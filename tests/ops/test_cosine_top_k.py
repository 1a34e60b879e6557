"""cosine_top_k: order, ties, exclusion, and that a query does not depend on its company."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec import op
from compress_rec.ops.cosine_top_k import cosine_top_k
from tests.ops.tried import along_axes, assert_the_full_ranking, rand

TIERS = op.tiers()
tiers = pytest.mark.parametrize("tier", TIERS)


@tiers
def test_worked_by_hand(tier: str) -> None:
    items = torch.tensor([[0.0, 2.0], [3.0, 0.0], [1.0, 1.0], [-5.0, 0.0], [0.0, 0.0]])
    with op.force(tier):
        scores, ids = cosine_top_k(torch.tensor([[4.0, 0.0]]), items, 5)
    assert ids.tolist() == [[1, 2, 0, 4, 3]]
    assert scores[0].tolist() == pytest.approx([1.0, math.sqrt(0.5), 0.0, 0.0, -1.0], abs=1e-7)


@tiers
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_exact_on_small_integers(tier: str, data: st.DataObject) -> None:
    """Where every product and sum is exact in float32, ids must be those of the full ranking, ties and all.

    Items are taken as they come (``normalised``), so that many of them tie; the queries are unit vectors along an axis.
    """
    width = data.draw(st.integers(1, 19))
    items = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(-2, 2), min_size=width, max_size=width), min_size=1, max_size=70)), dtype=torch.float32
    )
    axes = data.draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=8))
    queries = along_axes(axes, width)
    k = data.draw(st.integers(1, len(items)))
    lists = [data.draw(st.lists(st.integers(0, len(items) - 1), max_size=12)) for _ in axes]
    exclude = torch.tensor([i for ids in lists for i in ids], dtype=torch.int64)
    offsets = torch.tensor([0, *[len(ids) for ids in lists]]).cumsum(0)
    with op.force(tier):
        scores, ids = cosine_top_k(queries, items, k, exclude, offsets, True)
    assert_the_full_ranking(scores, ids, items, axes, k, lists)


@tiers
@settings(max_examples=40, deadline=None)
@given(
    queries=st.integers(1, 9),
    items=st.integers(1, 90),
    width=st.integers(1, 70),
    seed=st.integers(0, 2**20),
    magnitude=st.sampled_from([1e-30, 1e-3, 1.0, 1e3, 1e30]),
)
def test_cosines_of_any_shape_and_length(tier: str, queries: int, items: int, width: int, seed: int, magnitude: float) -> None:
    """Against float64: a cosine of unit vectors rounded to float32 and summed in float32 is off by (width + 4) half units at most."""
    left, right = rand(queries, width, seed=seed) * magnitude, rand(items, width, seed=seed + 1) / magnitude
    with op.force(tier):
        scores, ids = cosine_top_k(left, right, items)
    exact = torch.nn.functional.normalize(left.double(), eps=0) @ torch.nn.functional.normalize(right.double(), eps=0).T
    assert torch.equal(ids.sort(dim=1).values, torch.arange(items).expand(queries, items))
    bound = (width + 4) * torch.finfo(torch.float32).eps / 2
    assert (scores.double() - exact.gather(1, ids)).abs().max() <= bound
    assert (exact.gather(1, ids).diff(dim=1) <= 2 * bound).all()


@pytest.mark.skipif("avx2" not in TIERS, reason=f"compiled kernels cannot run: {op.fallback('cosine_top_k')}")
@pytest.mark.parametrize("width", [8, 37, 384])
def test_a_query_does_not_depend_on_its_company(width: int) -> None:
    """Alone, in batches of every size and place, and with any number of threads: the same bits."""
    queries, items = rand(200, width), rand(5003, width, seed=1)
    threads = torch.get_num_threads()
    try:
        with op.force("avx2"):
            torch.set_num_threads(1)
            together = cosine_top_k(queries, items, 17)
            for first, last in ((0, 1), (1, 3), (2, 5), (0, 4), (5, 10), (190, 200), (199, 200)):
                for count in (1, 2, 3):
                    torch.set_num_threads(count)
                    part = cosine_top_k(queries[first:last], items, 17)
                    assert torch.equal(part[0], together[0][first:last])
                    assert torch.equal(part[1], together[1][first:last])
    finally:
        torch.set_num_threads(threads)


@tiers
@pytest.mark.parametrize("order", ["rising", "falling", "equal", "shuffled"])
def test_every_order_of_arrival(tier: str, order: str) -> None:
    """The shortlist is cut often, never, or among ties, by the order in which the scores come."""
    angles = torch.linspace(0.1, 1.4, 3000)
    if order == "rising":
        angles = angles.flip(0)
    elif order == "equal":
        angles = torch.full_like(angles, 0.5)
    elif order == "shuffled":
        angles = angles[torch.randperm(3000, generator=torch.Generator().manual_seed(0))]
    items = torch.stack([angles.cos(), angles.sin()], dim=1)
    with op.force(tier):
        _, ids = cosine_top_k(torch.tensor([[1.0, 0.0]]), items, 50)
    # stable: of equal angles the smaller id comes first
    assert ids[0].tolist() == angles.sort(stable=True).indices[:50].tolist()


@tiers
def test_excluded_items_never_come_back(tier: str) -> None:
    queries, items = rand(40, 32), rand(700, 32, seed=1)
    with op.force(tier):
        _, before = cosine_top_k(queries, items, 30)
        exclude, offsets = before[:, :20].flip(1).reshape(-1), torch.arange(41) * 20
        scores, after = cosine_top_k(queries, items, 10, exclude, offsets)
    assert torch.equal(after, before[:, 20:])
    assert torch.isfinite(scores).all()


@tiers
def test_inputs_are_left_alone(tier: str) -> None:
    queries, items = rand(4, 20), rand(50, 20, seed=1)
    exclude, offsets = torch.tensor([9, 3, 3, 1]), torch.tensor([0, 1, 3, 3, 4])
    before = [tensor.clone() for tensor in (queries, items, exclude, offsets)]
    with op.force(tier):
        cosine_top_k(queries, items, 5, exclude, offsets)
    assert all(torch.equal(one, two) for one, two in zip(before, (queries, items, exclude, offsets), strict=True))


def test_the_reference_cuts_its_work_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    module = importlib.import_module("compress_rec.ops.cosine_top_k")
    queries, items = rand(23, 16), rand(101, 16, seed=1)
    exclude, offsets = torch.arange(23), torch.arange(24)
    whole = cosine_top_k.reference(queries, items, 9, exclude, offsets)
    monkeypatch.setattr(module, "_BLOCK_SCORES", 101 * 5)
    blocked = cosine_top_k.reference(queries, items, 9, exclude, offsets)
    assert torch.equal(whole[1], blocked[1])
    torch.testing.assert_close(whole[0], blocked[0], rtol=0, atol=1e-6)


def test_compiles_under_torch_compile() -> None:
    """The dispatcher is all that torch.compile sees: the op stays one call, and its fake gives the shapes."""
    queries, items = rand(3, 16), rand(40, 16, seed=1)
    compiled = torch.compile(lambda q, x: torch.ops.compress_rec.cosine_top_k(q * 2, x, 4), backend="aot_eager", fullgraph=True)
    scores, ids = compiled(queries, items)
    wanted = cosine_top_k(queries * 2, items, 4)
    assert torch.equal(ids, wanted[1])
    assert torch.equal(scores, wanted[0])
