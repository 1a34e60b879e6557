"""``pytest --benchmark`` sets variants, and kernels and peers, side by side; without the flag no benchmark is so much as collected."""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import book, real, table, top_k, vectors
from bench.case import Case, Machine, Side, clock, lines
from bench.limits import Limit
from compress_rec.errors import CompressRecError
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


def test_the_kernels_stand_beside_their_peers(tmp_path: Path) -> None:
    """Some of the quick cases of every op: each leaves its row, and the tables are made of the rows."""
    results, page = tmp_path / "some" / "results.jsonl", tmp_path / "page.md"
    some = "gaussian-1682 or 384-384-128-1 or 384-384-32-gaussian or embedding"
    done = called("--benchmark", "--quick", "bench/bench_kernels.py", "-k", some, f"--results={results}", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    machine, rows = book.read(results)
    assert [row["op"] for row in rows] == ["cosine_top_k"] * 2 + ["low_rank_linear", "int8_linear", "int8_embedding"]
    assert machine["environment"]["cpu"] in table.tables(machine, rows)
    assert machine["peers"]["torch"] == torch.__version__
    for row in rows:
        assert row["medians"] == {name: statistics.median(samples) for name, samples in row["samples"].items()}
        for name, standing in row["ours"].items():
            best = min(row["medians"][other] for other in row["medians"] if row["roles"][other] == "peer")
            assert standing["ratio"] == pytest.approx(best / row["medians"][name])
            assert standing["rate"] == pytest.approx(row["operations"] / row["medians"][name] / 1e6)
        assert lines(row).splitlines()[0] in done.stdout
    page.write_text("before\n<!-- figures:kernels -->\n<!-- /figures -->\nbehind\n", encoding="utf-8")
    assert table.main([str(results), str(page), "--check"]) == 1
    assert table.main([str(results), str(page)]) == 0
    assert table.main([str(results), str(page), "--check"]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("behind\n")
    assert all(f"### `{op}`" in text for op in ("cosine_top_k", "low_rank_linear", "int8_linear", "int8_embedding"))
    page.write_text(text.replace("× ", "× 9", 1), encoding="utf-8")
    assert table.main([str(results), str(page), "--check"]) == 1


def test_results_that_are_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert table.main([str(tmp_path / "nothing.jsonl")]) == 2
    assert "holds no results" in capsys.readouterr().err
    (tmp_path / "old.jsonl").write_text(json.dumps({"version": 0}) + "\n", encoding="utf-8")
    assert table.main([str(tmp_path / "old.jsonl")]) == 2
    assert "must begin with a line of version 1" in capsys.readouterr().err


def test_a_search_that_answers_wrongly_is_found_out() -> None:
    items, queries = vectors.items("clustered", 400), vectors.queries("clustered", 3)
    best, ids = top_k.truth(queries, items, 5, block=90)
    whole = queries.double() @ items.double().T
    assert torch.equal(ids, whole.topk(5).indices)
    top_k.check("right", (best, ids), queries, items, best)
    wrong = ids.clone()
    wrong[1, 4] = whole[1].topk(6).indices[5]
    with pytest.raises(CompressRecError, match=r"wrong: a score is .* from the one that belongs there"):
        top_k.check("wrong", (best, wrong), queries, items, best)
    with pytest.raises(CompressRecError, match="twice: the answer must hold"):
        top_k.check("twice", (best, ids.index_copy(1, torch.tensor([1]), ids[:, :1])), queries, items, best)
    assert top_k.recall(wrong, ids) == pytest.approx(14 / 15)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_peers_search_in_blocks(chunk: int) -> None:
    items, queries = vectors.items("gaussian", 50), vectors.queries("gaussian", 3)
    _, ids = top_k.truth(queries, items, 4)
    assert torch.equal(top_k.torch_top_k(queries, items, 4, chunk)[1], ids)
    assert top_k.numpy_top_k(queries.numpy(), items.numpy(), 4, chunk)[1].tolist() == ids.tolist()


def test_standings_worked_by_hand() -> None:
    """A lossy peer is compared with what is lossy alone, what stands beside with nothing, and the bound is the slower of its two."""
    spent = {"exact": 40_000, "lossy": 20_000, "beside": 10_000, "ours": 30_000, "rough": 15_000}

    def work(loops: int) -> None:
        for _ in range(loops):
            pass

    roles = {"exact": "peer", "lossy": "lossy peer", "beside": "beside", "ours": "ours", "rough": "lossy ours"}
    sides = {name: Side(lambda loops=loops: work(loops), roles[name], "fma", 8e9) for name, loops in spent.items()}
    machine = Machine({"fma": Limit(1.0, work, 20_000)}, {"memory": 1000.0, "fma": 1.0}, None)
    row = clock(Case("an_op", {"size": 3}, 5e6, sides, "avx2"), machine, rounds=5)
    medians, ours, rough = row["medians"], row["ours"]["ours"], row["ours"]["rough"]
    assert (ours["best_peer"], rough["best_peer"]) == ("exact", "lossy")
    assert ours["ratio"] == medians["exact"] / medians["ours"]
    assert set(ours["ratios"]) == {"exact", "lossy", "beside"}
    assert ours["rate"] == pytest.approx(5e6 / medians["ours"] / 1e6)
    # 8 GB at 1000 GB/s are 8 ms; five million steps of the loop take many times as long
    assert ours["bound"] == "fma"
    assert ours["fraction"] == pytest.approx(5e6 / row["limits"]["fma"] / 1e6 / medians["ours"])
    assert "× " in lines(row)


def test_real_texts_that_are_missing_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESS_REC_DATA", str(tmp_path))
    real.vectors.cache_clear()
    with pytest.raises(real.NotThere, match=r"small.npy is not there: make it with python -m bench.real"):
        vectors.items("real", 1_682)
    with pytest.raises(real.NotThere, match="there are no 5 real texts"):
        vectors.items("real", 5)
    assert real.missing() == list(real.NEEDED)
    assert real.main([]) == 2
