"""The emulation of CUDA finds every planted fault, names it, and leaves right kernels alone."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.cuda.machine import Emulated, KernelFault

PLANTED = Path(__file__).with_name("planted.cu")


def told_of(fault: KernelFault) -> str:
    """What was found, without line numbers; each line named must hold what stands before it."""
    lines = PLANTED.read_text(encoding="utf-8").splitlines()
    for what, line in re.findall(r"(\w+) \(planted\.cu:(\d+)\)", str(fault)):
        assert what in lines[int(line) - 1]
    return re.sub(r"planted\.cu:\d+", "planted.cu", str(fault))


@pytest.fixture(scope="module")
def library() -> Emulated:
    return Emulated(PLANTED)


@pytest.fixture
def device(library: Emulated) -> Iterator[Emulated]:
    yield library
    library.guarded_before = False
    library.release()


def test_a_right_kernel_gives_its_sums_in_every_order(device: Emulated) -> None:
    values = torch.randint(-50, 50, (1000,), generator=torch.Generator().manual_seed(0)).float()
    given, sums = device.put("values", values), device.empty("sums", (8,), torch.float32)
    device.in_every_order(lambda: device.call("sum", given, sums, 1000, 8, 128))
    assert torch.equal(sums.tensor(), torch.nn.functional.pad(values, (0, 24)).view(8, 128).sum(1))


@pytest.mark.parametrize(
    ("fault", "threads", "told"),
    [
        (0, 64, "divergent: no thread can go on, since threads 0-31 returned, threads 32-63 wait at __syncthreads (planted.cu)"),
        (1, 64, "wait at different barriers: threads 0-31 wait at __syncthreads (planted.cu), threads 32-63 wait"),
        (4, 64, "takes a shared array of another size than its block has there"),
        (5, 64, "waits for lane 7, which has returned"),
        (6, 64, "meets lane 0 at another collective, __shfl_xor_sync (planted.cu)"),
        (7, 64, "lane 0 is not in the mask it names"),
        (8, 64, "reads from lane 20, which is not in the mask"),
        (9, 64, "divergent: no thread can go on, since threads 0-15 wait at __syncwarp (planted.cu), threads 16-31 returned"),
        (9, 16, "the mask names lanes that the warp does not have"),
    ],
)
def test_faults_of_what_threads_do_together_are_named(device: Emulated, fault: int, threads: int, told: str) -> None:
    out = device.empty("out", (64,), torch.int32)
    with pytest.raises(KernelFault) as found:
        device.call("together", ctypes.c_int(fault), out, ctypes.c_int(threads))
    assert str(found.value).startswith("together: ")
    assert told in told_of(found.value)


@pytest.mark.parametrize("fault", [2, 3])
def test_a_missing_barrier_shows_in_some_order(device: Emulated, fault: int) -> None:
    out = device.empty("out", (64,), torch.int32)
    with pytest.raises(KernelFault, match="'out' is another in descending order than in ascending order"):
        device.in_every_order(lambda: device.call("together", ctypes.c_int(fault), out, ctypes.c_int(64)))


@pytest.mark.parametrize(
    ("fault", "guarded_before", "told"),
    [
        (
            0,
            False,
            "behind the end of 'data' (80 bytes); thread (5, 0, 0) of block (0, 0, 0), last seen at __syncthreads (planted.cu)",
        ),
        (1, True, "reads 4 bytes before the start of 'data' (80 bytes)"),
        (2, False, "writes 0 bytes behind the end of 'out' (128 bytes)"),
        (2, True, "some thread wrote 0 bytes behind the end of 'out' (128 bytes)"),
        (3, False, "reads 0 bytes behind the end of shared array 0 (32 bytes)"),
        (4, False, "some thread wrote 0 bytes behind the end of shared array 1 (12 bytes)"),
        (5, False, "some thread wrote before the start of shared array 0 (32 bytes)"),
        (6, False, "reads an address that belongs to no array"),
        (7, False, "takes 64 bytes of shared memory, but was launched with 48"),
        (8, False, "leaves an array of its own, or touches an address that is not aligned"),
        (9, False, "leaves an array of its own, or touches an address that is not aligned"),
    ],
)
def test_faults_of_memory_are_named(device: Emulated, fault: int, guarded_before: bool, told: str) -> None:
    device.guarded_before = guarded_before
    data, out = device.put("data", torch.arange(20.0)), device.empty("out", (32,), torch.float32)
    with pytest.raises(KernelFault) as found:
        device.call("touch", ctypes.c_int(fault), data, out, ctypes.c_int(20))
    assert told in told_of(found.value)


def test_without_a_fault_nothing_is_found(device: Emulated) -> None:
    data, out = device.put("data", torch.arange(20.0)), device.empty("out", (32,), torch.float32)
    device.in_every_order(lambda: device.call("touch", ctypes.c_int(-1), data, out, ctypes.c_int(20)))
    assert torch.equal(out.tensor(), torch.arange(32.0) % 20)


@pytest.mark.parametrize(
    ("fault", "array"),
    [
        pytest.param(0, "out", id="shared memory that nobody wrote"),
        pytest.param(1, "out", id="no barrier between write and read"),
        pytest.param(2, "out", id="a sum of floats by atomics"),
        pytest.param(3, "out", id="the last block wins"),
        pytest.param(4, "out", id="the number a thread draws"),
        pytest.param(5, "counter", id="others come between read and write"),
    ],
)
def test_results_that_depend_on_order_are_named(device: Emulated, fault: int, array: str) -> None:
    values = device.put("values", torch.randn(64, generator=torch.Generator().manual_seed(0)))
    out, counter = device.put("out", torch.zeros(66)), device.put("counter", torch.zeros(2, dtype=torch.int32))
    with pytest.raises(KernelFault, match=f"of '{array}' is another in "):
        device.in_every_order(lambda: device.call("ordered", ctypes.c_int(fault), values, out, counter))


def test_sums_of_integers_do_not_depend_on_order(device: Emulated) -> None:
    values = device.put("values", torch.randn(64, generator=torch.Generator().manual_seed(0)))
    out, counter = device.put("out", torch.zeros(66)), device.put("counter", torch.zeros(2, dtype=torch.int32))
    device.in_every_order(lambda: device.call("ordered", ctypes.c_int(6), values, out, counter))
    assert counter.tensor().tolist() == [192, 0]


@pytest.mark.parametrize(("threads", "shared"), [(0, 16), (1056, 144), (64, 49 << 10)])
def test_a_launch_that_the_device_refuses_is_refused(device: Emulated, threads: int, shared: int) -> None:
    with pytest.raises(KernelFault, match="invalid"):
        device.call("launched_with", ctypes.c_int(threads), ctypes.c_int(shared))


@pytest.mark.parametrize("by_hand", [0, 1])
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_product_of_the_tensor_cores_is_the_product(device: Emulated, kind: torch.dtype, by_hand: int) -> None:
    draw = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(*size, generator=draw) for size in ((16, 16), (8, 16), (16, 8)))
    a, b = a.to(kind), b.to(kind)
    given, other, sums = device.put("a", a), device.put("b", b), device.put("c", c)
    device.in_every_order(lambda: device.call("product", int(kind == torch.float16), given, other, sums, by_hand))
    torch.testing.assert_close(sums.tensor(), (c.double() + a.double() @ b.double().T).float(), rtol=0, atol=1e-6)


def test_a_copy_that_nobody_waits_for_is_not_there(device: Emulated) -> None:
    a, b = device.put("a", torch.ones(16, 16).half()), device.put("b", torch.ones(8, 16).half())
    sums = device.put("c", torch.zeros(16, 8))
    device.call("product", 1, a, b, sums, -1)
    assert sums.tensor().isnan().all()


def test_numbers_of_half_precision_are_those_of_torch(device: Emulated) -> None:
    from_half, from_bfloat = device.empty("halves", (65536,), torch.float32), device.empty("bfloats", (65536,), torch.float32)
    device.library.widen(ctypes.c_void_p(from_half.address), ctypes.c_void_p(from_bfloat.address))
    every = torch.arange(65536, dtype=torch.int32).to(torch.uint16)
    for found, kind in ((from_half, torch.float16), (from_bfloat, torch.bfloat16)):
        assert torch.equal(found.tensor().nan_to_num(7), every.view(kind).float().nan_to_num(7))
    # ties, subnormals, what overflows and infinity among them
    bits = torch.randint(-(2**31), 2**31, (1 << 18,), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    bits[: 1 << 17] &= -0x1000
    usual = torch.randn(1 << 16, generator=torch.Generator().manual_seed(1)) * torch.logspace(-9, 6, 1 << 16)
    floats = torch.cat([bits.view(torch.float32), usual, torch.tensor([65519.99, 65520.0, -65520.0, 2.0**-25, 3 * 2.0**-26, torch.inf])])
    floats = floats[~floats.isnan()].contiguous()
    halves, bfloats = torch.empty(len(floats), dtype=torch.uint16), torch.empty(len(floats), dtype=torch.uint16)
    device.library.convert(*(ctypes.c_void_p(t.data_ptr()) for t in (floats, halves, bfloats)), ctypes.c_int(len(floats)))
    assert torch.equal(halves.view(torch.float16), floats.half())
    assert torch.equal(bfloats.view(torch.bfloat16), floats.bfloat16())


def test_four_products_at_once(device: Emulated) -> None:
    a, b = (torch.randint(-128, 128, (1000, 4), generator=torch.Generator().manual_seed(seed)).to(torch.int8) for seed in (0, 1))
    sums = torch.arange(1000, dtype=torch.int32)
    wanted = sums + (a.int() * b.int()).sum(1)
    device.library.four_products(*(ctypes.c_void_p(t.data_ptr()) for t in (a, b, sums)), ctypes.c_int(1000))
    assert torch.equal(sums, wanted.int())
