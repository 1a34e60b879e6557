"""The kernels' library, compiled once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cuda.machine import Emulated


@pytest.fixture(scope="session")
def library() -> Emulated:
    return Emulated(Path(__file__).with_name("entries.cu"))


@pytest.fixture
def device(library: Emulated) -> Iterator[Emulated]:
    """The kernels; arrays are given back behind each test."""
    yield library
    library.guarded_before = False
    library.release()
