"""The loops that reach the machine's limits do the work they are clocked for: their sums are known."""

from __future__ import annotations

import importlib
import statistics

import numpy as np
import pytest

from bench import limits
from compress_rec import op

if "avx2" not in op.tiers():
    pytest.skip(f"the loops cannot run: {limits.why_not() or op.fallback('cosine_top_k')}", allow_module_level=True)

loops = importlib.import_module("compress_rec._C")


@pytest.mark.parametrize("steps", [0, 1, 1000])
def test_every_product_is_in_the_sum(steps: int) -> None:
    """Twelve sums of eight that begin at 0 … 11 and grow by an eighth; and of four sums of eight, what 3 and 5 times -1 and 2 give."""
    assert loops.run_limit("fma", steps) == 8 * sum(range(12)) + 12 * 8 * steps / 8
    for name, a_lane in (
        ("maddubs", (4 * 3 * -1, 4 * 3 * 2)),
        ("maddubs_pairs", (4 * 8 * -1, 4 * 8 * 2)),
        ("maddubs_fours", (4 * 8, 4 * 8)),
    ):
        assert loops.run_limit(name, steps) == 8 * 2 * sum(a_lane) * steps


def test_operations_are_counted_as_they_are() -> None:
    """A multiplication and an addition for every product that the sums above are made of."""
    assert loops.limits() == {"fma": 12 * 8 * 2, "maddubs": 4 * 32 * 2, "maddubs_pairs": 4 * 64 * 2, "maddubs_fours": 4 * 128 * 2}


@pytest.mark.parametrize("words", [32, 1024, 1024 + 31])
def test_all_memory_is_read(words: int) -> None:
    """Whole pieces of 128 bytes; what remains behind them is not."""
    memory = np.arange(words, dtype=np.int32)
    assert loops.read_memory(memory, 3) == 3 * int(memory[: words // 32 * 32].sum())


def test_unknown_loops_are_refused() -> None:
    with pytest.raises(ValueError, match="no limit called 'fam'"):
        loops.run_limit("fam", 1)


def test_more_sums_in_16_bits_are_quicker() -> None:
    """4, 3 and 2.5 multiplications for 64 products: a loop that spills its registers would not keep this order."""
    samples = limits.measure(rounds=5)
    assert list(samples) == [*loops.limits(), *limits.READ]
    middle = {name: statistics.median(rates) for name, rates in samples.items()}
    assert middle["maddubs"] < middle["maddubs_pairs"] < middle["maddubs_fours"]
    assert all(rate > 0 for rates in samples.values() for rate in rates)
    assert set(limits.UNITS) == set(samples)
    assert "fma" in limits.told(samples)
