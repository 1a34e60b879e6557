"""What nvcc makes of every CUDA kernel: registers, spills and shared memory, without a GPU.

``python -m bench.compiled bench/README.md`` compiles each ``csrc/cuda/*.cu`` for sm_80 and sm_90, warnings as errors, and puts the table
between ``<!-- figures:cuda -->`` and ``<!-- /figures -->``. With ``--check`` nothing is written: a spill, a stack, a kernel that is not in
the table, or, with the release of nvcc that wrote it, more registers than it says, is an error. Without nvcc the command says so and does
nothing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from compress_rec.errors import CompressRecError
from compress_rec.figures import between_markers, settled

CUDA = Path(__file__).parent.parent / "csrc" / "cuda"
ARCHITECTURES = ("sm_80", "sm_90")
# sums and products are rounded as they are written; a stack is asked for by nothing here
FLAGS = ("-std=c++17", "-O3", "-Werror", "all-warnings", "-Xptxas", "-v")
MARK = "cuda"


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture: registers a thread; bytes spilled, of stack, and of shared memory that is fixed when compiled."""

    kernel: str
    registers: int
    spilled: int
    stack: int
    shared: int


def parsed(told: str) -> list[Compiled]:
    """Return what ``ptxas -v`` told, demangled, of every kernel."""
    found = []
    for part in told.split("Compiling entry function '")[1:]:
        name = re.sub(r"\(anonymous namespace\)::|compress_rec::cuda::|^void ", "", part.partition("' for '")[0])
        spills = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part)
        used = re.search(r"Used (\d+) registers", part)
        if spills is None or used is None:
            raise CompressRecError(f"ptxas said something else than expected of '{name}': look at nvcc -Xptxas -v by hand")
        shared = re.search(r"(\d+) bytes smem", part)
        stack, stores, loads = map(int, spills.groups())
        found.append(Compiled(name.partition("(")[0], int(used[1]), stores + loads, stack, int(shared[1]) if shared else 0))
    return found


def compiled(nvcc: str, source: Path, architecture: str) -> list[Compiled]:
    """Compile one file for one architecture, or refuse with what nvcc said."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, *FLAGS, f"-arch={architecture}", "-I", str(CUDA), "-c", str(source), "-o", str(Path(folder) / "kernel.o")]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CompressRecError(f"{source.name} does not compile for {architecture}: {done.stderr.strip()[:2000]}")
    names = subprocess.run(["c++filt"], input=done.stderr, capture_output=True, text=True, check=True)
    return parsed(names.stdout)


def everything(nvcc: str) -> dict[str, dict[str, Compiled]]:
    """Return kernel → architecture → what became of it."""
    jobs = [(source, architecture) for source in sorted(CUDA.glob("*.cu")) for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: compiled(nvcc, *job), jobs))
    found: dict[str, dict[str, Compiled]] = {}
    for (source, architecture), kernels in zip(jobs, results, strict=True):
        for kernel in kernels:
            found.setdefault(f"{source.stem}: {kernel.kernel}", {})[architecture] = kernel
    return dict(sorted(found.items()))


def table(found: Mapping[str, Mapping[str, Compiled]], release: str) -> str:
    """Return what stands between the markers."""
    lines = [
        f"Compiled by nvcc {release}; nothing here was run.",
        "",
        "| kernel | registers, " + " | registers, ".join(ARCHITECTURES) + " | spilled | stack | fixed shared memory |",
        "|---|" + "---:|" * (len(ARCHITECTURES) + 3),
    ]
    for name, kernels in found.items():
        registers = " | ".join(str(kernels[architecture].registers) for architecture in ARCHITECTURES)
        most = [max(getattr(kernel, what) for kernel in kernels.values()) for what in ("spilled", "stack", "shared")]
        lines.append(f"| `{name}` | {registers} | {most[0]} | {most[1]} | {most[2]} |")
    return "\n".join(lines)


def regressions(found: Mapping[str, Mapping[str, Compiled]], release: str, written: str) -> list[str]:
    """Return in sentences what is worse than the table says; registers count only against a table that the same nvcc wrote."""
    rows = {row[1]: [int(n) for n in row[2].split("|")] for row in re.finditer(r"^\| `(.+?)` \| ([\d |]+) \|$", written, re.MULTILINE)}
    same = f"Compiled by nvcc {release};" in written
    worse = [f"{name} is not in the table" for name in found.keys() - rows.keys()]
    worse += [f"{name} is in the table, but not in the sources" for name in rows.keys() - found.keys()]
    for name, kernels in found.items():
        for place, architecture in enumerate(ARCHITECTURES):
            kernel = kernels[architecture]
            if kernel.spilled or kernel.stack:
                worse.append(f"{name} spills {kernel.spilled} bytes and has a stack of {kernel.stack} on {architecture}")
            if same and name in rows and kernel.registers > rows[name][place]:
                worse.append(f"{name} takes {kernel.registers} registers on {architecture}, and took {rows[name][place]}")
    return sorted(worse)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, write or check the table; 0 when all is well, 1 when a check found something worse, 2 on a fault."""
    parser = argparse.ArgumentParser(prog="python -m bench.compiled", description="what nvcc makes of the CUDA kernels")
    parser.add_argument("markdown", type=Path, nargs="?", help="the file with the markers; without it the table is printed")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 where something is worse than the file says")
    given = parser.parse_args(arguments)
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        print("nvcc is not on PATH, so the CUDA kernels are not compiled here")
        return 0
    try:
        told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        release = re.search(r"release ([\d.]+)", told)
        found, version = everything(nvcc), release[1] if release else "unknown"
        body = table(found, version)
        if given.markdown is None:
            print(body)
            return 0
        text = given.markdown.read_text(encoding="utf-8")
        wanted = between_markers(text, body, MARK, str(given.markdown))
        if not given.check:
            return settled(given.markdown, text, wanted, CUDA, False)
        written = text.partition(f"<!-- figures:{MARK} -->")[2].partition("<!-- /figures -->")[0]
        worse = regressions(found, version, written)
        print("\n".join(worse) if worse else f"{len(found)} CUDA kernels compile for {' and '.join(ARCHITECTURES)} without a spill")
        return 1 if worse else 0
    except CompressRecError as fault:
        print(fault, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
