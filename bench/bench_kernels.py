"""The compiled kernels against the tuned libraries a user would otherwise call: one item an op and shape, all sides interleaved.

Unit: milliseconds of processor time on one thread, the median over rounds in which every side runs in turn. The ratio is the best
peer's median divided by ours: above 1 the kernel is quicker. Ratios travel between machines, times do not.

The peers are given what helps them: unit vectors, so that nobody normalises, and a warm-up. ``--benchmark-json FILE`` keeps the samples
of every side under ``extra_info``.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compress_rec import op
from compress_rec.ops.cosine_top_k import cosine_top_k
from compress_rec.timing import interleave

WIDTH = 384

# items, queries, k, rounds
SHAPES = [
    (100_000, 1, 10, 9),
    (100_000, 8, 10, 7),
    (100_000, 64, 10, 5),
    (100_000, 256, 100, 3),
    (1_682, 1, 10, 60),
    (1_682, 64, 100, 20),
    (1_682, 1024, 100, 5),
]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Processor time adds up over threads, and a waiting thread burns it: torch's and numpy's pools are cut to one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        limit: Any = contextlib.nullcontext()
    else:
        limit = threadpool_limits(1)
    with limit:
        yield
    torch.set_num_threads(threads)


def unit_vectors(kind: str, rows: int, seed: int) -> Tensor:
    """Gaussian directions, the worst case for a threshold, or a catalogue in 200 clusters, which is nearer to embeddings."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn((rows, WIDTH), generator=generator)
    if kind == "clustered":
        centres = torch.randn((200, WIDTH), generator=torch.Generator().manual_seed(7))
        vectors = centres[torch.randint(0, 200, (rows,), generator=generator)] + 0.5 * vectors
    return torch.nn.functional.normalize(vectors)


def torch_top_k(queries: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What one writes in torch: the whole matrix, then topk."""
    found = (queries @ items.T).topk(k)
    return found.values, found.indices


def numpy_top_k(queries: np.ndarray[Any, Any], items: np.ndarray[Any, Any], k: int) -> tuple[Any, Any]:
    """What one writes in numpy: the whole matrix, argpartition, and a sort of the k."""
    scores = queries @ items.T
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    values = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-values, axis=1)
    return np.take_along_axis(values, order, axis=1), np.take_along_axis(best, order, axis=1)


def faiss_sides(queries: np.ndarray[Any, Any], items: np.ndarray[Any, Any], k: int) -> dict[str, Callable[[], Any]]:
    """faiss's exact inner-product index, where faiss is installed, with its threshold for BLAS at the value that serves small batches."""
    try:
        import faiss
    except ImportError:
        return {}
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_threshold = 1
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    return {"faiss": lambda: index.search(queries, k)}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", ["gaussian", "clustered"])
@pytest.mark.parametrize(("count", "batch", "k", "rounds"), SHAPES)
def test_cosine_top_k(benchmark: Any, capsys: pytest.CaptureFixture[str], count: int, batch: int, k: int, rounds: int, kind: str) -> None:
    items, queries = unit_vectors(kind, count, seed=0), unit_vectors(kind, batch, seed=1)
    sides: dict[str, Callable[[], Any]] = {
        "compress_rec": lambda: cosine_top_k(queries, items, k, None, None, True),
        "torch": lambda: torch_top_k(queries, items, k),
        "numpy": lambda: numpy_top_k(queries.numpy(), items.numpy(), k),
        **faiss_sides(queries.numpy(), items.numpy(), k),
    }
    with torch.inference_mode():
        # the sides must do the same work: a row may differ only where two scores agree to rounding
        ours, theirs = sides["compress_rec"](), sides["torch"]()
        torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=1e-6)
        samples = interleave(sides, rounds)
        benchmark.pedantic(sides["compress_rec"], rounds=3, warmup_rounds=0)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    best = min((name for name in medians if name != "compress_rec"), key=medians.__getitem__)
    ratio = medians[best] / medians["compress_rec"]
    benchmark.group = "cosine_top_k"
    benchmark.extra_info.update(
        op="cosine_top_k", backend=op.backend("cosine_top_k"), items=count, queries=batch, k=k, kind=kind, unit="ms", clock="cpu"
    )
    benchmark.extra_info.update(samples=samples, best_peer=best, ratio=ratio)
    with capsys.disabled():
        told = "  ".join(f"{name} {value:9.3f}" for name, value in medians.items())
        rate = 2 * count * batch * WIDTH / medians["compress_rec"] / 1e6
        print(
            f"\ncosine_top_k {count:>7} × {batch:<5} k={k:<4} {kind:9}  {told} ms   {rate:5.1f} GFLOP/s   × {ratio:.2f} over {best}", end=""
        )


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", ["low_rank_linear", "int8_linear"])
@pytest.mark.parametrize("tokens", [1, 32, 512])
def test_linear(benchmark: Any, capsys: pytest.CaptureFixture[str], name: str, tokens: int) -> None:
    """The compressed layers against the dense one they stand for, 384 → 1536; the low-rank one at rank 128."""
    from compress_rec.ops.int8_linear import quantize_per_channel

    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(shape, generator=generator) for shape in ((tokens, WIDTH), (4 * WIDTH, WIDTH), (4 * WIDTH,)))
    parts = (
        (weight[:128], torch.randn((4 * WIDTH, 128), generator=generator)) if name == "low_rank_linear" else quantize_per_channel(weight)
    )
    made = op.find(name)
    sides: dict[str, Callable[[], Any]] = {
        "compress_rec": lambda: made(x, *parts, bias),
        "dense": lambda: torch.nn.functional.linear(x, weight, bias),
    }
    with torch.inference_mode():
        samples = interleave(sides, 15, repeats=max(1, 64 // tokens))
        benchmark.pedantic(sides["compress_rec"], rounds=3, warmup_rounds=1)
    medians = {side: statistics.median(values) for side, values in samples.items()}
    ratio = medians["dense"] / medians["compress_rec"]
    benchmark.group = name
    benchmark.extra_info.update(op=name, backend=op.backend(name), tokens=tokens, unit="ms", clock="cpu", samples=samples, ratio=ratio)
    with capsys.disabled():
        told = "  ".join(f"{side} {value:9.3f}" for side, value in medians.items())
        print(f"\n{name} ({op.backend(name)}) {tokens:>4} tokens  {told} ms   × {ratio:.2f} over dense", end="")
