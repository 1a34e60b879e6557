"""Where the .cu files run in the tests: on the CPU under the emulation. Where a GPU is there, ``real.py`` has it in its place."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
CUDA = ROOT / "csrc" / "cuda"
# faults of alignment and of arrays within a function trap; a switch of fibres is no fault, so nothing may look for one
FLAGS = (
    *("-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wno-unknown-pragmas"),
    *("-U_FORTIFY_SOURCE", "-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error", "-DCUDA_EMULATION_INTERFACE"),
)


class KernelFault(Exception):
    """What the emulation found, or what CUDA returned."""


def compiler() -> str:
    """Return a C++ compiler, or skip what needs one."""
    wanted = os.environ.get("CXX") or (sysconfig.get_config_var("CXX") or "c++").split()[0]
    found = shutil.which(wanted) or shutil.which("g++")
    if found is None:
        pytest.skip("the CUDA kernels run under emulation, which needs a C++ compiler, and none was found: install g++ or set CXX")
    return found


def built(source: Path, command: list[str], *read: Path, after: Sequence[str] = ()) -> Path:
    """Return the library that ``command``, the source and what comes ``after`` it make; the same sources are compiled once."""
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(" ".join([*command, *after, version]).encode())
    for path in sorted({source, *read, *CUDA.rglob("*.h"), *CUDA.rglob("*.cu")}):
        digest.update(path.read_bytes())
    folder = ROOT / "build" if os.access(ROOT, os.W_OK) else Path(tempfile.gettempdir())
    library = folder / "cuda-tests" / f"{source.stem}-{digest.hexdigest()[:16]}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        aside = library.with_suffix(f".{os.getpid()}")
        done = subprocess.run([*command, "-I", str(CUDA), "-o", str(aside), str(source), *after], capture_output=True, text=True)
        if done.returncode:
            wrong = [line for line in done.stderr.splitlines() if "error" in line or "undefined" in line]
            raise AssertionError(f"{source.name} does not compile:\n" + "\n".join(wrong[:40] or [done.stderr[:4000]]))
        for old in library.parent.glob(f"{source.stem}-*.so"):
            old.unlink()
        aside.replace(library)
    return library


class Emulated:
    """A .cu file on the CPU. Arrays are copied into guarded memory; what a kernel leaves there is looked at with :meth:`Array.tensor`."""

    real = False

    def __init__(
        self, source: Path, flags: Sequence[str] = (), more: Sequence[Path] = (), links: Sequence[str] = (), read: Sequence[Path] = ()
    ) -> None:
        command = [compiler(), *FLAGS, *flags, "-x", "c++", *map(str, more)]
        self.library = ctypes.CDLL(str(built(source, command, *more, *read, after=links)))
        self.library.cuda_emulation_allocate.restype = ctypes.c_void_p
        self.library.cuda_emulation_allocate.argtypes = (ctypes.c_char_p, ctypes.c_uint64, ctypes.c_int, ctypes.c_int)
        self.library.cuda_emulation_release.argtypes = (ctypes.c_void_p,)
        self.library.cuda_emulation_arrange.argtypes = (ctypes.c_int, ctypes.c_uint64, ctypes.c_int)
        self.library.cuda_emulation_fault.restype = ctypes.c_char_p
        self.library.cuda_emulation_in_every_order.restype = ctypes.c_char_p
        self.guarded_before = False
        self._kept: list[Array] = []

    def put(self, name: str, tensor: Tensor, scratch: bool = False) -> Array:
        """Copy a tensor into memory of the device."""
        array = self.empty(name, tensor.shape, tensor.dtype, scratch)
        array.tensor().copy_(tensor)
        return array

    def empty(self, name: str, shape: Any, dtype: torch.dtype, scratch: bool = False) -> Array:
        """Return memory of the device that nobody has written; ``scratch``: its content is no result."""
        shape = tuple(shape)
        size = torch.empty(0, dtype=dtype).element_size() * int(torch.tensor(shape).prod())
        address = self.library.cuda_emulation_allocate(name.encode(), size, self.guarded_before, scratch)
        self._kept.append(Array(address, shape, dtype, size))
        return self._kept[-1]

    def release(self) -> None:
        """Give all arrays back."""
        for array in self._kept:
            self.library.cuda_emulation_release(array.address)
        self._kept.clear()

    def call(self, function: str, *arguments: Any) -> None:
        """Run a launcher, and raise what was found."""
        launcher = getattr(self.library, function)
        launcher.restype = ctypes.c_char_p
        told = launcher(*(plain(argument) for argument in arguments)) or b""
        fault = self.library.cuda_emulation_fault().decode()
        if fault or told not in (b"", b"no error"):
            raise KernelFault(fault or told.decode())

    def number(self, function: str, *arguments: Any) -> int:
        """Return what a function of whole numbers and arrays says."""
        asked = getattr(self.library, function)
        asked.restype = ctypes.c_int64
        return int(asked(*(plain(argument) for argument in arguments)))

    def in_every_order(self, work: Callable[[], None]) -> None:
        """Do the same work with the threads in several orders, and raise a fault, or that results differ."""
        raised: list[Exception] = []

        def once() -> None:
            try:
                if not raised:
                    work()
            except Exception as fault:  # must not cross C
                raised.append(fault)

        told = self.library.cuda_emulation_in_every_order(ctypes.CFUNCTYPE(None)(once)).decode()
        if raised:
            raise raised[0]
        if told:
            raise KernelFault(told)


class Array:
    """Memory of the emulated device."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: torch.dtype, size: int) -> None:
        self.address, self._shape, self._dtype, self._size = address, shape, dtype, size

    def tensor(self) -> Tensor:
        """Return the memory itself as a tensor."""
        if self._size == 0:
            return torch.empty(self._shape, dtype=self._dtype)
        raw = (ctypes.c_ubyte * self._size).from_address(self.address)
        return torch.frombuffer(raw, dtype=self._dtype).view(self._shape)


def plain(argument: Any) -> Any:
    """Return an argument as C takes it: an array as its address, a number as 64 bits."""
    if hasattr(argument, "address"):
        return ctypes.c_void_p(argument.address)
    if isinstance(argument, float):
        return ctypes.c_float(argument)
    if isinstance(argument, int) and not isinstance(argument, bool):
        return ctypes.c_int64(argument)
    return argument
