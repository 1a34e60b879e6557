"""What many tests look at and none changes: one whole study, run once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from compress_rec.run import Finished, run
from tests.tiny_study import write_study


@dataclass(frozen=True)
class TinyRun:
    """A finished run: its study file, its folder, what it returned and what it printed. Tests copy the folder before they change it."""

    study: Path
    folder: Path
    finished: Finished
    printed: str


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "planted_bad: a measure finds out something planted that is bad in its sense (wanted of every measure)"
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    """One whole study on planted data."""
    above = tmp_path_factory.mktemp("tiny")
    console = Console(record=True, quiet=False, file=(above / "printed").open("w"), width=200)
    study = write_study(above)
    finished = run(study, above / "run", console)
    return TinyRun(study, above / "run", finished, console.export_text())
