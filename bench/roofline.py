"""What a GPU could do at most: bytes over bandwidth and operations over peak, for our kernels and for what one would call instead.

``python -m bench.roofline`` prints the predictions for an H100; with ``bench/README.md`` behind it they go between
``<!-- figures:roofline -->`` and ``<!-- /figures -->``; with ``--check`` nothing is written, and a difference is an error. They are limits,
no measurements: no kernel is quicker than they say, and how near one comes is for a device to show (``make gpu``).
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress_rec.errors import CompressRecError
from compress_rec.figures import between_markers, settled

BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
FEW, MANY = 8, 128  # queries that a block reads the catalogue for
INT8_DIGITS = 3  # products of a code: a query's number is three digits


@dataclass(frozen=True)
class Device:
    """bandwidth, cache: bytes a second from memory and from the second-level cache; peaks: operations a second by type, where a
    multiplication and an addition count as two.

    ``float32`` is that of FMAs, ``bfloat16`` that of tensor cores with dense matrices, ``int8`` that of dp4a.
    """

    name: str
    bandwidth: float
    cache: float
    peaks: Mapping[str, float]


# NVIDIA's data sheet of the SXM module; dp4a: 64 instructions of 8 operations a multiprocessor and clock, 132 of them at 1.755 GHz
# the cache is on no data sheet: about what others have measured
H100 = Device("H100 SXM", 3.35e12, 5.5e12, {"float32": 67e12, "bfloat16": 989e12, "int8": 64 * 8 * 132 * 1.755e9})


@dataclass(frozen=True)
class Prediction:
    """ours, peer: seconds at least; bound: what limits ours, ``memory``, ``cache`` or the arithmetic of a type."""

    ours: float
    peer: float
    bound: str

    @property
    def gain(self) -> float:
        """How often ours goes into the peer's time, both at their limits."""
        return self.peer / self.ours


def _limited(device: Device, kind: str, moved: float, operations: float, cached: float = 0.0) -> tuple[float, str]:
    """Return the seconds, and what takes them."""
    limits = {"memory": moved / device.bandwidth, "cache": cached / device.cache, kind: operations / device.peaks[kind]}
    bound = max(limits, key=limits.__getitem__)
    return limits[bound], bound


def search(device: Device, kind: str, items: int, width: int, queries: int, k: int) -> Prediction:
    """Predict ``cosine_top_k`` against a product of matrices whose scores go to memory as float32 and are read again by topk.

    A block reads its part of the catalogue for eight queries, in half precision and for more than 16 queries for 128. Those that read the
    same part run together, so it comes from memory once and from the cache for each. The peer multiplies in the catalogue's type; for int8
    there is none, so it is the one in bfloat16.
    """
    catalogue, results = items * width * BYTES[kind], queries * k * 12
    many = kind == "bfloat16" and queries > 16
    reads = math.ceil(queries / (MANY if many else FEW))
    operations = 2.0 * items * width * queries * (INT8_DIGITS if kind == "int8" else 1)
    # the path for few multiplies with FMAs, whatever the catalogue's type
    arithmetic = kind if many or kind == "int8" else "float32"
    ours, bound = _limited(device, arithmetic, catalogue + results, operations, catalogue * reads)
    of_peer = "bfloat16" if kind == "int8" else kind
    scores = 4.0 * items * queries
    multiplied = _limited(device, of_peer, items * width * BYTES[of_peer] + scores, 2.0 * items * width * queries)[0]
    return Prediction(ours, multiplied + scores / device.bandwidth, bound)


def low_rank(device: Device, kind: str, rows: int, inputs: int, rank: int, outputs: int) -> Prediction:
    """Predict a low-rank layer in one kernel against two products, whose middle goes to memory and comes back."""
    size, operations = BYTES[kind], 2.0 * rows * rank * (inputs + outputs)
    weights = rank * (inputs + outputs)
    ours, bound = _limited(device, kind, size * (rows * (inputs + outputs) + weights), operations)
    first = _limited(device, kind, size * (rows * (inputs + rank) + inputs * rank), 2.0 * rows * rank * inputs)[0]
    second = _limited(device, kind, size * (rows * (rank + outputs) + rank * outputs), 2.0 * rows * rank * outputs)[0]
    return Prediction(ours, first + second, bound)


def dense(device: Device, kind: str, rows: int, inputs: int, outputs: int) -> float:
    """Return the seconds of the layer that was factorised."""
    return _limited(device, kind, BYTES[kind] * (rows * (inputs + outputs) + inputs * outputs), 2.0 * rows * inputs * outputs)[0]


def feed_forward(device: Device, kind: str, rows: int, width: int, hidden: int, rank: int) -> Prediction:
    """Predict a feed-forward block of two low-rank layers in one kernel against four products and a GELU by itself."""
    size = BYTES[kind]
    moved = size * (2 * rows * width + 2 * rank * (width + hidden))
    ours, bound = _limited(device, kind, moved, 4.0 * rows * rank * (width + hidden))

    def product(inputs: int, outputs: int) -> float:
        return dense(device, kind, rows, inputs, outputs)

    activation = 2.0 * size * rows * hidden / device.bandwidth
    return Prediction(ours, 2 * product(width, rank) + product(rank, hidden) + product(hidden, rank) + activation, bound)


def tables(device: Device) -> str:
    """Return what stands between the markers."""
    searches = [
        ("float32", 1, 10), ("float32", 8, 10), ("float32", 64, 10), ("bfloat16", 1, 10), ("bfloat16", 8, 10), ("bfloat16", 64, 10),
        ("bfloat16", 1024, 10), ("bfloat16", 1024, 100), ("int8", 1, 10), ("int8", 8, 10), ("int8", 64, 10),
    ]  # fmt: skip
    layers = [(384, 64, 384), (384, 128, 1536), (768, 256, 768), (768, 256, 3072), (768, 512, 3072)]
    blocks = [(384, 1536, 64), (384, 1536, 128), (768, 3072, 128), (768, 3072, 256)]
    rows = 8192
    head = (
        f"Limits of one {device.name}: {device.bandwidth / 1e12:.2f} TB/s from memory, {device.cache / 1e12:.1f} from the cache, "
        + ", ".join(f"{peak / 1e12:.0f} T{'OP' if kind == 'int8' else 'FLOP'}/s {kind}" for kind, peak in device.peaks.items())
    )
    parts = [f"{head}. Arithmetic, no measurements.", "**`cosine_top_k`**, a million items of width 384, against a product and topk:"]
    lines = ["| catalogue | queries | k | ours, ms | limited by | product and topk, ms | gain |", "|---|---:|---:|---:|---|---:|---:|"]
    for kind, queries, k in searches:
        told = search(device, kind, 1_000_000, 384, queries, k)
        lines.append(f"| {kind} | {queries:,} | {k} | {_ms(told.ours)} | {told.bound} | {_ms(told.peer)} | {_gain(told.gain)} |")
    parts += ["\n".join(lines), f"**`low_rank_linear`**, {rows:,} rows in bfloat16, against two products; the dense layer beside:"]
    lines = ["| layer | rank | ours, ms | limited by | two products, ms | gain | dense, ms |", "|---|---:|---:|---|---:|---:|---:|"]
    for inputs, rank, outputs in layers:
        told = low_rank(device, "bfloat16", rows, inputs, rank, outputs)
        whole = _ms(dense(device, "bfloat16", rows, inputs, outputs))
        lines.append(
            f"| {inputs} → {outputs} | {rank} | {_ms(told.ours)} | {told.bound} | {_ms(told.peer)} | {_gain(told.gain)} | {whole} |"
        )
    parts += [
        "\n".join(lines),
        f"**A feed-forward block of two low-rank layers**, {rows:,} rows in bfloat16, against four products and a GELU:",
    ]
    lines = ["| width, hidden | rank | ours, ms | limited by | five kernels, ms | gain |", "|---|---:|---:|---|---:|---:|"]
    for width, hidden, rank in blocks:
        told = feed_forward(device, "bfloat16", rows, width, hidden, rank)
        lines.append(f"| {width}, {hidden} | {rank} | {_ms(told.ours)} | {told.bound} | {_ms(told.peer)} | {_gain(told.gain)} |")
    return "\n\n".join([*parts, "\n".join(lines)])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}"


def _gain(gain: float) -> str:
    return f"**× {gain:.2f}**" if gain >= 1.1 else f"× {gain:.2f}, {'nothing to gain' if gain >= 0.95 else 'it loses'}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, write or check the tables; 0 when they are as they should be, 1 when a check found others, 2 on a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.roofline", description="what a GPU could do at most")
    parser.add_argument("markdown", type=Path, nargs="?", help="the file with the markers; without it the tables are printed")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file says something else")
    given = parser.parse_args(arguments)
    try:
        body = tables(H100)
        if given.markdown is None:
            print(body)
            return 0
        text = given.markdown.read_text(encoding="utf-8")
        return settled(given.markdown, text, between_markers(text, body, "roofline", str(given.markdown)), Path(__file__), given.check)
    except CompressRecError as fault:
        print(fault, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
