"""Which cases run, with their rounds: the whole suite, and with ``--quick`` a few small ones that show that every side still works."""

from __future__ import annotations

from typing import NamedTuple


class Search(NamedTuple):
    kind: str
    items: int
    queries: int
    k: int
    rounds: int


class LowRank(NamedTuple):
    inputs: int
    outputs: int
    rank: int
    tokens: int
    rounds: int


class Int8(NamedTuple):
    inputs: int
    outputs: int
    tokens: int
    kind: str
    rounds: int


class Embedding(NamedTuple):
    rows: int
    width: int
    tokens: int
    rounds: int


_SEARCHES = [  # items, queries, k, rounds; those of one catalogue follow each other, since it is built once
    (1_682, 1, 10, 41),
    (1_682, 1, 100, 41),
    (1_682, 64, 10, 21),
    (1_682, 64, 100, 21),
    (1_682, 1024, 10, 7),
    (1_682, 1024, 100, 7),
    (100_000, 1, 10, 15),
    (100_000, 8, 10, 9),
    (100_000, 64, 10, 7),
    (100_000, 1024, 10, 3),
    (100_000, 1024, 100, 3),
    (1_000_000, 1, 10, 7),
]
# (inputs, outputs) → ranks; the last saves nothing: the layer falls back to the dense one, and may not be slower
_RANKS = {
    (384, 384): (64, 128, 256),
    (384, 1536): (64, 128, 256),
    (1536, 384): (128, 256),
    (768, 768): (128, 256),
    (768, 3072): (128, 256, 512),
}
_LAYERS = ((384, 384), (384, 1536), (1536, 384), (768, 3072))


def searches(quick: bool) -> list[Search]:
    """Return the searches by catalogue; of real texts there are no million."""
    if quick:
        return [Search(kind, *shape) for kind in ("gaussian", "clustered", "real") for shape in ((1_682, 1, 10, 3), (1_682, 64, 100, 3))]
    order = sorted({items for items, *_ in _SEARCHES})
    return [
        Search(kind, *shape)
        for items in order
        for kind in ("gaussian", "clustered", "real")
        for shape in _SEARCHES
        if shape[0] == items and not (kind == "real" and items == 1_000_000)
    ]


def low_rank(quick: bool) -> list[LowRank]:
    """Return the shapes of ``low_rank_linear``."""
    if quick:
        return [LowRank(384, 384, 128, tokens, 3) for tokens in (1, 32)]
    return [LowRank(*shape, rank, tokens, 15) for shape, ranks in _RANKS.items() for rank in ranks for tokens in (1, 32, 128, 512)]


def int8(quick: bool) -> list[Int8]:
    """Return the shapes of ``int8_linear``; real layers and activations where the model has that shape."""
    if quick:
        return [Int8(384, 384, tokens, kind, 3) for tokens in (1, 32) for kind in ("gaussian", "minilm")]
    return [
        Int8(*shape, tokens, kind, 15)
        for shape in _LAYERS
        for kind in ("gaussian", "minilm")
        for tokens in (1, 8, 32, 128, 512)
        if not (kind == "minilm" and shape == (768, 3072))
    ]


def embedding(quick: bool) -> list[Embedding]:
    """Return the shapes of ``int8_embedding``: MiniLM's table."""
    return [Embedding(30_522, 384, tokens, 3 if quick else 15) for tokens in ((32,) if quick else (1, 32, 512, 4096))]
