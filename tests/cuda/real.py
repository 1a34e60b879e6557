"""A GPU in the place of the emulation: the same .cu files, compiled by nvcc, the same launchers, the same tests."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.cuda.machine import KernelFault, built, plain

FLAGS = ("-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", "-Werror", "all-warnings")


def is_there() -> bool:
    """Whether kernels can be compiled for a device here, and run on it."""
    return torch.cuda.is_available() and shutil.which("nvcc") is not None


class Array:
    """Memory of the device."""

    def __init__(self, data: Tensor) -> None:
        self.data, self.address = data, data.data_ptr()

    def tensor(self) -> Tensor:
        """Return a copy of what is there, once everything before it is done."""
        torch.cuda.synchronize()
        return self.data.cpu()


class Real:
    """The kernels on the current GPU; what is guarded and ordered under emulation is compute-sanitizer's work here."""

    real = True

    def __init__(self, source: Path) -> None:
        high, low = torch.cuda.get_device_capability()
        self.library = ctypes.CDLL(str(built(source, [str(shutil.which("nvcc")), *FLAGS, f"-arch=sm_{high}{low}"])))
        self.guarded_before = False

    def put(self, name: str, tensor: Tensor, scratch: bool = False) -> Array:
        """Copy a tensor to the device."""
        return Array(tensor.contiguous().cuda())

    def empty(self, name: str, shape: Any, dtype: torch.dtype, scratch: bool = False) -> Array:
        """Return memory of the device, every byte 0xFF."""
        data = torch.empty(tuple(shape), dtype=dtype, device="cuda")
        data.view(-1).view(torch.uint8).fill_(0xFF) if data.numel() else None
        return Array(data)

    def release(self) -> None:
        """Nothing to do: arrays go with their tensors."""

    def call(self, function: str, *arguments: Any) -> None:
        """Run a launcher, wait for it, and raise what went wrong."""
        torch.cuda.synchronize()
        launcher = getattr(self.library, function)
        launcher.restype = ctypes.c_char_p
        told = launcher(*(plain(argument) for argument in arguments)) or b""
        if told not in (b"", b"no error"):
            raise KernelFault(told.decode())
        torch.cuda.synchronize()

    def number(self, function: str, *arguments: Any) -> int:
        """Return what a function of whole numbers and arrays says."""
        asked = getattr(self.library, function)
        asked.restype = ctypes.c_int64
        return int(asked(*(plain(argument) for argument in arguments)))

    def in_every_order(self, work: Callable[[], None]) -> None:
        """Do the work a few times, each in an order that the device chooses; the test compares the last with others."""
        for _ in range(5):
            work()
