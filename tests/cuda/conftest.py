"""The kernels' library, compiled once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.utils.cpp_extension import include_paths, library_paths

from tests.cuda import real
from tests.cuda.machine import CUDA, ROOT, Emulated

HERE = Path(__file__).parent
TORCH_SIDE = [HERE / "emulated_torch.cpp", *(path for path in sorted(CUDA.glob("*.cpp")) if path.stem != "torch_device")]


@pytest.fixture(scope="session")
def library() -> Emulated | real.Real:
    """The kernels, plain functions that launch them and, under emulation, the layer between them and torch."""
    if real.is_there():
        return real.Real(HERE / "entries.cu")
    # csrc is searched for quoted names alone: it has a limits.h
    includes = [*(f"-isystem{path}" for path in include_paths()), f"-iquote{ROOT / 'csrc'}"]
    links = [*(f"-L{path}" for path in library_paths()), "-ltorch", "-ltorch_cpu"]
    flags = ["-DTORCH_TARGET_VERSION=0x020a000000000000", *includes]
    return Emulated(HERE / "entries.cu", flags, TORCH_SIDE, links, sorted((ROOT / "csrc").glob("*.h")))


@pytest.fixture
def device(library: Emulated | real.Real) -> Iterator[Emulated | real.Real]:
    """The kernels; arrays are given back behind each test."""
    yield library
    library.guarded_before = False
    library.release()
