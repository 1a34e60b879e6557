"""``pytest --benchmark`` sets a run's variants side by side, and without the flag no benchmark is so much as collected."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.conftest import TinyRun

ROOT = Path(__file__).parent.parent


def called(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What ``pytest`` says from the root of the repository."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}
    env.pop("PYTEST_ADDOPTS", None)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


def test_the_variants_of_a_run_stand_side_by_side(tiny_run: TinyRun) -> None:
    # fewer rounds than usual: what is asked is the table, not the clock
    quick = ("--benchmark-max-time=0.02", "--benchmark-min-rounds=2")
    done = called("--benchmark", "--run", tiny_run.folder, "bench/bench_variants.py", *quick)
    assert done.returncode == 0, done.stdout + done.stderr
    table = done.stdout[done.stdout.index("role text, batch 1") :]
    head = re.search(r"variant.*", table)
    assert head is not None
    assert [part.strip() for part in re.split("[┃│]", head.group())][:6] == ["variant", "ms", "× quicker", "NDCG@5", "MB", "× smaller"]
    rows = {row[0]: row[1:] for line in table.splitlines() if len(row := [part.strip() for part in line.split("│")[1:-1]]) == 6}
    assert list(rows) == ["reference", "int8", "half", "half-int8"]
    report = tiny_run.finished.report
    ndcg, size = report.summaries("ndcg@5"), report.summaries("disk_bytes")
    whole = size["reference"].estimate
    assert whole is not None
    for name, (milliseconds, quicker, accuracy, megabytes, smaller) in rows.items():
        estimate, bytes_ = ndcg[name].estimate, size[name].estimate
        assert estimate is not None
        assert bytes_ is not None
        assert accuracy == f"{estimate.value:.4f}"
        assert megabytes == f"{bytes_.value / 1e6:.1f}"
        assert smaller == f"{whole.value / bytes_.value:.1f}"
        assert float(milliseconds) > 0
        assert float(quicker) > 0
        assert f"test_variant[{name}]" in done.stdout, "each has pytest-benchmark's own statistics too"
    assert rows["reference"][1] == "1.00"
    assert "'refused' could not be made: the report's page says why" in done.stdout


def test_with_the_flag_the_whole_bench_suite_and_nothing_else_is_collected(tiny_run: TinyRun) -> None:
    # with a space, pytest takes a folder outside the repository for the place of its own configuration
    done = called("--benchmark", f"--run={tiny_run.folder}", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    items = [line for line in done.stdout.splitlines() if "::" in line]
    assert {item.partition("::")[0] for item in items} == {path.relative_to(ROOT).as_posix() for path in ROOT.glob("bench/bench_*.py")}
    assert "bench/bench_variants.py::test_variant[half-int8]" in items


def test_without_the_flag_no_benchmark_is_collected() -> None:
    """Over the whole repository; the tests are left out, since it is what remains that is asked."""
    done = called("--collect-only", "-q", ".", "--ignore=tests")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "::" not in done.stdout
    assert re.search("no tests (ran|collected)", done.stdout)
