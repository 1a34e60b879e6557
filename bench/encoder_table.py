"""The results of the encoder benchmark as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
CHAIN = "int8, half rank"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return a Markdown table, the first ``left`` columns aligned left."""
    lines = ["| " + " | ".join(head) + " |", "|" + "|".join(["---"] * left + ["---:"] * (len(head) - left)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _batches(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        shape, ours = row["shape"], row["ours"]
        cells = [shape["batch"], str(shape["tokens"])]
        for lossy in ("peer", "lossy peer"):
            found = {name: value for name, value in row["medians"].items() if row["roles"][name] == lossy}
            best = min(found, key=found.__getitem__)
            cells.append(f"{best} {_ms(found[best])}")
        for name in ("fp32", "int8"):
            standing = ours[name]
            rate = f"{standing['rate']:.0f} {standing['unit']}"
            if standing.get("bound") == "maddubs_fours":
                rate += f", {standing['fraction']:.0%} of {standing['bound']}"
            cells.append(f"{_ms(row['medians'][name])}, **× {standing['ratio']:.2f}**, {rate}")
        cells.append(f"{ours['int8']['ratios'].get('CTranslate2 int8', float('nan')):.2f}")
        cells.append(f"{_ms(row['medians'][CHAIN])}, × {row['medians']['int8'] / row['medians'][CHAIN]:.2f}")
        torch = row["medians"].get("torch", row["left_out"].get("torch", float("nan")))
        cells.append(f"{ours[CHAIN]['ratio']:.2f}, {torch / row['medians'][CHAIN]:.1f}")
        body.append(cells)
    head = ["texts × tokens", "tokens", "best float peer, ms", "best int8 peer, ms", "ours fp32: ms, × over the float peer"]
    head += ["ours int8: ms, × over the best peer", "int8 over CTranslate2 int8", "half rank, int8: ms, × over our int8"]
    head += ["half rank over the best int8 peer, over torch"]
    return (
        grid(head, body, 1) + "\n\nEvery side:\n\n" + _every_side(rows) + "\n\nWhere our time goes, a step's share:\n\n" + _profiles(rows)
    )


def _every_side(rows: Sequence[Row]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row["roles"]))
    body = [[name, *(_ms(row["medians"].get(name, row["left_out"].get(name))) for row in rows)] for name in names]
    return grid(["ms", *(row["shape"]["batch"] for row in rows)], body, 1)


def _profiles(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        for name, steps in row["profiles"].items():
            total = sum(steps.values())
            body.append([row["shape"]["batch"], name, *(f"{taken / total:.0%}" for taken in steps.values())])
    return grid(["texts × tokens", "ours", *rows[0]["profiles"]["int8"]], body, 2)


def _text(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        medians, texts = row["medians"], int(row["shape"]["texts"].partition(" ")[0])
        cells = [row["shape"]["texts"], f"{row['shape']['tokens'] / texts:.1f}"]
        for name in ("fp32", "int8", CHAIN):
            cells.append(f"{_ms(medians[name] / texts)}, {medians['tokenizer'] / medians[name]:.1%}")
        cells.append(_ms(medians["torch modules"] / texts))
        body.append(cells)
    head = [
        "texts",
        "tokens a text",
        *(f"{name}: ms a text, share of the tokenizer" for name in ("fp32", "int8", CHAIN)),
        "torch modules, ms",
    ]
    return grid(head, body, 1)


def _accuracy(rows: Sequence[Row]) -> str:
    (row,) = rows
    body = [
        [name, f"{one['mean']:.5f}", f"{one['least']:.4f}", f"{one['overlap']:.4f}"]
        for name, one in sorted(row["accuracies"].items(), key=lambda pair: -pair[1]["mean"])
    ]
    told = f"{row['texts']} real texts of three data sets and package summaries, against the model's modules in float32.\n\n"
    return told + grid(["runtime", "mean cosine", "least cosine", "ten nearest kept"], body, 1)


def _ms(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "–"
    return f"{milliseconds:.3g}" if milliseconds < 1000 else f"{milliseconds:.0f}"


ENCODER: Mapping[str, Callable[[Sequence[Row]], str]] = {"encoder": _batches, "text to vector": _text, "encoder accuracy": _accuracy}
