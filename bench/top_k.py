"""The sides of a search: the index that a user calls, and the peers, each tuned once on the very catalogue and given unit vectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import vectors
from bench.case import Case, Side
from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.index import FORMATS, CosineIndex

FORMATS_WANTED = ("float32", "int8", "int8-only")
LOSSY = ("int8-only",)
CHUNKS = (1024, 256, 64, 16)  # queries whose scores are held at a time, for peers that hold the scores
TRIED = 1 << 25  # pairs of query and item that a setting is tried on
SCAN, SCAN_AT_MOST = 1 << 30, 64  # a threshold that no batch reaches; with more queries scanning is hopeless
TIES = 1e-6  # float64 scores so near may change places: float32 rounds sums of 384 products by less
RECALL = 0.999  # wanted of the lossy peer on its queries; it states what it reaches
FACTORS = (1, 2, 4, 8, 16)


class Catalogue:
    """One set of items in every form the sides need, built once for all of its cases."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.count = kind, count
        self.items = vectors.items(kind, count)
        self.skipped: dict[str, str] = {}
        self.indices: dict[str, CosineIndex] = {}
        for name in FORMATS_WANTED:
            if name in FORMATS:
                self.indices[name] = CosineIndex(self.items, format=name)
            else:
                self.skipped[name] = "the index has no such format yet"
        self.faiss: Any = None
        self.flat: Any = None
        self.refined: Any = None
        try:
            import faiss
        except ImportError:
            self.skipped["faiss"] = "faiss is not installed: pip install .[bench]"
            return
        faiss.omp_set_num_threads(1)
        self.faiss = faiss
        self.flat = faiss.IndexFlatIP(self.items.shape[1])
        self.flat.add(self.items.numpy())
        # kept by name: faiss' own objects do not hold what they refer to
        self.screen = screen = faiss.IndexScalarQuantizer(self.items.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
        screen.train(self.items[:100_000].numpy())
        screen.add(self.items.numpy())
        self.refined = faiss.IndexRefine(screen, self.flat)

    def case(self, queries: Tensor, k: int) -> Case:
        """Return the case of searching for ``queries``; every exact side has been checked, every lossy one's recall taken."""
        best, ids = truth(queries, self.items, k)
        work = 2.0 * self.count * len(queries) * self.items.shape[1]
        sides: dict[str, Side] = {}
        with torch.inference_mode():
            for name, index in self.indices.items():
                call = partial(index.search, queries, k)
                told = {"recall": recall(call()[1], ids)} if name in LOSSY else {}
                limit, size = ("fma", 4) if name == "float32" else ("maddubs_pairs", 1)
                role: Any = "lossy ours" if name in LOSSY else "ours"
                sides[name] = Side(call, role, limit, float(size * self.items.numel()), told)
            sides |= {name: Side(call, "peer") for name, call in self.exact_peers(queries, k).items()}
            sides |= self.lossy_peer(queries, k, ids)
            for name, side in sides.items():
                if not side.lossy:
                    check(f"{name} on {self.count} {self.kind} items, k = {k}", side.call(), queries, self.items, best)
        shape: dict[str, int | str] = {"items": self.count, "queries": len(queries), "k": k, "data": self.kind}
        served = {op.backend(FORMATS[name].op) for name in self.indices}
        return Case("cosine_top_k", shape, work, sides, "/".join(sorted(served)), self.skipped)

    def exact_peers(self, queries: Tensor, k: int) -> dict[str, Callable[[], Any]]:
        """Return faiss' exact index, numpy and torch, each in the quickest of a few settings."""
        wanted, catalogue = queries.numpy(), self.items.numpy()
        few = queries[: max(1, TRIED // self.count)]  # a setting is chosen on so many of them
        chunks = [size for size in CHUNKS if size < len(few)] + [min(len(few), CHUNKS[0])]
        ours = quickest({size: partial(torch_top_k, few, self.items, k, size) for size in chunks}.items())
        theirs = quickest({size: partial(numpy_top_k, few.numpy(), catalogue, k, size) for size in chunks}.items())
        found: dict[str, Callable[[], Any]] = {
            "torch": partial(torch_top_k, queries, self.items, k, ours),
            "numpy": partial(numpy_top_k, wanted, catalogue, k, theirs),
        }
        if self.faiss is not None:
            # with fewer queries than the threshold it scans, with more it multiplies matrices; its default takes the slower way for some
            ways = (1, SCAN) if len(queries) < SCAN_AT_MOST else (1,)
            way = quickest({way: partial(self.faiss_flat, wanted, k, way) for way in ways}.items())
            found["faiss"] = partial(self.faiss_flat, wanted, k, way)
        return found

    def faiss_flat(self, queries: np.ndarray[Any, Any], k: int, threshold: int) -> Any:
        self.faiss.cvar.distance_compute_blas_threshold = threshold
        return self.flat.search(queries, k)

    def lossy_peer(self, queries: Tensor, k: int, ids: Tensor) -> dict[str, Side]:
        """Return faiss' 8-bit scan with refinement, at the smallest factor that reaches the wanted recall on up to 64 of the queries."""
        if self.faiss is None:
            return {}
        factor, few = FACTORS[0], queries[:64].numpy()
        for factor in FACTORS:
            if factor * k > self.count:
                break
            if recall(self.refined_search(few, k, factor)[1], ids[:64]) >= RECALL:
                break
        factor = min(factor, max(1, self.count // k))
        reached = recall(self.refined_search(few, k, factor)[1], ids[:64])
        return {
            "faiss SQ8": Side(
                partial(self.refined_search, queries.numpy(), k, factor), "lossy peer", notes={"recall": reached, "factor": factor}
            )
        }

    def refined_search(self, queries: np.ndarray[Any, Any], k: int, factor: int) -> Any:
        return self.refined.search(queries, k, params=self.faiss.IndexRefineSearchParameters(k_factor=factor))


def torch_top_k(queries: Tensor, items: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Products into one buffer and topk, so many queries at a time."""
    scores, ids = torch.empty(len(queries), k), torch.empty(len(queries), k, dtype=torch.int64)
    block = _buffer(min(chunk, len(queries)), len(items))
    for start in range(0, len(queries), chunk):
        rows = queries[start : start + chunk]
        torch.matmul(rows, items.T, out=block[: len(rows)])
        torch.topk(block[: len(rows)], k, out=(scores[start : start + chunk], ids[start : start + chunk]))
    return scores, ids


def numpy_top_k(queries: np.ndarray[Any, Any], items: np.ndarray[Any, Any], k: int, chunk: int) -> tuple[Any, Any]:
    """Products into one buffer, argpartition, and a sort of the k, so many queries at a time."""
    scores, ids = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    block = _buffer(min(chunk, len(queries)), len(items)).numpy()
    for start in range(0, len(queries), chunk):
        rows = queries[start : start + chunk]
        part = np.matmul(rows, items.T, out=block[: len(rows)])
        best = np.argpartition(part, len(items) - k, axis=1)[:, len(items) - k :]
        values = np.take_along_axis(part, best, axis=1)
        order = np.argsort(-values, axis=1)
        scores[start : start + chunk] = np.take_along_axis(values, order, axis=1)
        ids[start : start + chunk] = np.take_along_axis(best, order, axis=1)
    return scores, ids


_BUFFERS: dict[tuple[int, int], Tensor] = {}


def _buffer(rows: int, columns: int) -> Tensor:
    """Memory that is written once before the clock runs: fresh pages would cost the peers as much as the products."""
    if (rows, columns) not in _BUFFERS:
        if sum(one.numel() for one in _BUFFERS.values()) > 1 << 28:
            _BUFFERS.clear()
        _BUFFERS[rows, columns] = torch.zeros(rows, columns)
    return _BUFFERS[rows, columns]


def quickest(calls: Iterable[tuple[int, Callable[[], Any]]]) -> int:
    """Return the setting whose call is the quickest, each warmed up and tried twice; the only one, without trying it."""
    tried = list(calls)
    took: dict[int, int] = {}
    for setting, call in tried if len(tried) > 1 else ():
        call()
        for _ in range(2):
            start = time.process_time_ns()
            call()
            took[setting] = min(took.get(setting, 1 << 62), time.process_time_ns() - start)
    return min(took, key=took.__getitem__) if took else tried[0][0]


def truth(queries: Tensor, items: Tensor, k: int, block: int = 50_000) -> tuple[Tensor, Tensor]:
    """Return the k best float64 scores (queries, k), falling, and their ids."""
    scores = torch.empty(len(queries), 0, dtype=torch.float64)
    ids = torch.empty(len(queries), 0, dtype=torch.int64)
    wanted = queries.double()
    for start in range(0, len(items), block):
        part = wanted @ items[start : start + block].double().T
        best = part.topk(min(k, part.shape[1]))
        scores, ids = torch.cat([scores, best.values], 1), torch.cat([ids, best.indices + start], 1)
        order = scores.topk(min(k, scores.shape[1]))
        scores, ids = order.values, ids.gather(1, order.indices)
    return scores, ids


def check(who: str, found: Any, queries: Tensor, items: Tensor, best: Tensor) -> None:
    """Refuse an answer that is not the k best, but for items whose float64 scores agree to rounding."""
    ids = torch.as_tensor(found[1])
    if ids.shape != best.shape or (ids.sort(dim=1).values.diff(dim=1) == 0).any():
        raise CompressRecError(f"{who}: the answer must hold {tuple(best.shape)} different items: the sides do not do the same work")
    for row in range(0, len(queries), 64):
        part = slice(row, row + 64)
        scores = torch.einsum("qd,qkd->qk", queries[part].double(), items[ids[part]].double())
        worst = float((scores - best[part]).abs().max())
        if worst > TIES:
            raise CompressRecError(f"{who}: a score is {worst:.2e} from the one that belongs there: the sides do not do the same work")


def recall(found: Any, ids: Tensor) -> float:
    """Return the share of the true k best that was found."""
    given = torch.as_tensor(found)
    return float((given[:, :, None] == ids[:, None, :]).any(dim=2).double().mean())
