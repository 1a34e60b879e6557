"""Builds the compiled kernels where it can; where it cannot, the package installs all the same and works on its reference ops.

COMPRESS_REC_REQUIRE_EXT=1   fail where the extension cannot be built, instead of recording why
COMPRESS_REC_CUDA=auto|1|0   CUDA kernels: where nvcc and a CUDA build of torch are both there (the default), required, or never

What happened is written to compress_rec/_build.json, which ``compress-rec doctor`` reads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
EXTENSION = "compress_rec._C"
# the stable ABI of torch 2.10: one binary serves every torch from there on
# sums and products are rounded as they are written: only what is written as an FMA becomes one
FLAGS = ["-O3", "-std=c++17", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-DTORCH_TARGET_VERSION=0x020a000000000000"]

# CUDA kernels run on what the code is for and on later devices of the same generation; the last entry is compiled anew for those to come
CUDA_FLAGS = ["-O3", "-std=c++17", "-Werror", "all-warnings", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
CUDA_DEVICES = ["-gencode=arch=compute_80,code=sm_80", "-gencode=arch=compute_90,code=[sm_90,compute_90]"]

# ninja from the environment's own scripts, also where that environment is not activated
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


class CannotBuild(Exception):
    """Why the extension is left out, in words."""


def required() -> bool:
    """Whether a missing extension is an error."""
    return os.environ.get("COMPRESS_REC_REQUIRE_EXT", "0") not in ("", "0")


def cuda_missing() -> str | None:
    """Return in words why CUDA kernels are left out, or None where they can be built; refuse where they were required."""
    wish = os.environ.get("COMPRESS_REC_CUDA", "auto")
    if wish not in ("auto", "0", "1"):
        raise SystemExit(f"COMPRESS_REC_CUDA must be auto, 1 or 0, but '{wish}' came; unset it to build without CUDA where there is none")
    if wish == "0":
        return "no CUDA kernels were built: not wanted (COMPRESS_REC_CUDA=0)"
    if shutil.which("nvcc") is None:
        why = "nvcc is not on PATH"
    elif torch_cuda() is None:
        why = "the installed torch was built without CUDA"
    else:
        return None
    return cuda_refused(why)


def cuda_refused(why: str) -> str:
    """Return in words that CUDA kernels are left out; refuse where they were required."""
    if os.environ.get("COMPRESS_REC_CUDA") == "1":
        raise SystemExit(f"COMPRESS_REC_CUDA=1 asks for CUDA kernels, but {why}; set COMPRESS_REC_CUDA=auto to build without them")
    return f"no CUDA kernels were built: {why}"


def cuda_objects(folder: Path) -> list[str]:
    """Compile every .cu file with nvcc, which needs neither torch nor a device, and return the object files; raise CannotBuild."""
    made = []
    folder.mkdir(parents=True, exist_ok=True)
    for source in sorted((ROOT / "csrc" / "cuda").glob("*.cu")):
        made.append(str(folder / f"{source.stem}.cu.o"))
        command = [str(shutil.which("nvcc")), *CUDA_FLAGS, *CUDA_DEVICES, "-c", str(source), "-o", made[-1]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["nothing was said"])[0]
            raise CannotBuild(f"nvcc does not compile {source.name}: {said}")
    return made


def add_cuda(built: Extension, objects: list[str]) -> None:
    """Let the extension have the CUDA kernels, and the layer between them and torch."""
    cuda = Path(os.environ.get("CUDA_HOME") or Path(os.path.realpath(str(shutil.which("nvcc")))).parents[1])
    if not (cuda / "include" / "cuda_runtime_api.h").exists():  # nvcc may be a script that calls the real one
        told = subprocess.run(["nvcc", "-v", "-dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
        cuda = Path(next((line.split("=", 1)[1] for line in told.splitlines() if line.startswith("#$ TOP=")), str(cuda)))
    built.sources += sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc" / "cuda").glob("*.cpp"))
    built.extra_objects += objects
    built.include_dirs.append(str(cuda / "include"))
    built.library_dirs += [str(cuda / "lib64"), str(cuda / "lib")]
    built.libraries += ["torch_cuda", "cudart_static", "rt", "dl", "pthread"]


def torch_cuda() -> str | None:
    """Return the CUDA version that torch was built for, if any."""
    try:
        import torch
    except ImportError:
        return None
    return torch.version.cuda


def compiler() -> str:
    """Return the first line of the C++ compiler's version, or raise CannotBuild."""
    command = os.environ.get("CXX") or (sysconfig.get_config_var("CXX") or "c++").split()[0]
    found = shutil.which(command) or (None if os.environ.get("CXX") else shutil.which("g++") or shutil.which("c++"))
    if found is None:
        raise CannotBuild(f"no C++ compiler was found: '{command}' is not there; install g++ or set CXX")
    try:
        told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as fault:
        raise CannotBuild(f"the C++ compiler '{found}' does not run ({fault}); install g++ or set CXX") from fault
    return told.partition("\n")[0]


def kernels() -> Extension:
    """Return the extension, with what it includes and links."""
    import pybind11
    from torch.utils.cpp_extension import include_paths, library_paths

    sources = sorted(str(path.relative_to(ROOT)) for folder in ("csrc", "csrc/cpu") for path in (ROOT / folder).glob("*.cpp"))
    return Extension(
        EXTENSION,
        sources=sources,
        depends=sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.h")),
        include_dirs=[*include_paths(), pybind11.get_include()],
        library_dirs=library_paths(),
        libraries=["torch", "torch_cpu"],
        extra_compile_args=FLAGS,
        language="c++",
    )


# in this order, so that what needs no torch is found out before it is imported, which takes seconds
CUDA_MISSING = cuda_missing()
COMPILER: str | None = None
MISSING: str | None = None
Building: type[build_ext] = build_ext
extension = Extension(EXTENSION, sources=[])
try:
    COMPILER = compiler()
    extension = kernels()
    from torch.utils.cpp_extension import BuildExtension as Building  # runs ninja where it is there
except CannotBuild as fault:
    MISSING = str(fault)
except ImportError as fault:
    MISSING = f"building needs torch and pybind11, but {fault}; install them and build with --no-build-isolation"


class BuildKernels(Building):  # type: ignore[misc,valid-type]
    """Builds the extension, or records why not."""

    def run(self) -> None:
        in_place = self.inplace  # setuptools clears it while it builds, and leaves it cleared when that fails
        facts: dict[str, Any] = {"built": False, "reason": None, "compiler": COMPILER, "cuda": CUDA_MISSING}
        try:
            if MISSING is not None:
                raise CannotBuild(MISSING)
            if CUDA_MISSING is None:
                facts["cuda"] = self.with_cuda()
            super().run()
            facts["built"] = True
        except CannotBuild as fault:
            facts["reason"] = str(fault)
        except (Exception, SystemExit) as fault:
            lines = str(fault).strip().splitlines()
            facts["reason"] = f"compiling failed: {lines[0] if lines else type(fault).__name__}"
        self.inplace = in_place
        if not facts["built"]:
            if CUDA_MISSING is None:
                facts["cuda"] = cuda_refused(str(facts["reason"]))
            if required():
                raise SystemExit(f"COMPRESS_REC_REQUIRE_EXT=1 asks for the compiled extension, but {facts['reason']}")
            print(f"compress_rec: {facts['reason']}; installing without compiled kernels", file=sys.stderr)
            for folder in self.folders():  # an older build would hide that this one failed
                for stale in folder.glob("_C*.so"):
                    stale.unlink()
            self.extensions = []
        for folder in self.folders():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "_build.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    def with_cuda(self) -> str:
        """Compile the CUDA kernels, and return in words what became of them."""
        try:
            add_cuda(self.extensions[0], cuda_objects(Path(self.build_temp) / "cuda"))
        except CannotBuild as fault:
            if os.environ.get("COMPRESS_REC_CUDA") == "1":
                raise
            return cuda_refused(str(fault))
        return f"CUDA kernels were built for sm_80, sm_90 and later, by nvcc at {shutil.which('nvcc')} for torch with CUDA {torch_cuda()}"

    def folders(self) -> list[Path]:
        """Return the package folders this build writes to."""
        return [ROOT / "compress_rec"] if self.inplace else [Path(self.build_lib) / "compress_rec"]

    def get_outputs(self) -> list[str]:
        """Return the files that were really made."""
        made = [str(path) for path in super().get_outputs() if Path(path).exists()]
        return made + [str(folder / "_build.json") for folder in self.folders() if (folder / "_build.json").exists()]


setup(ext_modules=[extension], cmdclass={"build_ext": BuildKernels})
