"""``pytest --benchmark`` runs the bench suite; without the flag no benchmark runs."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("compress_rec")
    group.addoption("--benchmark", action="store_true", help="run bench/ instead of tests/: kernels against peers, variants side by side")
    told = "the run folder whose variants the benchmark compares (default: runs/demo); write --run=FOLDER where it lies elsewhere"
    group.addoption("--quick", action="store_true", help="with --benchmark: few rounds of a few small cases, to see that every side works")
    group.addoption("--results", help="with --benchmark: the file that keeps the kernels' results as JSON lines; write --results=FILE")
    group.addoption("--run", default="runs/demo", help=told)


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--benchmark"):
        # what the command line named is kept; else the whole bench suite
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args[:] = [str(config.rootpath / "bench")]
        config.addinivalue_line("python_files", "bench_*.py")
