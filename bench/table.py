"""The results of the kernel benchmark as Markdown tables, so that no number in a page is typed by hand.

``python -m bench.table bench/results/CPU.jsonl`` prints them; with ``bench/README.md`` behind it, they replace what stands there between
``<!-- figures:kernels -->``, or ``<!-- figures:encoder -->`` for the results of encoders, and ``<!-- /figures -->``; with ``--check``
nothing is written, and a difference is an error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.book import read
from bench.encoder_table import ENCODER, grid
from bench.limits import told
from compress_rec.errors import CompressRecError
from compress_rec.figures import between_markers, settled

Row = Mapping[str, Any]
FORMATS = ("float32", "int8", "int8-only")
NEW = "onnxruntime 7 bits, new result"


def tables(machine: Row, rows: Sequence[Row]) -> str:
    """Return everything that goes between the markers."""
    parts = [_about(machine)]
    writers = {"cosine_top_k": _searches, "low_rank_linear": _low_rank, "int8_linear": _int8, "int8_embedding": _embedding, **ENCODER}
    for op, write in writers.items():
        chosen = [row for row in rows if row["op"] == op]
        if chosen:
            served = ", ".join(sorted({row["backend"] for row in chosen}))
            title = f"`{op}`, served by {served}" if op not in ENCODER else op.capitalize()
            parts.append(f"### {title}\n\n{write(chosen)}")
    return "\n\n".join(parts)


def _about(machine: Row) -> str:
    here = machine["environment"]
    memory = f", {here['memory'] / 2**30:.0f} GiB of memory" if here["memory"] else ""
    peers = ", ".join(f"{name} {version}" for name, version in machine["peers"].items() if version)
    limits = f" Its limits, one thread, in the same run: {told(machine['limits'])}." if machine["limits"] else ""
    commit = (here["commit"] or "unknown").partition("-")
    return f"Measured on {here['cpu']}{memory}, at commit {commit[0][:12]}{commit[1]}{commit[2]}.{limits} Peers: {peers}."


def _standing(row: Row, name: str) -> str:
    """``0.715 ms, × 1.10, 94 % of fma``; a dash where that side did not run."""
    if name not in row["ours"]:
        return "–"
    standing = row["ours"][name]
    parts = [f"{_ms(row['medians'][name])} ms"]
    if "ratio" in standing:
        parts.append(f"**× {standing['ratio']:.2f}**")
    if "fraction" in standing:
        parts.append(f"{standing['fraction']:.0%} of {standing['bound']}")
    return ", ".join(parts)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"


def _noted(row: Row, name: str, what: str) -> str:
    value = row["notes"].get(name, {}).get(what)
    return "" if value is None else f"{value:.4g}"


def _searches(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        shape = row["shape"]
        peers = {name: value for name, value in row["medians"].items() if row["roles"][name] == "peer"}
        best = min(peers, key=peers.__getitem__) if peers else None
        lossy = row["medians"].get("faiss SQ8", row["left_out"].get("faiss SQ8"))
        body.append(
            [
                *(f"{shape[name]:,}" for name in ("items", "queries", "k")),
                shape["data"],
                f"{best} {_ms(peers[best])} ms" if best else "–",
                "–" if lossy is None else f"{_ms(lossy)} ms, recall {_noted(row, 'faiss SQ8', 'recall')}",
                _standing(row, "float32"),
                _standing(row, "int8"),
                _standing(row, "int8-only") + (f", recall {_noted(row, 'int8-only', 'recall')}" if "int8-only" in row["ours"] else ""),
            ]
        )
    head = ["items", "queries", "k", "data", "best exact peer", "faiss SQ8, refined", *(f"`{name}`" for name in FORMATS)]
    return grid(head, body, 0)


def _low_rank(rows: Sequence[Row]) -> str:
    body, over_two = [], []
    for row in rows:
        shape, ours = row["shape"], row["ours"]["compress_rec"]
        over_two.append(ours["ratios"]["two F.linear"])
        others = [f"{_ms(row['medians'][name])}" for name in ("two F.linear", "dense")]
        place = [f"{shape['inputs']} → {shape['outputs']}", str(shape["rank"]), str(shape["tokens"])]
        served = ", dense" if row["backend"] == "dense" else ""
        body.append([*place, *others, f"{over_two[-1]:.2f}", _standing(row, "compress_rec") + served])
    head = ["layer", "rank", "tokens", "two `F.linear`, ms", "dense, ms", "× over two", "ours: ms, × over the best peer"]
    return (
        grid(head, body, 1)
        + f"\n\nOver two `F.linear`: × {median(over_two):.2f} in the median of these cases, × {min(over_two):.2f} at least."
    )


def _int8(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        shape = row["shape"]
        peers = {name: value for name, value in row["medians"].items() if row["roles"][name] == "peer"}
        best = min(peers, key=peers.__getitem__) if peers else None
        exact = min((row["notes"][name]["error"] for name in peers), default=None)
        body.append(
            [
                f"{shape['inputs']} → {shape['outputs']}",
                shape["data"],
                str(shape["tokens"]),
                _ms(row["medians"]["dense"]),
                f"{best} {_ms(peers[best])} ms, error {_noted(row, best, 'error')}" if best else "–",
                _ms(row["medians"][NEW]) if NEW in row["medians"] else "–",
                "–" if exact is None else f"{exact:.4g}",
                f"{_standing(row, 'compress_rec')}, error {_noted(row, 'compress_rec', 'error')}",
            ]
        )
    return grid(
        ["layer", "data", "tokens", "dense, ms", "quickest int8 peer", "that with a new result, ms", "least error of a peer", "ours"],
        body,
        2,
    )


def _embedding(rows: Sequence[Row]) -> str:
    body = [
        [f"{row['shape']['tokens']}", _ms(row["medians"]["torch"]), _ms(row["medians"]["float table"]), _standing(row, "compress_rec")]
        for row in rows
    ]
    return grid(["tokens", "torch, ms", "float table, ms", "ours"], body, 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, write or check the tables; 0 when they are as the results have them, 1 when a check found others, 2 on a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.table", description="the kernels' results as Markdown")
    parser.add_argument("results", type=Path, help="what pytest --benchmark bench/bench_kernels.py --results=FILE wrote")
    parser.add_argument("markdown", type=Path, nargs="?", help="the file with the markers; without it the tables are printed")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where the file says something else")
    given = parser.parse_args(arguments)
    try:
        body = tables(*read(given.results))
        if given.markdown is None:
            print(body)
            return 0
        if not given.markdown.is_file():
            raise CompressRecError(f"there is no file {given.markdown}: name the Markdown file that holds the markers")
        text = given.markdown.read_text(encoding="utf-8")
        mark = "encoder" if any(row["op"] in ENCODER for row in read(given.results)[1]) else "kernels"
        wanted = between_markers(text, body, mark, str(given.markdown))
        return settled(given.markdown, text, wanted, given.results, given.check)
    except CompressRecError as fault:
        print(fault, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
