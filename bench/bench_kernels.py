"""The compiled kernels against the tuned libraries a user would otherwise call: one item an op and shape, all sides interleaved.

Unit: milliseconds of processor time on one thread, the median over rounds in which every side runs in turn. The ratio is the best
peer's median divided by ours: above 1 the kernel is quicker. What the machine can do at most is measured in the same run and stands
beside. ``--quick`` runs a few small cases, ``--results=FILE`` keeps every sample as JSON lines; README.md says what the figures mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from bench import linear, real, shapes, vectors
from bench.top_k import Catalogue

MEMORY = 10.0  # bytes available for every byte of a catalogue in float32: all sides hold it at once (9.1 at a million items)

CASES: dict[str, Callable[[bool], Sequence[Any]]] = {
    "search": shapes.searches,
    "low_rank": shapes.low_rank,
    "int8": shapes.int8,
    "embedding": shapes.embedding,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for name, listed in CASES.items():
        if name in metafunc.fixturenames:
            cases = listed(metafunc.config.getoption("--quick"))
            metafunc.parametrize(name, cases, ids=["-".join(map(str, case[:-1])) for case in cases])


@pytest.fixture(scope="module")
def catalogues() -> Iterator[dict[tuple[str, int], Catalogue]]:
    """The catalogue of the case before: the next case often wants the same."""
    held: dict[tuple[str, int], Catalogue] = {}
    yield held
    held.clear()


def test_cosine_top_k(search: shapes.Search, catalogues: dict[tuple[str, int], Catalogue], run: Any) -> None:
    key = (search.kind, search.items)
    if key not in catalogues:
        catalogues.clear()
        needed, there = MEMORY * 4 * vectors.WIDTH * search.items, vectors.memory_available()
        if needed > there:
            pytest.skip(
                f"{search.items} items need {needed / 1e9:.0f} GB of free memory for all sides at once, {there / 1e9:.0f} GB are there"
            )
        try:
            catalogues[key] = Catalogue(*key)
        except real.NotThere as reason:
            pytest.skip(str(reason))
    run(catalogues[key].case(vectors.queries(search.kind, search.queries), search.k), search.rounds)


def test_low_rank_linear(low_rank: shapes.LowRank, run: Any) -> None:
    run(linear.low_rank_case(*low_rank[:-1]), low_rank.rounds)


def test_int8_linear(int8: shapes.Int8, run: Any) -> None:
    try:
        case = linear.int8_case(*int8[:-1])
    except real.NotThere as reason:
        pytest.skip(str(reason))
    run(case, int8.rounds)


def test_int8_embedding(embedding: shapes.Embedding, run: Any) -> None:
    run(linear.int8_embedding_case(*embedding[:-1]), embedding.rounds)
