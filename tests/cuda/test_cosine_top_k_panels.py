"""cosine_top_k_panels on CUDA, every thread of it: against the reference and a float64 run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from compress_rec import op
from tests.cuda.machine import Emulated
from tests.ops.owed import OWED, ragged, unit_panels
from tests.ops.test_contract import assert_ranking
from tests.ops.tried import rand

NAME = "cosine_top_k_panels"


def search(
    device: Emulated,
    queries: Tensor,
    panels: Tensor,
    count: int,
    k: int,
    exclude: Tensor | None = None,
    offsets: Tensor | None = None,
    parts: int = 2,
    in_every_order: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return scores and ids as the op does, from the launcher itself."""
    asked, width = queries.shape
    scratch = device.empty(
        "scratch", (device.number("cosine_top_k_panels_entry_scratch", asked, width, k, parts),), torch.uint8, scratch=True
    )
    scores, ids = device.empty("scores", (asked, k), torch.float32), device.empty("ids", (asked, k), torch.int64)
    given, kept = device.put("queries", queries), device.put("panels", panels)
    excluded: tuple[Any, ...] = (None, None, 0)
    if exclude is not None and offsets is not None:
        excluded = device.put("exclude", exclude), device.put("offsets", offsets), len(exclude)

    def work() -> None:
        device.call("cosine_top_k_panels_entry", given, asked, kept, count, width, k, *excluded, parts, scores, ids, scratch)

    device.in_every_order(work) if in_every_order else work()
    return scores.tensor().clone(), ids.tensor().clone()


@pytest.mark.parametrize("case", [case for case in OWED[NAME].cases if case != "many queries"])
def test_close_to_a_float64_run(device: Emulated, case: str) -> None:
    arguments = OWED[NAME].cases[case]()
    assert_ranking(search(device, *arguments), op.find(NAME).reference(*arguments), OWED[NAME].precise(*arguments), arguments[3])


@pytest.mark.parametrize("queries", [1, 4, 9])
def test_neither_order_nor_parts_nor_batch_show(device: Emulated, queries: int) -> None:
    asked, (panels, count) = rand(queries, 42), unit_panels(400, 42, (3, 399))
    left_out = ragged([[5, 6, 7]] * queries)
    whole = search(device, asked, panels, count, 6, *left_out, parts=1)
    in_parts = search(device, asked, panels, count, 6, *left_out, parts=3, in_every_order=True)
    alone = search(device, asked[:1], panels, count, 6, *ragged([[5, 6, 7]]))
    assert all(torch.equal(one, two) for one, two in zip(whole, in_parts, strict=True))
    assert all(torch.equal(one[:1], two) for one, two in zip(whole, alone, strict=True))
