"""The CUDA kernels on the GPU that is there, against torch, beside what that GPU could do at most: ``make gpu``.

``python -m bench.gpu --results=bench/results/gpu/A.jsonl`` measures the device's copy bandwidth and matrix peaks, runs every case with all
sides in turns, prints one table and keeps one JSON object a line, the machine first. The time is the device's own, between events on the
stream; a sample is the mean of so many calls that launching hides behind running. ``predicted`` is ``bench.roofline`` with the measured
limits.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import roofline
from bench.book import Book
from bench.roofline import Device, Prediction
from compress_rec import op
from compress_rec.errors import CompressRecError

ROUNDS, SAMPLE = 15, 5.0  # samples of each side, and the milliseconds that one takes at least
SCORES = 1 << 30  # scores that the product writes at a time
# queries, k
SEARCHES = {
    "float32": [(1, 10), (8, 10), (64, 10)],
    "bfloat16": [(1, 10), (8, 10), (64, 10), (1024, 10), (1024, 100)],
    "int8": [(1, 10), (8, 10), (64, 10)],
}
LAYERS = [(384, 64, 384), (384, 128, 1536), (768, 256, 768), (768, 256, 3072)]
BLOCKS = [(384, 1536, 64), (384, 1536, 128), (768, 3072, 128), (768, 3072, 256)]
ROWS = (1, 512, 8192)
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}

Sides = Mapping[str, Callable[[], Any]]


def sampled(call: Callable[[], Any], calls: int, device: torch.device) -> float:
    """Return the milliseconds of one call, of so many one behind the other."""
    if device.type != "cuda":  # for the test of this file
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) * 1e3 / calls
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / calls


def in_turns(sides: Sides, device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of every side, a sample a round; the order turns by one place each round."""
    calls = {}
    for name, call in sides.items():
        sampled(call, 1, device)
        calls[name] = max(1, min(1000, int(SAMPLE / max(sampled(call, 3, device), 1e-3))))
    samples: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            samples[name].append(sampled(sides[name], calls[name], device))
    return samples


def limits(device: torch.device, rounds: int, size: int) -> tuple[Device, dict[str, tuple[float, ...]]]:
    """Measure copies of ``size`` megabytes, copies that stay in the cache, and products of matrices; dp4a's peak follows from the clock."""
    big, small = (torch.empty(2, megabytes << 18, dtype=torch.float32, device=device).fill_(1) for megabytes in (size, min(size, 8)))
    side = 8192 if device.type == "cuda" else 256
    of = {kind: torch.ones(side, side, dtype=TYPES[kind], device=device) for kind in ("float32", "bfloat16")}
    taken = in_turns(
        {
            "memory": lambda: big[0].copy_(big[1]),
            "cache": lambda: small[0].copy_(small[1]),
            **{kind: (lambda matrix=matrix: matrix @ matrix) for kind, matrix in of.items()},
        },
        device,
        rounds,
    )
    moved = {"memory": 8.0 * big[0].numel(), "cache": 8.0 * small[0].numel()}
    rates = {name: tuple((moved.get(name) or 2.0 * side**3) / value * 1e3 for value in values) for name, values in taken.items()}
    peaks = {kind: median(rates[kind]) for kind in of}
    name = "this CPU"
    peaks["int8"] = peaks["float32"]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        name = properties.name
        peaks["int8"] = 64 * 8 * properties.multi_processor_count * float(getattr(properties, "clock_rate", 1_755_000)) * 1e3
    return Device(name, median(rates["memory"]), median(rates["cache"]), peaks), rates


def product_and_topk(queries: Tensor, items: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search as one would without this package: unit vectors multiplied, the best taken, so many queries at a time as memory allows."""
    block = max(1, SCORES // len(items))
    parts = [(part @ items.T).float().topk(k) for part in queries.split(block)]
    return torch.cat([values for values, _ in parts]), torch.cat([ids for _, ids in parts])


def searches(device: torch.device, items: int, kinds: Mapping[str, Sequence[tuple[int, int]]]) -> Any:
    """Yield (op, shape, sides, prediction) of every search."""
    from compress_rec.int8_items import quantized

    width = 384
    draw = torch.Generator().manual_seed(0)
    unit = F.normalize(torch.randn(items, width, generator=draw))
    asked = F.normalize(torch.randn(max(q for shapes in kinds.values() for q, _ in shapes), width, generator=draw)).to(device)
    for kind, shapes in kinds.items():
        vectors = unit.to(device, torch.bfloat16 if kind == "int8" else TYPES[kind])
        catalogue = [part.to(device) for part in quantized(unit)] if kind == "int8" else []
        others = _index_of_others(vectors) if kind == "float32" else {}
        for count, k in shapes:
            queries = asked[:count].contiguous()
            if kind == "int8":
                ours = lambda q=queries, c=catalogue, k=k: op.find("cosine_top_k_int8")(q, *c, None, k)  # noqa: E731
            else:
                ours = lambda q=queries, v=vectors, k=k: op.find("cosine_top_k")(q, v, k, None, None, True)  # noqa: E731
            rounded = queries.to(vectors.dtype)
            peer = lambda q=rounded, v=vectors, k=k: product_and_topk(q, v, k)  # noqa: E731
            sides = {"ours": ours, "torch": peer, **{name: (lambda f=f, q=queries, k=k: f(q, k)) for name, f in others.items()}}
            shape = {"kind": kind, "items": items, "width": width, "queries": count, "k": k}
            yield (
                "cosine_top_k",
                shape,
                sides,
                lambda d, s=shape: roofline.search(d, *(s[n] for n in ("kind", "items", "width", "queries", "k"))),
            )


def _index_of_others(vectors: Tensor) -> dict[str, Callable[[Tensor, int], Any]]:
    """Return the searches of faiss-gpu and cuVS, where they are installed and a GPU is there."""
    found: dict[str, Callable[[Tensor, int], Any]] = {}
    if vectors.device.type != "cuda":
        return found
    try:
        import faiss

        flat = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), vectors.shape[1])
        flat.add(vectors.cpu().numpy())
        found["faiss-gpu"] = lambda queries, k: flat.search(queries.cpu().numpy(), k)
    except (ImportError, AttributeError):
        pass
    try:
        from cuvs.neighbors import brute_force

        index = brute_force.build(vectors, metric="inner_product")
        found["cuVS"] = lambda queries, k: brute_force.search(index, queries, k)
    except ImportError:
        pass
    return found


def layers(device: torch.device, shapes: Sequence[tuple[int, int, int]], rows: Sequence[int], kinds: Sequence[str]) -> Any:
    """Yield (op, shape, sides, prediction) of every low-rank layer."""
    draw = torch.Generator().manual_seed(0)
    for kind in kinds:
        for inputs, rank, outputs in shapes:
            a, b, dense = (
                (torch.randn(high, wide, generator=draw) / wide**0.5).to(device, TYPES[kind])
                for high, wide in ((rank, inputs), (outputs, rank), (outputs, inputs))
            )
            for count in rows:
                x = torch.randn(count, inputs, generator=draw).to(device, TYPES[kind])
                sides = {
                    "ours": lambda x=x, a=a, b=b: op.find("low_rank_linear")(x, a, b),
                    "torch": lambda x=x, a=a, b=b: F.linear(F.linear(x, a), b),
                    "dense": lambda x=x, w=dense: F.linear(x, w),
                }
                shape = {"kind": kind, "rows": count, "inputs": inputs, "rank": rank, "outputs": outputs}
                yield "low_rank_linear", shape, sides, lambda d, s=shape: roofline.low_rank(d, *s.values())


def blocks(device: torch.device, shapes: Sequence[tuple[int, int, int]], rows: Sequence[int], kinds: Sequence[str]) -> Any:
    """Yield (op, shape, sides, prediction) of every feed-forward block."""
    draw = torch.Generator().manual_seed(0)
    for kind in kinds:
        for width, hidden, rank in shapes:
            sizes = (rank, width), (hidden, rank), (rank, hidden), (width, rank)
            factors = [(torch.randn(size, generator=draw) / size[1] ** 0.5).to(device, TYPES[kind]) for size in sizes]
            for count in rows:
                x = torch.randn(count, width, generator=draw).to(device, TYPES[kind])
                sides = {
                    "ours": lambda x=x, f=factors: op.find("low_rank_feed_forward")(x, *f),
                    "torch": lambda x=x, f=factors: F.linear(F.linear(F.gelu(F.linear(F.linear(x, f[0]), f[1])), f[2]), f[3]),
                }
                shape = {"kind": kind, "rows": count, "width": width, "hidden": hidden, "rank": rank}
                yield "low_rank_feed_forward", shape, sides, lambda d, s=shape: roofline.feed_forward(d, *s.values())


def check(name: str, sides: Sides, kind: str) -> None:
    """Refuse to clock an answer that is not torch's, but for rounding: the scores of a search, the numbers of a layer."""
    ours, theirs = sides["ours"](), sides["torch"]()
    ours, theirs = (ours[0], theirs[0]) if isinstance(ours, tuple) else (ours, theirs)
    off = float((ours.double() - theirs.double()).norm() / theirs.double().norm())
    if not off <= {"float32": 1e-5, "bfloat16": 2e-2, "int8": 2e-2}[kind]:
        raise CompressRecError(f"{name}: ours is off torch's answer by {off:.2g} of its length, so there is nothing to clock")


def row(name: str, shape: Mapping[str, Any], samples: Mapping[str, list[float]], told: Prediction, served: str) -> dict[str, Any]:
    """Return what is kept of one case."""
    medians = {side: median(values) for side, values in samples.items()}
    peers = {side: value for side, value in medians.items() if side not in ("ours", "dense")}
    best = min(peers, key=peers.__getitem__)
    return {
        "op": name, "shape": dict(shape), "served": served, "samples": dict(samples), "medians": medians, "best_peer": best,
        "ratio": peers[best] / medians["ours"], "predicted": told.ours * 1e3, "bound": told.bound, "predicted_gain": told.gain,
        "fraction": told.ours * 1e3 / medians["ours"],
    }  # fmt: skip


def table(device: Device, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as Markdown."""
    peaks = ", ".join(f"{peak / 1e12:.3g} T{'OP' if kind == 'int8' else 'FLOP'}/s {kind}" for kind, peak in device.peaks.items())
    measured = f"{device.name}: {device.bandwidth / 1e9:.0f} GB/s copied, {device.cache / 1e9:.0f} in the cache, {peaks}."
    lines = [measured, "", "| op | shape | served | ours, ms | best peer, ms | × | predicted, ms | of it | bound | predicted × |"]
    lines.append("|---|---|---|---:|---|---:|---:|---:|---|---:|")
    for one in rows:
        shape = ", ".join(str(value) if key == "kind" else f"{key} {value:,}" for key, value in one["shape"].items())
        best = f"{one['best_peer']} {one['medians'][one['best_peer']]:.4g}"
        lines.append(
            f"| {one['op']} | {shape} | {one['served']} | {one['medians']['ours']:.4g} | {best} | {one['ratio']:.2f}"
            f" | {one['predicted']:.3g} | {one['fraction']:.0%} | {one['bound']} | {one['predicted_gain']:.2f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run every case; 0, or 2 where there is no device or an answer is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description="the CUDA kernels against torch, beside the roofline")
    parser.add_argument("--results", type=Path, help="the file for the results as JSON lines")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu with --quick shows that every side works")
    parser.add_argument("--quick", action="store_true", help="few rounds of small cases, no figures to keep")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    try:
        if device.type == "cuda" and not torch.cuda.is_available():
            raise CompressRecError("the GPU bench needs a CUDA device, but torch sees none: look at what compress-rec doctor says")
        torch.backends.cuda.matmul.allow_tf32 = False
        rounds = 3 if given.quick else ROUNDS
        found, rates = limits(device, rounds, 4 if given.quick else 1024)
        book = Book(given.results, rates)
        kinds = {kind: [(3, 5)] for kind in SEARCHES if device.type == "cuda" or kind != "bfloat16"} if given.quick else SEARCHES
        two = ("float32", "bfloat16")
        if given.quick:
            parts = searches(device, 500, kinds), layers(device, [(64, 8, 96)], (3,), two), blocks(device, [(32, 64, 8)], (3,), two[1:])
        else:
            parts = searches(device, 1_000_000, kinds), layers(device, LAYERS, ROWS, two), blocks(device, BLOCKS, ROWS, two)
        with torch.no_grad():
            for name, shape, sides, predict in itertools.chain(*parts):
                check(name, sides, shape["kind"])
                kernel = torch._C._dispatch_has_kernel_for_dispatch_key(f"compress_rec::{name}", "CUDA")
                served = "cuda" if kernel and device.type == "cuda" else "reference" if device.type == "cuda" else "cpu"
                book.add(row(name, shape, in_turns(sides, device, rounds), predict(found), served))
        print(table(found, book.rows[1:]))
        return 0
    except CompressRecError as fault:
        print(fault, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
