"""The thin layer between torch and the CUDA kernels: its checks, allocations and tasks, with the kernels under emulation behind it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.cpp_extension import include_paths

from compress_rec import op
from tests.cuda.machine import CUDA, Emulated, compiler
from tests.cuda.real import Real
from tests.ops.owed import OWED
from tests.ops.test_contract import assert_ranking, floor, outputs, worst
from tests.ops.tried import rand, strided

NAMES = ("low_rank_feed_forward", "low_rank_linear", "cosine_top_k", "cosine_top_k_int8", "cosine_top_k_panels")
_LIBRARY = torch.library.Library("compress_rec_emulated", "FRAGMENT")


def on_gpu(name: str, *arguments: Any) -> Any:
    """Call an op with everything on the GPU, and bring the results back."""
    if not torch._C._dispatch_has_kernel_for_dispatch_key(f"compress_rec::{name}", "CUDA"):
        pytest.skip(f"the extension has no CUDA kernel for {name}: {op.build_facts().get('cuda')}")
    there = (value.cuda() if isinstance(value, Tensor) else value for value in arguments)
    result = op.find(name)(*there)
    return tuple(value.cpu() for value in result) if isinstance(result, tuple) else result.cpu()


@pytest.fixture(scope="module")
def called(library: Emulated | Real) -> Callable[..., Any]:
    """The ops by name: from a library of their own under emulation, the package's on a GPU."""
    if library.real:
        return on_gpu
    for name in NAMES:
        _LIBRARY.define(op.find(name).schema)
    library.library.register_emulated()
    return lambda name, *arguments: getattr(torch.ops.compress_rec_emulated, name)(*arguments)


@pytest.mark.parametrize("case", ["plain", "zero rows", "odd tails", "strided", "transposed", "normalised", "excluding", "excluding all"])
def test_searches_are_those_of_the_contract(called: Callable[..., Any], case: str) -> None:
    owed = OWED["cosine_top_k"]
    arguments = owed.cases[case]()
    result = called("cosine_top_k", *arguments)
    assert_ranking(result, op.find("cosine_top_k").reference(*arguments), owed.precise(*arguments), arguments[2])
    fake = outputs(op.find("cosine_top_k")(*(value.to("meta") if isinstance(value, Tensor) else value for value in arguments)))
    assert [(t.shape, t.dtype, t.stride()) for t in fake] == [(t.shape, t.dtype, t.stride()) for t in result]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("queries", [3, 24])
def test_searches_of_half_precision(called: Callable[..., Any], queries: int, kind: torch.dtype) -> None:
    asked, items = rand(queries, 16), F.normalize(rand(500, 16, seed=1)).to(kind)
    scores, ids = called("cosine_top_k", asked, items, 4, None, None, True)
    precise = F.normalize(asked.double()).float().to(kind).double() @ items.double().T
    assert (scores - precise.gather(1, ids)).abs().max() < 1e-6
    assert (scores - precise.sort(descending=True).values[:, :4]).abs().max() < 1e-6


@pytest.mark.parametrize("case", ["plain", "codes alone", "zero rows", "strided", "removed", "excluding"])
def test_int8_searches_are_those_of_the_contract(called: Callable[..., Any], case: str) -> None:
    name, owed = "cosine_top_k_int8", OWED["cosine_top_k_int8"]
    arguments = owed.cases[case]()
    result, reference = called(name, *arguments), op.find(name).reference(*arguments)
    assert_ranking(result, reference, owed.precise(*arguments), arguments[6])
    assert (result[2] >= reference[2]).all()


@pytest.mark.parametrize("case", ["plain", "one item", "zero rows", "strided", "removed", "excluding"])
def test_searches_of_panels_are_those_of_the_contract(called: Callable[..., Any], case: str) -> None:
    name, owed = "cosine_top_k_panels", OWED["cosine_top_k_panels"]
    arguments = owed.cases[case]()
    assert_ranking(called(name, *arguments), op.find(name).reference(*arguments), owed.precise(*arguments), arguments[3])


@pytest.mark.parametrize(("name", "case"), [(name, case) for name in NAMES[:2] for case in OWED[name].cases])
def test_layers_are_those_of_the_contract(called: Callable[..., Any], name: str, case: str) -> None:
    arguments = tuple(None if value is None else value.detach() for value in OWED[name].cases[case]())
    reference, exact = op.find(name).reference(*arguments), OWED[name].precise(*arguments)
    y = called(name, *arguments)
    assert (y.shape, y.dtype, y.stride()) == (reference.shape, reference.dtype, reference.stride())
    assert worst(y, exact) <= max(2 * worst(reference, exact), floor(exact))


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_layers_of_every_type(called: Callable[..., Any], kind: torch.dtype) -> None:
    x, a, b, bias = (t.to(kind) for t in (strided(rand(2, 5, 24)), rand(12, 24, seed=1), rand(40, 12, seed=2), rand(40, seed=3)))
    torch.testing.assert_close(called("low_rank_linear", x, a, b, bias), op.find("low_rank_linear").reference(x, a, b, bias))


def test_a_rank_too_large_for_the_kernel_goes_through_two_products(called: Callable[..., Any]) -> None:
    x, a, b = rand(3, 8), rand(2000, 8, seed=1), rand(4, 2000, seed=2)
    torch.testing.assert_close(called("low_rank_linear", x, a, b), op.find("low_rank_linear").reference(x, a, b))
    c, d, name = rand(300, 4, seed=3), rand(5, 300, seed=4), "low_rank_feed_forward"
    torch.testing.assert_close(called(name, x, a, b, c, d), op.find(name).reference(x, a, b, c, d))


# what shapes and dtypes do not tell: values stay on the device, where nobody waits for them; and what Python refuses before any kernel
NOT_SEEN = {
    "nan query",
    "inf item",
    "inf normalised item",
    "nan item without queries",
    "unknown id",
    "falling offsets",
    "gradient",
    "items",
}
SEEN = [(name, fault) for name in NAMES for fault in OWED[name].refusals if fault not in NOT_SEEN]


@pytest.mark.parametrize(("name", "fault"), SEEN)
def test_refusals_word_for_word(called: Callable[..., Any], name: str, fault: str) -> None:
    """In the reference's own words."""
    arguments, sentence = OWED[name].refusals[fault]
    with pytest.raises(Exception, match=f"{name}: ") as refused:
        called(name, *arguments())
    assert sentence in str(refused.value)


def test_what_only_a_device_refuses(called: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="cosine_top_k: k must be at most 1024 on a CUDA device, but 1025 came; ask for fewer"):
        called("cosine_top_k", rand(1, 4), rand(1025, 4), 1025)
    with pytest.raises(Exception, match="the CUDA kernel was not launched: a query this wide does not fit"):
        called("cosine_top_k", rand(1, 50000), rand(2, 50000), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is needed to see that tensors elsewhere are refused")
def test_inputs_on_different_devices_are_refused() -> None:
    with pytest.raises(Exception, match="cosine_top_k: items must be on the device of queries \\(cuda:0\\), but one on cpu came; move it"):
        op.find("cosine_top_k")(rand(1, 4).to("cuda:0"), rand(3, 4), 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA device is needed to capture a graph")
def test_a_captured_graph_gives_the_same_again() -> None:
    """Nothing waits and nothing is allocated but from torch's pool, else capturing would fail."""
    asked, items = rand(4, 32).cuda(), rand(5000, 32, seed=1).cuda()
    search = op.find("cosine_top_k")
    wanted = search(asked, items, 5)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = search(asked, items, 5)
    graph.replay()
    assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))


def test_the_layer_for_a_real_device_compiles() -> None:
    """It is the one file that the emulation has no use for."""
    nvcc = shutil.which("nvcc")
    told = "" if nvcc is None else subprocess.run([nvcc, "-dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    headers = next((Path(line.split("=", 1)[1]) / "include" for line in told.splitlines() if line.startswith("#$ TOP=")), None)
    if headers is None or not (headers / "cuda_runtime_api.h").exists():
        pytest.skip("the headers of CUDA's runtime are not here: nvcc is not on PATH, or came without them")
    includes = [f"-isystem{path}" for path in (*include_paths(), headers)]
    flags = ["-std=c++17", "-fsyntax-only", "-Wall", "-Werror", "-DTORCH_TARGET_VERSION=0x020a000000000000"]
    done = subprocess.run([compiler(), *flags, *includes, str(CUDA / "torch_device.cpp")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
