"""cosine_top_k_int8 on CUDA, every thread of it: the scores of the codes, and bounds that hold for the vectors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compress_rec import op
from compress_rec.int8_items import quantized
from tests.cuda.machine import Emulated
from tests.ops.owed import OWED
from tests.ops.test_contract import assert_ranking
from tests.ops.tried import rand

NAME = "cosine_top_k_int8"
# a case, and whether the vectors are searched; the largest cases are left out
CASES = [
    (case, exact)
    for case, make in OWED[NAME].cases.items()
    for exact in (False, True)
    if not (exact and make()[5] is None) and (case, exact) not in (("many queries", False), ("many queries", True), ("one query", True))
]


def search(
    device: Emulated,
    queries: Tensor,
    panels: Tensor,
    _sums: Tensor,
    scales: Tensor,
    residuals: Tensor,
    items: Tensor | None,
    k: int,
    exclude: Tensor | None = None,
    offsets: Tensor | None = None,
    parts: int = 2,
    in_every_order: bool = False,
) -> tuple[Tensor, ...]:
    """Return scores, ids and bounds as the op does, from the launcher itself."""
    count, width = queries.shape
    vectors = None if items is None else device.put("items", items)
    needed = device.number("cosine_top_k_int8_entry_scratch", count, width, k, parts, vectors)
    scratch = device.empty("scratch", (needed,), torch.uint8, scratch=True)
    scores, ids, bounds = (
        device.empty(n, (count, k), t) for n, t in (("scores", torch.float32), ("ids", torch.int64), ("bounds", torch.float32))
    )
    given = [device.put(n, t) for n, t in (("queries", queries), ("panels", panels), ("scales", scales), ("residuals", residuals))]
    excluded: tuple[Any, ...] = (None, None, 0)
    if exclude is not None and offsets is not None:
        excluded = device.put("exclude", exclude), device.put("offsets", offsets), len(exclude)

    def work() -> None:
        device.call(
            *("cosine_top_k_int8_entry", given[0], count, *given[1:], vectors, len(scales), width, k),
            *(*excluded, parts, scores, ids, bounds, scratch),
        )

    device.in_every_order(work) if in_every_order else work()
    return scores.tensor().clone(), ids.tensor().clone(), bounds.tensor().clone()


@pytest.mark.parametrize(("case", "exact"), CASES)
def test_close_to_a_float64_run(device: Emulated, case: str, exact: bool) -> None:
    """From the codes alone, and from the vectors beside them, whose scores are those of float64, rounded once."""
    queries, panels, sums, scales, residuals, items, k, *exclude = OWED[NAME].cases[case]()
    arguments = (queries, panels, sums, scales, residuals, items if exact else None, k, *exclude)
    result, reference = search(device, *arguments), op.find(NAME).reference(*arguments)
    assert_ranking(result, reference, OWED[NAME].precise(*arguments), k)
    if exact:
        assert all(torch.equal(one, two) for one, two in zip(result, reference, strict=True))


@pytest.mark.parametrize("queries", [1, 4, 9])
@pytest.mark.parametrize("exact", [False, True])
def test_neither_order_nor_parts_nor_batch_show(device: Emulated, queries: int, exact: bool) -> None:
    unit = torch.nn.functional.normalize(rand(400, 42, seed=1))
    catalogue, vectors = quantized(unit), unit if exact else None
    asked = rand(queries, 42)
    whole = search(device, asked, *catalogue, vectors, 5, parts=1)
    in_parts = search(device, asked, *catalogue, vectors, 5, parts=3, in_every_order=True)
    alone = search(device, asked[:1], *catalogue, vectors, 5)
    assert all(torch.equal(one, two) for one, two in zip(whole, in_parts, strict=True))
    assert all(torch.equal(one[:1], two) for one, two in zip(whole, alone, strict=True))


def test_the_bound_holds_for_the_vectors(device: Emulated) -> None:
    unit = torch.nn.functional.normalize(rand(300, 60, seed=1))
    asked = torch.cat([rand(4, 60), torch.eye(60)[:1] + 1e-6])
    scores, ids, bounds = search(device, asked, *quantized(unit), None, 300)
    cosines = torch.nn.functional.normalize(asked.double()) @ torch.nn.functional.normalize(unit.double()).T
    off = (scores - cosines.gather(1, ids)).abs()
    assert (off <= bounds).all()
    assert off.max() > bounds.max() / 50  # and says something


def test_codes_at_their_largest_do_not_overflow(device: Emulated) -> None:
    """127 everywhere and the largest query: exact integers up to the end."""
    items = torch.full((16, 384), 1.0)
    catalogue = quantized(torch.nn.functional.normalize(items))
    panels = torch.full_like(catalogue.panels, 127)
    scales = torch.full_like(catalogue.scales, 1 / (127 * 384**0.5))
    scores, ids, _ = search(device, torch.ones(2, 384), panels, catalogue.sums, scales, catalogue.residuals, None, 16)
    assert ids.tolist() == [list(range(16))] * 2
    assert (scores - 1).abs().max() <= 2 * torch.finfo(torch.float32).eps
