"""What an op is: a schema, the readable function that specifies it, and whichever compiled kernel overrides it at the dispatcher.

The readable PyTorch function is registered as the op's ``CompositeExplicitAutograd`` kernel, so it serves on every device. The compiled
extension, where there is one, adds a kernel for the CPU; it is registered only while an instruction tier other than ``reference`` is
in force, so what the dispatcher holds is what serves. :func:`backend` and :func:`fallback` say which, and why.

``COMPRESS_REC_ISA=reference|avx2`` in the environment sets the tier at import, :func:`force` within a block.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch

from compress_rec.errors import CompressRecError, nearest

NAMESPACE = "compress_rec"
REFERENCE = "reference"
TIERS = (REFERENCE, "avx2")
BUILD_FACTS = Path(__file__).parent / "_build.json"

# torch forgets what a Library registered as soon as the object dies
_LIBRARY = torch.library.Library(NAMESPACE, "FRAGMENT")
_OPS: dict[str, Op] = {}
_AFTER_AUTOGRAD = torch._C._after_autograd_keyset


@dataclass(frozen=True)
class Gradient:
    """How to differentiate an op: the two functions ``torch.library.register_autograd`` takes."""

    setup_context: Callable[..., None]
    backward: Callable[..., Any]


@dataclass(frozen=True)
class Op:
    """An op; calling it goes through torch's dispatcher.

    name: the name, also that of its module, kernel, test and bench line
    schema: as torch reads it
    close: how a compiled kernel may differ. ``"exact"``: not at all. ``"twice"``: over the whole output, the largest error against a
        float64 run is at most twice the reference's own, with a floor of a few units in the last place
    reference: the readable function, the specification
    differentiable: whether gradients pass; other ops refuse inputs that require them
    """

    name: str
    schema: str
    close: Literal["exact", "twice"]
    reference: Callable[..., Any]
    differentiable: bool

    @functools.cached_property
    def overload(self) -> Any:
        """What the dispatcher holds under this name."""
        return getattr(getattr(torch.ops, NAMESPACE), self.name).default

    @functools.cached_property
    def _direct(self) -> Any:
        """What the overload calls: its front in Python takes as long as a quarter of a small product."""
        return getattr(self.overload, "_op", self.overload)

    @property
    def compiled(self) -> bool:
        """Whether a compiled kernel serves on the CPU at present."""
        return self.name in _served

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.differentiable or torch.compiler.is_compiling():
            return self.overload(*args, **kwargs)
        if torch.is_inference_mode_enabled():
            return self._direct(*args, **kwargs)
        if torch.is_grad_enabled() and any(isinstance(value, torch.Tensor) and value.requires_grad for value in (*args, *kwargs.values())):
            return self.overload(*args, **kwargs)  # which refuses
        # past the front that refuses gradients: none are asked for, and that Python function takes as long as a small product
        with torch._C._AutoDispatchBelowAutograd():
            return self._direct(*args, **kwargs)


def op(
    schema: str, *, close: Literal["exact", "twice"], fake: Callable[..., Any], gradient: Gradient | None = None
) -> Callable[[Callable[..., Any]], Op]:
    """Define the op ``schema`` in ``torch.ops.compress_rec`` with the decorated function as its kernel on every device.

    fake: shapes and dtypes of the outputs from those of the inputs, without looking at values
    gradient: how to differentiate it; without one, inputs that require grad are refused (torch itself would only warn)
    """
    name = schema.partition("(")[0]

    def define(reference: Callable[..., Any]) -> Op:
        _LIBRARY.define(schema)
        _LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=_LIBRARY)
        made = Op(name, schema, close, reference, gradient is not None)
        object.__setattr__(made, "__doc__", reference.__doc__)
        if gradient is None:
            _LIBRARY.impl(name, _refuse_gradients(made), "Autograd", with_keyset=True)
        else:
            torch.library.register_autograd(f"{NAMESPACE}::{name}", gradient.backward, setup_context=gradient.setup_context, lib=_LIBRARY)
        _OPS[name] = made
        return made

    return define


def ops() -> Mapping[str, Op]:
    """Return every op of the folder ``ops``, sorted by name."""
    folder = importlib.import_module("compress_rec.ops")
    for info in pkgutil.iter_modules(folder.__path__, folder.__name__ + "."):
        importlib.import_module(info.name)
    return MappingProxyType(dict(sorted(_OPS.items())))


def find(name: str) -> Op:
    """Return the op called ``name``, or refuse with the nearest name."""
    known = ops()
    if name not in known:
        raise CompressRecError(f"there is no op called '{name}'{nearest(name, known)}")
    return known[name]


def backend(name: str) -> str:
    """Return which kernel serves the op ``name`` on the CPU: ``"reference"`` or the instruction tier, such as ``"avx2"``."""
    find(name)
    return tier() if torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{name}", "CPU") else REFERENCE


def fallback(name: str) -> str | None:
    """Return in a sentence why the op ``name`` runs on its reference, or ``None`` where a compiled kernel serves."""
    if backend(name) != REFERENCE:
        return None
    if _EXTENSION is None:
        return _missing()
    if tier() != REFERENCE or name not in _EXTENSION.kernels():
        packed = f"{name}_packed" in _EXTENSION.kernels()
        return f"{name} has no compiled kernel for the CPU" + (f", {name}_packed has" if packed else "")
    if _EXTENSION.best_tier() == REFERENCE:
        return "this CPU lacks AVX2 and FMA, which the compiled kernels need"
    return "the reference was asked for, by COMPRESS_REC_ISA or in the program"


def tier() -> str:
    """Return the instruction tier in force."""
    return REFERENCE if _EXTENSION is None else str(_EXTENSION.tier())


def tiers() -> tuple[str, ...]:
    """Return the tiers this machine and this build can run, the reference first."""
    return (REFERENCE,) if _EXTENSION is None else tuple(_EXTENSION.tiers())


def use(name: str) -> None:
    """Put the tier ``name`` in force from here on, for every thread of the process."""
    if name not in TIERS:
        raise CompressRecError(f"there is no instruction tier called '{name}'{nearest(name, TIERS)}")
    if name not in tiers():
        reason = _missing() if _EXTENSION is None else "this CPU does not have it"
        raise CompressRecError(f"the instruction tier '{name}' cannot be used: {reason}; ask for one of {', '.join(tiers())}")
    if _EXTENSION is not None:
        _EXTENSION.use(name)
        _look()


@contextlib.contextmanager
def force(name: str) -> Iterator[None]:
    """Put the tier ``name`` in force for a block. The tier belongs to the process, so let no other thread do the same meanwhile."""
    before = tier()
    use(name)
    try:
        yield
    finally:
        use(before)


def build_facts() -> Mapping[str, Any]:
    """Return what the build recorded: ``{"built", "reason", "compiler", "cuda"}``, or an empty mapping where nothing was built."""
    try:
        facts = json.loads(BUILD_FACTS.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def refuse(name: str, argument: str, wanted: str, came: str, way_out: str) -> CompressRecError:
    """Return the sentence of a refusal, the same that ``csrc/check.h`` writes."""
    return CompressRecError(f"{name}: {argument} must be {wanted}, but {came} came; {way_out}")


def described(tensor: torch.Tensor) -> str:
    """Return ``float32 (3, 384)``: how a refusal names a tensor that came."""
    return f"{str(tensor.dtype).removeprefix('torch.')} ({', '.join(map(str, tensor.shape))})"


def _refuse_gradients(made: Op) -> Callable[..., Any]:
    names = [argument.name for argument in made.overload._schema.arguments]

    def front(keys: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            for argument, value in (*zip(names, args, strict=False), *kwargs.items()):
                if isinstance(value, torch.Tensor) and value.requires_grad:
                    raise refuse(
                        made.name,
                        argument,
                        "a tensor without gradient",
                        "one that requires grad",
                        "call it under torch.no_grad(), or detach the tensor",
                    )
        return made.overload.redispatch(keys & _AFTER_AUTOGRAD, *args, **kwargs)

    return front


def _missing() -> str:
    if _IMPORT_FAULT is not None:
        return f"the compiled extension could not be loaded ({_IMPORT_FAULT})"
    reason = build_facts().get("reason")
    return f"the compiled extension was not built ({reason or 'no build has been recorded'})"


def _look() -> None:
    """Remember which kernels the extension has registered, all or none, since layers ask at every call."""
    global _served
    _served = frozenset(_EXTENSION.kernels() if tier() != REFERENCE else ())


def _load() -> tuple[Any, str | None]:
    try:
        return importlib.import_module("compress_rec._C"), None
    except ModuleNotFoundError:
        return None, None
    except ImportError as fault:
        return None, " ".join(str(fault).split())


_served: frozenset[str] = frozenset()
_EXTENSION, _IMPORT_FAULT = _load()
_asked = os.environ.get("COMPRESS_REC_ISA", "").strip()
if _asked:
    use(_asked)
elif _EXTENSION is not None:
    use(_EXTENSION.best_tier())
