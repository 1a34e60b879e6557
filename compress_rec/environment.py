"""What the figures of a run depend on beside the code: the machine, the versions, and which kernels served."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from compress_rec import op

PACKAGES = (
    "compress_rec",
    "torch",
    "transformers",
    "tokenizers",
    "numpy",
    "scipy",
    "safetensors",
    "accelerate",
    "tensorly",
    "shap",
    "onnx",
    "onnxruntime",
    "optimum",
    "polars",
)


@dataclass(frozen=True)
class Environment:
    """The facts of one process on one machine.

    cpu: the processor's name
    cores, processors: physical cores and logical processors of the machine; ``usable``: processors this process may run on
    threads: torch's threads within an op
    memory: bytes of main memory, ``None`` where the system does not say
    tier, tiers: the instruction tier in force, and those this machine and build can run
    versions: packages, Python; ``None`` for one that is not installed
    commit: the commit of the source checkout, with ``-dirty`` where tracked files were changed; ``None`` outside a checkout
    ops: op → {"backend": which kernel serves, "fallback": why it is the reference, or ``None``}
    build: what the build recorded: {"built", "reason", "compiler", "cuda"}
    compiler: the C++ compiler found now, ``None`` where there is none
    cuda: {"torch": CUDA version of the torch build, "devices": names, "nvcc": where it is}
    """

    cpu: str
    cores: int
    processors: int
    usable: int
    threads: int
    memory: int | None
    system: str
    tier: str
    tiers: tuple[str, ...]
    versions: Mapping[str, str | None]
    commit: str | None
    ops: Mapping[str, Mapping[str, str | None]]
    build: Mapping[str, Any]
    compiler: str | None
    cuda: Mapping[str, Any]


def environment() -> Environment:
    """Look at the machine, the installation and the ops as they are now."""
    model, cores = _processor()
    return Environment(
        cpu=model,
        cores=cores,
        processors=os.cpu_count() or 1,
        usable=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory=_memory(),
        system=f"{platform.system()} {platform.release()}",
        tier=op.tier(),
        tiers=op.tiers(),
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        commit=_commit(Path(__file__).parent),
        ops={name: {"backend": op.backend(name), "fallback": op.fallback(name)} for name in op.ops()},
        build=dict(op.build_facts()),
        compiler=_compiler(),
        cuda={
            "torch": torch.version.cuda,
            "devices": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            "nvcc": shutil.which("nvcc"),
        },
    )


def facts() -> dict[str, Any]:
    """Return the environment as plain JSON values."""
    found = asdict(environment())
    return {**found, "tiers": list(found["tiers"])}


def explain() -> list[str]:
    """Return the environment in sentences, and what a user can do where something is missing."""
    here = environment()
    memory = "unknown memory" if here.memory is None else f"{here.memory / 2**30:.1f} GiB of memory"
    told = [
        f"The processor is {here.cpu} with {_count(here.cores, 'core')} ({_count(here.usable, 'processor')} usable) and {memory}.",
        f"torch computes with {_count(here.threads, 'thread')} here; set OMP_NUM_THREADS or torch.set_num_threads to change that.",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in here.versions.items() if version is not None) + ".",
    ]
    absent = [name for name, version in here.versions.items() if version is None]
    if absent:
        told.append(f"Not installed: {', '.join(absent)}.")
    told.append(
        "This is no source checkout, so results carry no commit." if here.commit is None else f"The source is at commit {here.commit}."
    )
    if "avx2" in here.tiers:
        told.append(
            f"Compiled kernels are loaded (built by {here.build.get('compiler') or 'an unknown compiler'}); tier {here.tier} is in force."
        )
    else:
        told.append(f"No compiled kernel can run: {op.fallback('cosine_top_k')}. Results are the same to rounding, searches are slower.")
        if here.compiler is None:
            told.append("No C++ compiler is on PATH: install g++ (Debian: apt-get install g++) and install the package again.")
    for name, served in here.ops.items():
        told.append(f"{name} runs on {served['backend']}" + (f": {served['fallback']}." if served["fallback"] else "."))
    compiled = "runs compiled" if "avx2" in here.tiers and here.tier != op.REFERENCE else "is left to torch's modules, for the same reason"
    told.append(f"A whole encoder, after Variant.compile(), {compiled}.")
    told.append(_explain_cuda(here))
    return told


def _explain_cuda(here: Environment) -> str:
    kernels = here.build.get("cuda") or "nothing is recorded about CUDA kernels"
    if here.cuda["torch"] is None:
        return f"torch was built without CUDA, so everything runs on the CPU ({kernels})."
    if not here.cuda["devices"]:
        return f"torch was built for CUDA {here.cuda['torch']}, but no device is there, so everything runs on the CPU ({kernels})."
    served = [name for name in here.ops if _on_cuda(name)]
    rest = "every op runs on its reference there"
    if served:
        rest = f"{', '.join(served)} run on them there, the other ops on their references"
    elif here.cuda["nvcc"] is None:
        rest += "; to change that, install the CUDA toolkit, put nvcc on PATH and install the package again"
    return f"torch sees {', '.join(here.cuda['devices'])} (CUDA {here.cuda['torch']}): {kernels}; {rest}."


def _on_cuda(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(f"{op.NAMESPACE}::{name}", "CUDA"))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _processor() -> tuple[str, int]:
    """Return the processor's name and its physical cores."""
    logical = os.cpu_count() or 1
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine(), logical
    entries = [dict(_pairs(block)) for block in text.split("\n\n") if block.strip()]
    model = next((entry["model name"] for entry in entries if entry.get("model name")), platform.processor() or platform.machine())
    cores = {(entry.get("physical id"), entry["core id"]) for entry in entries if "core id" in entry}
    return model, len(cores) or logical


def _pairs(block: str) -> list[tuple[str, str]]:
    return [(key.strip(), value.strip()) for key, colon, value in (line.partition(":") for line in block.splitlines()) if colon]


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """Return the commit of the checkout that tracks the package; a package installed below some other checkout has none."""
    if _told("git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _told("git", "-C", str(folder), "rev-parse", "HEAD")
    if commit is None:
        return None
    return commit + ("-dirty" if _told("git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no") else "")


def _compiler() -> str | None:
    for command in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        told = _told(command, "--version") if command else None
        if told:
            return told.partition("\n")[0]
    return None


def _told(*command: str) -> str | None:
    """Return what a command printed, or ``None`` where it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
