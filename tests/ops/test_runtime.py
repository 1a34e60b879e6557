"""Every op under what programs do to ops: compiled, exported, in inference mode, from many threads at once, in forked workers."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress_rec import op
from tests.ops.owed import OWED

ROOT = Path(__file__).parents[2]
TIERS = op.tiers()
THREADS = 8
CALLS = 250  # a thread, over all ops
# cases of mixed shapes that the threads run; what is left out is slow on the reference and shows nothing more
LEFT_OUT = ("one query", "many queries")


def settled(name: str, tier: str) -> bool:
    """Whether the op itself says in which order it sums: a compiled kernel serves, or there is nothing to sum."""
    with op.force(tier):
        return op.backend(name) != op.REFERENCE or op.find(name).close == "exact"


SETTLED = [(name, tier) for name in OWED for tier in TIERS if settled(name, tier)]
tiers = pytest.mark.parametrize("tier", TIERS)
names = pytest.mark.parametrize("name", OWED)


def outputs(result: Any) -> tuple[Tensor, ...]:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def same(one: Any, two: Any) -> bool:
    """The same bits: equal values, and a zero of the same sign."""
    pairs = list(zip(outputs(one), outputs(two), strict=True))
    return all(torch.equal(a, b) and torch.equal(a.signbit(), b.signbit()) for a, b in pairs)


class Calling(nn.Module):
    """A module that calls an op: the tensors come in, what is no tensor stays with it."""

    def __init__(self, name: str, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.op = getattr(torch.ops.compress_rec, name).default
        self.fixed = tuple(None if isinstance(value, Tensor) else value for value in arguments)
        self.given = tuple(isinstance(value, Tensor) for value in arguments)

    def forward(self, *tensors: Tensor) -> Any:
        coming = iter(tensors)
        return self.op(*(next(coming) if given else value for given, value in zip(self.given, self.fixed, strict=True)))


def case(name: str) -> tuple[Calling, tuple[Tensor, ...], Any]:
    """The plain case: a module, its tensors, and what the op itself says."""
    arguments = OWED[name].cases["plain"]()
    tensors = tuple(value for value in arguments if isinstance(value, Tensor))
    return Calling(name, arguments), tensors, op.find(name)(*arguments)


@tiers
def test_gradients_are_refused_however_a_call_comes(tier: str) -> None:
    """Where none can be asked for, a call passes by the front that refuses them; where one is, nothing does."""
    x, codes, scales = OWED["int8_linear"].cases["plain"]()[:3]
    asking, made = x.clone().requires_grad_(), op.find("int8_linear")
    refused = pytest.raises(ValueError, match="x must be a tensor without gradient")
    with op.force(tier):
        with refused:
            made(asking, codes, scales)
        with refused:
            made(x=asking, codes=codes, scales=scales)
        with refused:
            torch.ops.compress_rec.int8_linear(asking, codes, scales)
        wanted = made(x, codes, scales)
        with torch.no_grad():
            found = made(asking, codes, scales)
        with torch.inference_mode():
            again = made(asking, codes, scales)
    assert not found.requires_grad
    assert torch.equal(found, wanted)
    assert torch.equal(again, wanted)


@tiers
@names
def test_torch_compile_takes_it_whole(name: str, tier: str) -> None:
    with op.force(tier):
        module, tensors, wanted = case(name)
        torch._dynamo.reset()
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        assert same(compiled(*tensors), wanted)


@tiers
@names
def test_torch_export_keeps_it_as_one_call(name: str, tier: str) -> None:
    with op.force(tier):
        module, tensors, wanted = case(name)
        program = torch.export.export(module, tensors)
        called = [node.target for node in program.graph.nodes if node.op == "call_function"]
        assert op.find(name).overload in called
        assert same(program.module()(*tensors), wanted)


@tiers
@names
def test_inference_mode_changes_no_bit(name: str, tier: str) -> None:
    arguments, made = OWED[name].cases["plain"](), op.find(name)
    with op.force(tier):
        wanted = made(*arguments)
        with torch.inference_mode():
            found = made(*arguments)
            inside = made(*(value.clone() if isinstance(value, Tensor) else value for value in arguments))
    assert same(found, wanted)
    assert same(inside, wanted)
    assert all(output.is_inference() for output in outputs(found))


@pytest.mark.parametrize(("name", "tier"), SETTLED)
def test_torchs_threads_change_no_bit(name: str, tier: str) -> None:
    """On every case, for what does not leave the order of its sums to torch's matmul, which cuts it by threads."""
    made, before = op.find(name), torch.get_num_threads()
    try:
        with op.force(tier):
            for arguments in (make() for make in OWED[name].cases.values()):
                found = []
                for threads in (1, 2, 3):
                    torch.set_num_threads(threads)
                    found.append(made(*arguments))
                assert same(found[0], found[1])
                assert same(found[0], found[2])
    finally:
        torch.set_num_threads(before)


@tiers
@pytest.mark.parametrize("within", [1, 2])
def test_eight_threads_at_once(tier: str, within: int) -> None:
    """Calls of all ops in mixed shapes, each thread in an order of its own and beginning together, give the bits of a call alone.

    within: torch's threads inside a call
    """
    before = torch.get_num_threads()
    torch.set_num_threads(within)
    try:
        with op.force(tier):
            work = []
            for name, owed in OWED.items():
                for which, make in owed.cases.items():
                    if which not in LEFT_OUT:
                        arguments = make()
                        work.append((f"{name}, {which}", op.find(name), arguments, op.find(name)(*arguments)))
            together = threading.Barrier(THREADS)

            def run(number: int) -> list[str]:
                order = torch.randint(0, len(work), (CALLS,), generator=torch.Generator().manual_seed(number)).tolist()
                torch.set_num_threads(within)  # a thread's own setting
                together.wait(timeout=30)
                wrong = []
                for index in order:
                    told, made, arguments, wanted = work[index]
                    if not same(made(*arguments), wanted):
                        wrong.append(told)
                return wrong

            with ThreadPoolExecutor(THREADS) as pool:
                wrong = [told for found in pool.map(run, range(THREADS)) for told in found]
    finally:
        torch.set_num_threads(before)
    assert not wrong


FORKED = """
import torch
from torch.utils.data import DataLoader, Dataset

from compress_rec import op
from tests.ops.owed import OWED

NAMES = list(OWED)
ARGUMENTS = [OWED[name].cases["plain"]() for name in NAMES]
# the parent's pool of threads is at work before the fork, as it is when a program has encoded something
torch.set_num_threads(2)
torch.randn(700, 700) @ torch.randn(700, 700)
for name in NAMES:
    for make in OWED[name].cases.values():
        op.find(name)(*make())
torch.set_num_threads(1)  # as a worker has: with another number, torch's matmul in the references sums in another order
WANTED = [op.find(name)(*arguments) for name, arguments in zip(NAMES, ARGUMENTS)]
torch.set_num_threads(2)


class Calls(Dataset):
    def __len__(self):
        return 4 * len(NAMES)

    def __getitem__(self, index):
        at = index % len(NAMES)
        found = op.find(NAMES[at])(*ARGUMENTS[at])
        return at, found if isinstance(found, tuple) else (found,)


seen = set()
for at, found in DataLoader(Calls(), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60):
    wanted = WANTED[at] if isinstance(WANTED[at], tuple) else (WANTED[at],)
    assert all(torch.equal(one, two) for one, two in zip(found, wanted)), NAMES[at]
    seen.add(NAMES[at])
print(sorted(seen) == sorted(NAMES), op.tier())
"""


@tiers
def test_forked_workers_of_a_data_loader(tier: str) -> None:
    """After the parent has computed with several threads. A worker has torch's one thread, as ``DataLoader`` sets it.

    In a process of its own, so that a worker that hangs fails here and stays nobody's burden.
    """
    run = [sys.executable, "-c", FORKED]
    environment = {**os.environ, "COMPRESS_REC_ISA": tier, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["True", tier]
