"""The table of what nvcc makes of the kernels: read from its words, and what is worse is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import compiled
from bench.compiled import Compiled, parsed, regressions, table

TOLD = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'void compress_rec::cuda::(anonymous namespace)::scan_kernel<float, 8>(float const*)' for 'sm_80'
ptxas info    : Function properties for void compress_rec::cuda::(anonymous namespace)::scan_kernel<float, 8>(float const*)
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 128 registers, used 1 barriers, 512 bytes smem, 452 bytes cmem[0]
ptxas info    : Compiling entry function 'compress_rec::cuda::unit_kernel(float const*)' for 'sm_80'
ptxas info    : Function properties for compress_rec::cuda::unit_kernel(float const*)
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 38 registers, used 0 barriers
"""


def test_every_kernel_is_read() -> None:
    assert parsed(TOLD) == [Compiled("scan_kernel<float, 8>", 128, 20, 16, 512), Compiled("unit_kernel", 38, 0, 0, 0)]


def of(registers: int, spilled: int = 0) -> dict[str, dict[str, Compiled]]:
    return {"a: k<1>": {name: Compiled("k<1>", registers, spilled, 0, 0) for name in compiled.ARCHITECTURES}}


def test_what_is_worse_than_the_table_is_found() -> None:
    written = table(of(40), "13.0")
    assert "| `a: k<1>` | 40 | 40 | 0 | 0 | 0 |" in written
    assert regressions(of(40), "13.0", written) == []
    assert regressions(of(38), "13.0", written) == []
    assert regressions(of(41), "13.0", written)[0] == "a: k<1> takes 41 registers on sm_80, and took 40"
    assert regressions(of(41), "13.1", written) == []  # another compiler, another allocation
    assert regressions(of(40, 4), "13.1", written)[0] == "a: k<1> spills 4 bytes and has a stack of 0 on sm_80"
    assert regressions({}, "13.0", written) == ["a: k<1> is in the table, but not in the sources"]
    assert regressions(of(40), "13.0", "") == ["a: k<1> is not in the table"]


def test_without_nvcc_the_command_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert compiled.main(["page.md", "--check"]) == 0
    assert capsys.readouterr().out == "nvcc is not on PATH, so the CUDA kernels are not compiled here\n"


def test_the_page_names_every_source() -> None:
    page = (Path(compiled.__file__).parent / "README.md").read_text(encoding="utf-8")
    names = {source.stem for source in compiled.CUDA.glob("*.cu")}
    assert names
    assert not [name for name in names if f"| `{name}: " not in page]
