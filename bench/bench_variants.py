"""Variants of a run side by side: milliseconds a request, NDCG@10 and size against the reference.

One item a variant, clocked by pytest-benchmark on one thread: a request is one history as text through the role ``text``, the literal
two-tower form. The accuracy and size beside it come from the run's report; where no run is at hand, a small one is made from planted data.
Unit: seconds of wall time as pytest-benchmark prints them; the table at the end gives the median in milliseconds of all variants from one
interleaved run, how often it goes into the reference's, NDCG@10 and megabytes.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from rich.table import Table

from compress_rec import study
from compress_rec.huggingface import read_json
from compress_rec.report import REFERENCE, Report, read
from compress_rec.run import run
from compress_rec.summary import Summary
from compress_rec.texts import history_text
from compress_rec.timing import interleave
from compress_rec.variant import Variant

PLANTED = Path(__file__).parent.parent / "studies" / "planted.toml"


@pytest.fixture(scope="session")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder given by ``--run``, or a small one made from planted data."""
    given = Path(request.config.getoption("--run"))
    if (given / "report.jsonl").exists():
        return given
    goal = tmp_path_factory.mktemp("planted")
    run(PLANTED, goal)
    return goal


@pytest.fixture(scope="session")
def variants(folder: Path) -> dict[str, Variant]:
    report = read(folder / "report.jsonl")
    names = [name for name in report.variants if name not in report.baselines and (folder / "variants" / name).exists()]
    # as they would be served
    return {name: Variant.load(folder / "variants" / name).compile() for name in names}


@pytest.fixture(scope="session")
def requests_(folder: Path, variants: dict[str, Variant]) -> list[str]:
    """Histories of real catalogue texts, the same for all."""
    texts = read_json(folder / "catalogue.json")["texts"]
    last = variants[REFERENCE].towers.history
    return [history_text(texts[start : start + last], last) for start in range(0, min(len(texts), 20 * last), last)]


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_side_by_side(
    folder: Path,
    variants: dict[str, Variant],
    requests_: list[str],
    one_thread: None,
    benchmark: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Clock all variants in turns and print them with what the report says of accuracy and size."""

    def side(variant: Variant) -> Any:
        state = {"next": 0}

        def work() -> None:
            variant.encode([requests_[state["next"] % len(requests_)]], "text")
            state["next"] += 1

        return work

    sides = {name: side(variant) for name, variant in variants.items()}
    taken = benchmark.pedantic(lambda: interleave(sides, rounds=20), rounds=1, iterations=1)
    medians = {name: statistics.median(values) for name, values in taken.items()}
    benchmark.extra_info["milliseconds"] = {name: list(values) for name, values in taken.items()}
    with capsys.disabled():
        print()
        _print(read(folder / "report.jsonl"), medians)
    assert set(medians) == set(variants)


def _print(report: Report, medians: dict[str, float]) -> None:
    table = Table(title="role text, batch 1, one thread: CPU milliseconds, median of an interleaved run")
    # the study may have cut its lists elsewhere than at 10
    lists = next((name for name in ("ndcg@10", *report.measures) if name in report.measures and name.startswith("ndcg@")), "ndcg@10")
    for column in ("variant", "ms", "× quicker", lists.upper(), "MB", "× smaller"):
        table.add_column(column, justify="left" if column == "variant" else "right")
    ndcg = report.summaries(lists) if lists in report.measures else {}
    size = report.summaries("disk_bytes") if "disk_bytes" in report.measures else {}
    for name, median in medians.items():
        quick = f"{medians[REFERENCE] / median:.2f}"
        accuracy = f"{value:.4f}" if (value := _value(ndcg, name)) is not None else "–"
        bytes_, whole = _value(size, name), _value(size, REFERENCE)
        megabytes = f"{bytes_ / 1e6:.1f}" if bytes_ is not None else "–"
        smaller = f"{whole / bytes_:.1f}" if bytes_ and whole else "–"
        table.add_row(name, f"{median:.2f}", quick, accuracy, megabytes, smaller)
    Console(width=100).print(table)


def _value(summaries: dict[str, Summary], name: str) -> float | None:
    estimate = summaries[name].estimate if name in summaries else None
    return None if estimate is None else estimate.value


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "variant_name" in metafunc.fixturenames:
        made = Path(metafunc.config.getoption("--run")) / "report.jsonl"
        report = read(made) if made.exists() else None
        names = [REFERENCE, *study.read(PLANTED).plans] if report is None else [n for n in report.variants if n not in report.baselines]
        metafunc.parametrize("variant_name", names)


def test_variant(variant_name: str, variants: dict[str, Variant], requests_: list[str], one_thread: None, benchmark: Any) -> None:
    """Each variant under pytest-benchmark's own statistics, so that its tools can compare runs of one machine."""
    if variant_name not in variants:
        pytest.skip(f"'{variant_name}' could not be made: the report's page says why")
    variant = variants[variant_name]
    benchmark.extra_info["variant"] = variant_name
    benchmark(lambda: variant.encode(requests_[:1], "text"))
