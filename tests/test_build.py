"""Building without a compiler: the package installs, says why, and fails only where that was asked for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the build reads, with a stale extension in it."""
    if not (ROOT / "setup.py").exists():
        pytest.skip("the tests run without the source checkout, so there is nothing to build")
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "README.md").write_text("compress_rec")
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc")
    (tmp_path / "compress_rec").mkdir()
    shutil.copy(ROOT / "compress_rec" / "__init__.py", tmp_path / "compress_rec")
    (tmp_path / "compress_rec" / "_C.stale.so").write_text("")
    return tmp_path


def build(checkout: Path, **surroundings: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("COMPRESS_REC_") and key != "CXX"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    return subprocess.run(command, cwd=checkout, env={**inherited, **surroundings}, capture_output=True, text=True)


def facts(checkout: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((checkout / "compress_rec" / "_build.json").read_text())
    return found


def test_without_a_compiler_it_installs_and_records_why(checkout: Path) -> None:
    done = build(checkout, CXX="/nonexistent/g++")
    reason = "no C++ compiler was found: '/nonexistent/g++' is not there; install g++ or set CXX"
    assert done.returncode == 0, done.stderr
    assert f"compress_rec: {reason}; installing without compiled kernels" in done.stderr
    assert facts(checkout)["built"] is False
    assert facts(checkout)["reason"] == reason
    assert not list((checkout / "compress_rec").glob("*.so"))


def test_a_required_extension_fails_with_a_sentence(checkout: Path) -> None:
    done = build(checkout, CXX="/nonexistent/g++", COMPRESS_REC_REQUIRE_EXT="1")
    assert done.returncode != 0
    assert "COMPRESS_REC_REQUIRE_EXT=1 asks for the compiled extension, but no C++ compiler was found" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_compiler_that_cannot_compile_is_recorded(checkout: Path) -> None:
    broken = checkout / "broken-g++"
    broken.write_text('#!/bin/sh\ncase "$1" in --version|-v) echo "broken 1.0";; *) echo "no space" >&2; exit 1;; esac\n')
    broken.chmod(0o755)
    done = build(checkout, CXX=str(broken))
    assert done.returncode == 0, done.stderr
    assert str(facts(checkout)["reason"]).startswith("compiling failed: ")
    assert facts(checkout)["compiler"] == "broken 1.0"


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        ("1", "COMPRESS_REC_CUDA=1 asks for CUDA kernels, but "),
        ("yes", "COMPRESS_REC_CUDA must be auto, 1 or 0, but 'yes' came; unset it to build without CUDA where there is none"),
    ],
)
def test_cuda_that_cannot_be_had_is_refused(checkout: Path, wish: str, sentence: str) -> None:
    done = build(checkout, CXX="/nonexistent/g++", COMPRESS_REC_CUDA=wish)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_why_there_are_no_cuda_kernels_is_recorded(checkout: Path) -> None:
    build(checkout, CXX="/nonexistent/g++", COMPRESS_REC_CUDA="0")
    assert facts(checkout)["cuda"] == "no CUDA kernels were built: not wanted (COMPRESS_REC_CUDA=0)"
    build(checkout, CXX="/nonexistent/g++", PATH=os.path.dirname(sys.executable) + ":/usr/bin:/bin")
    assert str(facts(checkout)["cuda"]).startswith("no CUDA kernels were built: ")


@pytest.fixture
def with_cuda(checkout: Path) -> dict[str, str]:
    """Surroundings in which torch claims to have CUDA, and nvcc is there but refuses every file."""
    (checkout / "there").mkdir()
    (checkout / "there" / "sitecustomize.py").write_text("import torch\ntorch.version.cuda = '13.0'\n")
    nvcc = checkout / "there" / "nvcc"
    nvcc.write_text("#!/bin/sh\necho 'no room' >&2\nexit 1\n")
    nvcc.chmod(0o755)
    return {"PATH": f"{nvcc.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(nvcc.parent)}


def test_without_the_extension_there_are_no_cuda_kernels_either(checkout: Path, with_cuda: dict[str, str]) -> None:
    done = build(checkout, CXX="/nonexistent/g++", **with_cuda)
    assert done.returncode == 0, done.stderr
    reason = "no C++ compiler was found: '/nonexistent/g++' is not there; install g++ or set CXX"
    assert facts(checkout)["cuda"] == f"no CUDA kernels were built: {reason}"
    refused = build(checkout, CXX="/nonexistent/g++", COMPRESS_REC_CUDA="1", **with_cuda)
    assert refused.returncode != 0
    assert f"COMPRESS_REC_CUDA=1 asks for CUDA kernels, but {reason}" in refused.stderr


def test_an_nvcc_that_fails_is_named(checkout: Path, with_cuda: dict[str, str]) -> None:
    """The extension is not reached: a compiler that cannot compile stops the build right behind."""
    broken = checkout / "broken-g++"
    broken.write_text('#!/bin/sh\ncase "$1" in --version|-v) echo "broken 1.0";; *) echo "no space" >&2; exit 1;; esac\n')
    broken.chmod(0o755)
    refused = build(checkout, CXX=str(broken), COMPRESS_REC_CUDA="1", **with_cuda)
    assert refused.returncode != 0
    assert "COMPRESS_REC_CUDA=1 asks for CUDA kernels, but nvcc does not compile cosine_top_k.cu: no room" in refused.stderr
    assert "Traceback" not in refused.stderr
