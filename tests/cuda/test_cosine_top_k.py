"""cosine_top_k on CUDA, every thread of it: against the reference and a float64 run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compress_rec import op
from tests.cuda.machine import Emulated, KernelFault
from tests.ops.owed import OWED, ragged
from tests.ops.test_contract import assert_ranking
from tests.ops.tried import rand

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def search(
    device: Emulated,
    queries: Tensor,
    items: Tensor,
    k: int,
    exclude: Tensor | None = None,
    offsets: Tensor | None = None,
    normalised: bool = False,
    parts: int = 2,
    in_every_order: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return scores and ids as the op does, from the launcher itself."""
    count, (item_count, width) = len(queries), items.shape
    given = device.put("queries", queries)
    shape = count, device.put("items", items), TYPES.index(items.dtype), item_count, width, k, int(normalised), parts
    scratch = device.empty("scratch", (device.number("cosine_top_k_entry_scratch", *shape),), torch.uint8, scratch=True)
    scores, ids = device.empty("scores", (count, k), torch.float32), device.empty("ids", (count, k), torch.int64)
    excluded: tuple[Any, ...] = (None, None, 0)
    if exclude is not None and offsets is not None:
        excluded = device.put("exclude", exclude), device.put("offsets", offsets), len(exclude)

    def work() -> None:
        device.call("cosine_top_k_entry", *shape, given, *excluded, scores, ids, scratch)

    device.in_every_order(work) if in_every_order else work()
    return scores.tensor().clone(), ids.tensor().clone()


@pytest.mark.parametrize("case", OWED["cosine_top_k"].cases)
def test_close_to_a_float64_run(device: Emulated, case: str) -> None:
    queries, *others = OWED["cosine_top_k"].cases[case]()
    arguments = (queries[:41], *others) if case == "many queries" else (queries, *others)
    result = search(device, *arguments)
    reference = op.find("cosine_top_k").reference(*arguments)
    assert_ranking(result, reference, OWED["cosine_top_k"].precise(*arguments), arguments[2])


@pytest.mark.parametrize("queries", [1, 3, 9])
@pytest.mark.parametrize(("width", "guarded_before"), [(40, False), (37, True)])
def test_neither_order_nor_parts_nor_batch_show(device: Emulated, width: int, queries: int, guarded_before: bool) -> None:
    """The same bits in every order of threads, however many parts there are, and whatever else is in the batch."""
    device.guarded_before = guarded_before
    asked, items = rand(queries, width), rand(400, width, seed=1)
    result = search(device, asked, items, 7, *ragged([[3, 5, 399]] * queries), parts=3, in_every_order=True)
    assert_ranking(result, reference(asked, items, 7, *ragged([[3, 5, 399]] * queries)), exact(asked, items, [3, 5, 399]), 7)
    whole = search(device, asked, items, 7, *ragged([[3, 5, 399]] * queries), parts=1)
    assert all(torch.equal(one, two) for one, two in zip(result, whole, strict=True))
    turned = search(device, asked.flip(0), items, 7, *ragged([[3, 5, 399]] * queries), parts=2)
    assert all(torch.equal(one.flip(0), two) for one, two in zip(result, turned, strict=True))
    alone = search(device, asked[:1], items, 7, *ragged([[3, 5, 399]]))
    assert all(torch.equal(one[:1], two) for one, two in zip(result, alone, strict=True))


def reference(*arguments: Any) -> tuple[Tensor, Tensor]:
    return op.find("cosine_top_k").reference(*arguments)  # type: ignore[no-any-return]


def exact(queries: Tensor, items: Tensor, excluded: list[int] | None = None) -> Tensor:
    cosines = OWED["cosine_top_k"].precise(queries, items, 1)
    if excluded:
        cosines[:, excluded] = -torch.inf
    return cosines


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("queries", "width"), [(1, 64), (3, 64), (6, 64), (1, 33), (6, 33)])
@pytest.mark.parametrize("normalised", [False, True])
def test_catalogues_in_half_precision(device: Emulated, kind: torch.dtype, queries: int, width: int, normalised: bool) -> None:
    """Unit queries are rounded to the catalogue's type; from there on, everything is as in float32."""
    asked, items = rand(queries, width), rand(300, width, seed=1)
    items = (F.normalize(items) if normalised else items).to(kind)
    wanted = F.normalize(asked.double()).float().to(kind).double()
    offered = items.double() if normalised else F.normalize(items.double())
    scores, ids = search(device, asked, items, 20, normalised=normalised)
    precise = wanted @ offered.T
    best = precise.sort(descending=True).values[:, :20]
    # a chain of `width` sums of products whose magnitudes sum to at most 1, and a division
    bound = (width / 8 + 4) * torch.finfo(torch.float32).eps
    assert (scores - precise.gather(1, ids)).abs().max() <= bound
    assert (precise.gather(1, ids) - best).abs().max() <= 2 * bound


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("queries", "count", "width", "k"),
    [(17, 300, 64, 10), (130, 400, 24, 5), (70, 260, 512, 3), (33, 500, 72, 200), (17, 130, 8, 130), (20, 1100, 8, 1024)],
)
@pytest.mark.parametrize("normalised", [True, False])
def test_many_queries_on_the_tensor_cores(
    device: Emulated, kind: torch.dtype, queries: int, count: int, width: int, k: int, normalised: bool
) -> None:
    asked = rand(queries, width)
    items = (F.normalize(rand(count, width, seed=1)) * (1.0 if normalised else torch.logspace(-2, 2, count)[:, None])).to(kind)
    excluded = ragged([[q % count, (7 * q) % count, count - 1] for q in range(queries)])
    scores, ids = search(device, asked, items, k, *excluded, normalised=normalised)
    unit = F.normalize(asked.double()).float().to(kind).double()
    precise = unit @ (items.double() if normalised else F.normalize(items.double())).T
    for q in range(queries):
        precise[q, excluded[0][excluded[1][q] : excluded[1][q + 1]]] = -torch.inf
    filled = min(k, count - max(len(set(excluded[0][excluded[1][q] : excluded[1][q + 1]].tolist())) for q in range(queries)))
    found = precise.gather(1, ids[:, :filled])
    bound = (width / 16 + 4) * torch.finfo(torch.float32).eps
    assert (scores[:, :filled] - found).abs().max() <= bound
    assert (found - precise.sort(descending=True).values[:, :filled]).abs().max() <= 2 * bound
    assert (scores[:, :filled].diff() <= 0).all()
    tied = scores[:, :filled].diff() == 0
    assert (ids[:, :filled].diff()[tied] > 0).all()


@pytest.mark.parametrize(("kind", "lengths"), [(torch.bfloat16, (1e-37, 1e-30, 1e30, 1e37)), (torch.float16, (3e-6, 1e4))])
def test_many_queries_and_items_of_any_length(device: Emulated, kind: torch.dtype, lengths: tuple[float, ...]) -> None:
    """Those whose squares float32 cannot hold are multiplied in double, and zero has cosine 0 with everything."""
    items = F.normalize(rand(300, 24, seed=1)).to(kind).float()
    for place, length in enumerate(lengths):
        items[place * 7] *= length
    items[200:230] = 0
    items, asked = items.to(kind), rand(19, 24)
    scores, ids = search(device, asked, items, 300, parts=2, in_every_order=True)
    norms = items.double().norm(dim=1, keepdim=True)
    precise = F.normalize(asked.double()).float().to(kind).double() @ (items.double() / norms.masked_fill(norms == 0, 1)).T
    assert (scores - precise.gather(1, ids)).abs().max() < 1e-6
    assert (scores - precise.sort(descending=True).values).abs().max() < 1e-6
    assert (scores == 0).sum(1).tolist() == [30] * 19
    items[8, 3] = torch.inf
    assert search(device, asked, items, 3)[0].isnan().all()


def test_many_queries_and_rising_scores(device: Emulated) -> None:
    """Every item is better than all before it, for every query: buffers fill with each tile."""
    angles = torch.linspace(0, 1.4, 1500)
    items = F.pad(torch.stack([angles.sin(), angles.cos()], dim=1), (0, 6)).half()
    asked = F.pad(torch.stack([torch.ones(20), torch.linspace(-0.02, 0.1, 20)], dim=1), (0, 6))
    scores, ids = search(device, asked, items, 5, normalised=True, parts=1)
    precise = F.normalize(asked.double()).float().half().double() @ items.double().T
    assert (scores - precise.sort(descending=True).values[:, :5]).abs().max() < 1e-6
    assert (precise.gather(1, ids) - scores).abs().max() < 1e-6


def test_many_queries_in_every_order(device: Emulated) -> None:
    asked, items = rand(40, 72), F.normalize(rand(400, 72, seed=1)).bfloat16()
    whole = search(device, asked, items, 6, normalised=True, parts=1)
    in_parts = search(device, asked, items, 6, normalised=True, parts=2, in_every_order=True)
    assert all(torch.equal(one, two) for one, two in zip(whole, in_parts, strict=True))


def test_many_queries_and_what_is_not_finite(device: Emulated) -> None:
    asked, items = rand(20, 16), F.normalize(rand(200, 16, seed=1)).bfloat16()
    wrong = asked.clone()
    wrong[3, 2], wrong[4] = torch.inf, 0
    scores, ids = search(device, wrong, items, 4, normalised=True)
    assert scores[3].isnan().all()
    assert ids[3].tolist() == [-1] * 4
    assert scores[4].tolist() == [0.0] * 4
    assert ids[4].tolist() == [0, 1, 2, 3]
    assert torch.isfinite(scores[[*range(3), *range(5, 20)]]).all()
    items[177, 3] = torch.nan
    scores, ids = search(device, asked, items, 4, normalised=True)
    assert scores.isnan().all()
    assert (ids == -1).all()


@pytest.mark.parametrize(("count", "k"), [(1500, 1024), (2500, 300), (1024, 1024)])
def test_many_are_kept(device: Emulated, count: int, k: int) -> None:
    asked, items = rand(2, 4), rand(count, 4, seed=1)
    assert_ranking(search(device, asked, items, k, parts=2), reference(asked, items, k), exact(asked, items), k)


@pytest.mark.parametrize("direction", [1.0, -1.0])
def test_rising_and_falling_scores(device: Emulated, direction: float) -> None:
    """Where every score is better than all before, every buffer fills again and again."""
    angles = torch.linspace(0, 1.5, 2000) * direction + (0 if direction > 0 else 1.5)
    items = torch.stack([angles.sin(), angles.cos()], dim=1)
    asked = torch.tensor([[1.0, 0.0]])
    assert_ranking(search(device, asked, items, 12, parts=1), reference(asked, items, 12), exact(asked, items), 12)


@pytest.mark.parametrize("parts", [1, 4])
def test_ties_go_to_the_smaller_id(device: Emulated, parts: int) -> None:
    items = torch.eye(4).repeat(300, 1)
    scores, ids = search(device, torch.eye(4)[:2], items, 9, parts=parts, in_every_order=True)
    assert torch.equal(scores, torch.ones(2, 9))
    assert ids.tolist() == [list(range(0, 36, 4)), list(range(1, 37, 4))]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(device: Emulated, bad: float, normalised: bool) -> None:
    """No kernel can raise without waiting for it: a query that is not finite gets NaN and -1, an item gives them to every query."""
    asked, items = rand(3, 8), F.normalize(rand(30, 8, seed=1))
    wrong = asked.clone()
    wrong[1, 2] = bad
    scores, ids = search(device, wrong, items, 4, normalised=normalised)
    assert scores[1].isnan().all()
    assert ids[1].tolist() == [-1] * 4
    assert torch.equal(ids[::2], reference(asked[::2], items, 4)[1])
    items[17, 3] = bad
    scores, ids = search(device, asked, items, 4, normalised=normalised)
    assert scores.isnan().all()
    assert (ids == -1).all()


def test_excluded_ids_that_nobody_checked_do_no_harm(device: Emulated) -> None:
    asked, items = rand(2, 8), rand(50, 8, seed=1)
    ids, offsets = torch.tensor([7, -3, 1 << 40, 50]), torch.tensor([-5, 3, 900])
    scores = search(device, asked, items, 50, ids, offsets, parts=1)[1]
    assert sorted(scores[0].tolist()) == [-1, *(i for i in range(50) if i != 7)]
    assert sorted(scores[1].tolist()) == list(range(50))


def test_a_query_too_wide_for_a_block_is_refused(device: Emulated) -> None:
    with pytest.raises(KernelFault, match="a query this wide does not fit into a block's shared memory"):
        search(device, rand(1, 50000), rand(2, 50000, seed=1), 1)


@pytest.mark.parametrize(
    ("queries", "items", "k"), [(1, 100, 10), (1, 10**6, 10), (1, 10**6, 1024), (4096, 10**6, 10), (8, 5000, 100), (0, 5, 1)]
)
def test_parts_keep_the_device_busy_and_the_merge_small(device: Emulated, queries: int, items: int, k: int) -> None:
    parts = device.number("parts_for_entry", queries, 0, 0, items, 384, k, 0, 132)
    assert 1 <= parts <= 2 * 132
    assert parts == 1 or items / parts >= 2 * k
    if items == 10**6 and queries == 1 and k == 10:
        assert parts == 2 * 132
