"""A linear layer of two thin matrices that trains as it is and serves from panels, packed anew when the weights changed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.op import described
from compress_rec.ops.low_rank_linear import low_rank_linear
from compress_rec.ops.low_rank_linear_packed import low_rank_linear_packed
from compress_rec.panels import packed

Made = TypeVar("Made")


class WhileUnchanged(Generic[Made]):
    """What ``make`` makes of some tensors, kept as long as none of them is written to or replaced.

    Writes are told by torch's version counter, so that one past it (through ``.data``, or numpy) goes unseen. Copies and pickles of it
    are empty.
    """

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._kept: tuple[tuple[tuple[Tensor, int, int, torch.Size], ...], Made] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return WhileUnchanged, (self._make,)

    def __call__(self, *sources: Tensor) -> Made:
        """Return ``make(*sources)``, made now or kept; the sources must have version counters, which inference tensors have not."""
        kept = self._kept
        if kept is not None:
            # the tensors themselves are held, so that no others can come to lie where they lay; a loop, since this runs at every call
            for source, (before, version, place, shape) in zip(sources, kept[0], strict=True):
                if source is not before or source._version != version or source.data_ptr() != place or source.shape != shape:
                    break
            else:
                return kept[1]
        with torch.no_grad():
            made = self._make(*(source.detach() for source in sources))
        self._kept = tuple((source, source._version, source.data_ptr(), source.shape) for source in sources), made
        return made

    def forget(self) -> None:
        """Make it anew at the next call."""
        self._kept = None


def _packed_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return packed(a), packed(b)


def _product(a: Tensor, b: Tensor) -> Tensor:
    return b @ a


def panels_of_factors() -> WhileUnchanged[tuple[Tensor, Tensor]]:
    """Return the place where a layer keeps the panels of its two factors."""
    return WhileUnchanged(_packed_pair)


def may_keep(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> bool:
    """Say whether a product may be taken from something made of the factors before: float32 on the CPU, no gradient, no tracing."""
    if torch.compiler.is_compiling():
        return False
    if not (x.is_cpu and a.is_cpu and b.is_cpu and x.dtype is a.dtype is b.dtype is torch.float32):
        return False
    if bias is not None and not (bias.is_cpu and bias.dtype is torch.float32):
        return False
    if torch.is_grad_enabled() and (x.requires_grad or a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)):
        return False
    return not (a.is_inference() or b.is_inference() or torch.jit.is_tracing())


def low_rank(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, panels: WhileUnchanged[tuple[Tensor, Tensor]]) -> Tensor:
    """``low_rank_linear``, from ``panels`` where that may be and a compiled kernel reads them."""
    if may_keep(x, a, b, bias) and low_rank_linear_packed.compiled:
        kept_a, kept_b = panels(a, b)
        y: Tensor = low_rank_linear_packed(x, kept_a, kept_b, b.shape[0], bias)
    else:
        y = low_rank_linear(x, a, b, bias)
    return y


class LowRankLinear(nn.Module):
    """``x @ (b @ a).T + bias`` in two products, as ``ops.low_rank_linear`` specifies it.

    a: (rank, inputs) float32, b: (outputs, rank) and bias: (outputs,) likewise; other floating dtypes and devices work, uncompiled

    Gradients pass to x and to every parameter. Without them, in float32 on the CPU, it runs the compiled kernel on factors packed once and
    anew whenever they changed; a row of x then has the same bits alone and in any batch. A rank above
    inputs · outputs / (inputs + outputs) costs more than the dense layer: then ``b @ a`` is formed once, and so serves. A write past
    torch's version counter, through ``.data``, goes unseen until ``eval()`` or ``train()`` is called.
    """

    a: nn.Parameter
    b: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, a: Tensor, b: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if a.dim() != 2 or not a.is_floating_point():
            raise _refused("a", "floating (rank, inputs)", a)
        if b.dim() != 2 or b.shape[1] != a.shape[0] or b.dtype != a.dtype:
            raise _refused("b", f"{_name(a)} (outputs, {a.shape[0]}), as wide as a is high", b)
        if bias is not None and (bias.shape != b.shape[:1] or bias.dtype != a.dtype):
            raise _refused("bias", f"{_name(a)} ({b.shape[0]},), one number an output", bias)
        self.a, self.b = _parameter(a), _parameter(b)
        self.bias = None if bias is None else _parameter(bias)
        self._costs_more = a.shape[0] * (a.shape[1] + b.shape[0]) > a.shape[1] * b.shape[0]
        self._panels = panels_of_factors()
        self._dense = WhileUnchanged(_product)

    @classmethod
    def from_linear(cls, linear: nn.Linear, rank: int) -> LowRankLinear:
        """Truncate a layer's singular value decomposition, each value split evenly between the factors; the layer keeps its own tensors.

        Errors: a rank the weight does not have; NaN or infinity in the weight.
        """
        if not isinstance(linear, nn.Linear):
            raise CompressRecError(f"LowRankLinear.from_linear wants a torch.nn.Linear, but {type(linear).__name__} came: give one layer")
        weight = linear.weight.detach()
        most = min(weight.shape)
        if not 1 <= rank <= most:
            raise CompressRecError(f"LowRankLinear.from_linear: rank must be from 1 to {most}, but {rank} came; ask for another")
        if not bool(weight.isfinite().all()):
            raise CompressRecError("LowRankLinear.from_linear: weight must be finite, but nan or inf came; drop or repair that layer")
        left, values, right = torch.linalg.svd(weight.double(), full_matrices=False)
        roots = values[:rank].sqrt()
        a, b = roots[:, None] * right[:rank], left[:, :rank] * roots
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(a.to(weight.dtype), b.to(weight.dtype).contiguous(), bias)

    @property
    def in_features(self) -> int:
        return self.a.shape[1]

    @property
    def out_features(self) -> int:
        return self.b.shape[0]

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    @property
    def backend(self) -> str:
        """What serves without gradients on the CPU: ``"reference"``, an instruction tier, or a sentence that begins with ``"dense: "``."""
        if self._costs_more:
            limit = math.floor(self.in_features * self.out_features / (self.in_features + self.out_features))
            return f"dense: rank {self.rank} is above the break-even of {limit}"
        return op.backend("low_rank_linear_packed")

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) -> (…, outputs), dtype of the parameters."""
        parameters = self._parameters  # nn.Module's own way to them takes as long as a small product
        a, b, bias = parameters["a"], parameters["b"], parameters.get("bias")
        assert a is not None
        assert b is not None
        if self._costs_more and may_keep(x, a, b, bias) and x.dim() and x.shape[-1] == a.shape[1]:
            return F.linear(x, self._dense(a, b), bias)
        return low_rank(x, a, b, bias, self._panels)

    def train(self, mode: bool = True) -> LowRankLinear:
        self._panels.forget()
        self._dense.forget()
        return super().train(mode)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, rank={self.rank}, bias={self.bias is not None}, "
            f"backend='{self.backend}'"
        )


def _parameter(tensor: Tensor) -> nn.Parameter:
    if isinstance(tensor, nn.Parameter):
        return tensor
    if tensor.is_inference():
        with torch.inference_mode(False):
            tensor = tensor.clone()  # has a version counter
    return nn.Parameter(tensor.detach())


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refused(argument: str, wanted: str, came: Tensor) -> CompressRecError:
    return op.refuse("LowRankLinear", argument, wanted, described(came), "give the factors of one weight, or call from_linear")
