"""What the benchmarks against peers share: one thread, the machine's limits, the results' file, and the running of a case."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import limits
from bench.book import Book
from bench.case import Case, Machine, clock, lines


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def samples(one_thread: None) -> dict[str, tuple[float, ...]]:
    return dict(limits.measure())


@pytest.fixture(scope="module")
def machine(samples: dict[str, tuple[float, ...]]) -> Machine:
    return Machine(limits.loops(), {name: statistics.median(rates) for name, rates in samples.items()}, limits.why_not())


@pytest.fixture(scope="module")
def book(request: pytest.FixtureRequest, samples: dict[str, tuple[float, ...]]) -> Book:
    """The results so far; what the machine can do is printed first."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\none thread of this machine: {limits.told(samples)}" if samples else f"\n{limits.why_not()}", end="")
    given = request.config.getoption("--results")
    return Book(Path(given) if given else None, samples)


@pytest.fixture
def run(machine: Machine, book: Book, benchmark: Any, capsys: pytest.CaptureFixture[str]) -> Any:
    """Clock a case, print it, keep it, and give pytest-benchmark a few calls of ours."""

    def done(case: Case, rounds: int) -> None:
        row = clock(case, machine, rounds)
        book.add(row)
        with capsys.disabled():
            print("\n" + lines(row), end="")
        ours = next(name for name, side in case.sides.items() if side.ours)
        benchmark.group = case.op
        benchmark.extra_info.update(row)
        with torch.inference_mode():
            benchmark.pedantic(case.sides[ours].call, rounds=3, warmup_rounds=0)

    return done
