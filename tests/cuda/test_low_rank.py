"""Low-rank layers on CUDA, every thread of them: against the reference and a float64 run, at most twice the reference's error."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compress_rec import op
from tests.cuda.machine import Array, Emulated, KernelFault
from tests.ops.owed import OWED
from tests.ops.test_contract import FLOOR, worst
from tests.ops.tried import rand

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def given(device: Emulated, name: str, tensor: Tensor | None) -> Array | None:
    return None if tensor is None else device.put(name, tensor)


def layer(
    device: Emulated, x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, splits: int = 1, in_every_order: bool = False
) -> Tensor:
    """Return what the launcher writes."""
    rows = x.reshape(-1, x.shape[-1])
    y = device.empty("y", (len(rows), len(b)), x.dtype)
    arrays = [given(device, *named) for named in (("x", rows), ("a", a), ("b", b), ("bias", bias))]
    sizes = len(rows), x.shape[-1], len(a), len(b), splits

    def work() -> None:
        device.call("low_rank_linear_entry", TYPES.index(x.dtype), *arrays, y, *sizes)

    device.in_every_order(work) if in_every_order else work()
    return y.tensor().clone().view(*x.shape[:-1], len(b))


def feed_forward(
    device: Emulated,
    x: Tensor,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    c: Tensor,
    d: Tensor,
    bias_out: Tensor | None,
    in_every_order: bool = False,
) -> Tensor:
    """Return what the launcher writes."""
    y = device.empty("y", (len(x), len(d)), x.dtype)
    named = (("x", x), ("a", a), ("b", b), ("bias", bias), ("c", c), ("d", d), ("bias_out", bias_out))
    arrays = [given(device, *pair) for pair in named]
    sizes = len(x), x.shape[1], len(a), len(b), len(c), len(d)

    def work() -> None:
        device.call("low_rank_feed_forward_entry", TYPES.index(x.dtype), *arrays, y, *sizes)

    device.in_every_order(work) if in_every_order else work()
    return y.tensor().clone()


def assert_close(values: Tensor, reference: Tensor, exact: Tensor) -> None:
    """At most twice the reference's own error, with a floor of a few units in the last place of the type."""
    assert values.shape == exact.shape
    floor = FLOOR * torch.finfo(values.dtype).eps * float(exact.abs().max()) if exact.numel() else 0.0
    assert worst(values, exact) <= max(2 * worst(reference, exact), floor)


def precise(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(F.linear(x.double(), a.double()), b.double(), None if bias is None else bias.double())


FLOATS = [name for name, make in OWED["low_rank_linear"].cases.items() if make()[0].dtype in TYPES]


@pytest.mark.parametrize("case", FLOATS)
def test_every_case_of_the_contract(device: Emulated, case: str) -> None:
    arguments = OWED["low_rank_linear"].cases[case]()
    arguments = tuple(None if value is None else value.detach() for value in arguments)
    assert_close(layer(device, *arguments), op.find("low_rank_linear").reference(*arguments), precise(*arguments))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("rows", "inputs", "rank", "outputs", "biased", "splits"),
    [(1, 64, 16, 128, True, 1), (70, 72, 40, 136, False, 2), (5, 37, 11, 53, True, 1), (65, 200, 136, 300, True, 3), (3, 8, 1, 1, True, 1)],
)
def test_close_to_a_float64_run(
    device: Emulated, kind: torch.dtype, rows: int, inputs: int, rank: int, outputs: int, biased: bool, splits: int
) -> None:
    x, a, b = (
        rand(rows, inputs).to(kind),
        (rand(rank, inputs, seed=1) / inputs**0.5).to(kind),
        (rand(outputs, rank, seed=2) / rank**0.5).to(kind),
    )
    bias = rand(outputs, seed=3).to(kind) if biased else None
    assert_close(layer(device, x, a, b, bias, splits), op.find("low_rank_linear").reference(x, a, b, bias), precise(x, a, b, bias))


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("guarded_before", [False, True])
def test_neither_order_nor_splits_nor_batch_show(device: Emulated, kind: torch.dtype, guarded_before: bool) -> None:
    device.guarded_before = guarded_before
    x, a, b, bias = rand(66, 48).to(kind), rand(24, 48, seed=1).to(kind), rand(264, 24, seed=2).to(kind), rand(264, seed=3).to(kind)
    whole = layer(device, x, a, b, bias, in_every_order=True)
    assert torch.equal(layer(device, x, a, b, bias, splits=3), whole)
    assert torch.equal(layer(device, x[:1], a, b, bias), whole[:1])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    ("rows", "inputs", "rank", "hidden", "rank_out", "outputs", "biased"),
    [(3, 64, 32, 256, 16, 64, True), (65, 40, 24, 130, 136, 40, True), (2, 33, 7, 50, 9, 21, False), (1, 8, 8, 128, 256, 8, True)],
)
def test_a_feed_forward_block(
    device: Emulated, kind: torch.dtype, rows: int, inputs: int, rank: int, hidden: int, rank_out: int, outputs: int, biased: bool
) -> None:
    if kind == torch.float32 and rank_out > 128:
        rank_out = 128  # the most there is room for; the refusal is tried below

    def weight(high: int, wide: int, seed: int) -> Tensor:
        return (rand(high, wide, seed=seed) / wide**0.5).to(kind)

    x, a, b, c, d = (
        rand(rows, inputs).to(kind),
        weight(rank, inputs, 1),
        weight(hidden, rank, 2),
        weight(rank_out, hidden, 3),
        weight(outputs, rank_out, 4),
    )
    bias, bias_out = (rand(hidden, seed=5).to(kind), rand(outputs, seed=6).to(kind)) if biased else (None, None)
    reference = op.find("low_rank_linear").reference
    assert_close(
        feed_forward(device, x, a, b, bias, c, d, bias_out),
        reference(F.gelu(reference(x, a, b, bias)), c, d, bias_out),
        precise(F.gelu(precise(x, a, b, bias)), c, d, bias_out),
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_a_feed_forward_block_in_every_order(device: Emulated, kind: torch.dtype) -> None:
    x, a, b, c, d = (
        t.to(kind) for t in (rand(9, 40), rand(24, 40, seed=1), rand(200, 24, seed=2), rand(100, 200, seed=3), rand(40, 100, seed=4))
    )
    whole = feed_forward(device, x, a, b, None, c, d, None, in_every_order=True)
    assert torch.equal(feed_forward(device, x[:1], a, b, None, c, d, None), whole[:1])


def test_what_does_not_fit_is_refused(device: Emulated) -> None:
    with pytest.raises(KernelFault, match="a middle of this rank does not fit into a block's shared memory"):
        layer(device, rand(1, 8), rand(2000, 8), rand(8, 2000))
    with pytest.raises(KernelFault, match="middles of these ranks do not fit into a block"):
        feed_forward(device, rand(1, 8), rand(8, 8), rand(8, 8), None, rand(129, 8), rand(8, 129), None)
    with pytest.raises(KernelFault, match="middles of these ranks do not fit into a block"):
        feed_forward(
            device,
            *(t.bfloat16() for t in (rand(1, 8), rand(8, 8), rand(8, 8))),
            None,
            *(t.bfloat16() for t in (rand(257, 8), rand(8, 257))),
            None,
        )


@pytest.mark.parametrize(
    ("rows", "outputs", "splits"), [(0, 384, 3), (1, 384, 3), (64, 3072, 24), (512, 1536, 12), (4096, 1536, 2), (10**6, 384, 1)]
)
def test_splits_keep_the_device_busy(device: Emulated, rows: int, outputs: int, splits: int) -> None:
    assert device.number("low_rank_linear_entry_splits", rows, outputs, 132) == splits
