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
    """What ``make`` makes of a layer's two factors, kept as long as neither is written to or replaced.

    Writes are told by torch's version counter, so that one past it (through ``.data``, or numpy) goes unseen. Copies and pickles of it
    are empty.
    """

    def __init__(self, make: Callable[[Tensor, Tensor], Made]) -> None:
        self._make = make
        self._kept: tuple[Made, Tensor, int, int, torch.Size, Tensor, int, int, torch.Size] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return WhileUnchanged, (self._make,)

    def __call__(self, x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> Made | None:
        """Return ``make(a, b)``, made now or kept.

        ``None`` where the product of x may not be taken from it: where something is traced or compiled, asks for a gradient, is no float32
        on the CPU, or has no version counter, as inference tensors have not.
        """
        # all in one, in the order of what it costs: this runs at every call, and takes as long as a small product's arithmetic
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or x.dtype is not torch.float32 or not x.is_cpu:
            return None
        if bias is not None and (bias.dtype is not torch.float32 or not bias.is_cpu):
            return None
        if torch.is_grad_enabled() and (x.requires_grad or a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)):
            return None
        kept = self._kept
        # the tensors themselves are held, so that no others can come to lie where they lay
        if kept is None or a is not kept[1] or b is not kept[5]:
            return self._anew(a, b)
        if a._version != kept[2] or a.data_ptr() != kept[3] or a.shape != kept[4]:
            return self._anew(a, b)
        if b._version != kept[6] or b.data_ptr() != kept[7] or b.shape != kept[8]:
            return self._anew(a, b)
        return kept[0]

    def _anew(self, a: Tensor, b: Tensor) -> Made | None:
        self._kept = None
        if not (a.is_cpu and b.is_cpu and a.dtype is b.dtype is torch.float32) or a.is_inference() or b.is_inference():
            return None
        with torch.no_grad():
            made = self._make(a.detach(), b.detach())
        self._kept = made, a, a._version, a.data_ptr(), a.shape, b, b._version, b.data_ptr(), b.shape
        return made

    def forget(self) -> None:
        """Make it anew at the next call."""
        self._kept = None


Panels = tuple[Tensor, Tensor, int]  # of a, of b, and the outputs


def _packed_pair(a: Tensor, b: Tensor) -> Panels:
    return packed(a), packed(b), b.shape[0]


def _product(a: Tensor, b: Tensor) -> Tensor:
    return b @ a


def panels_of_factors() -> WhileUnchanged[Panels]:
    """Return the place where a layer keeps the panels of its two factors."""
    return WhileUnchanged(_packed_pair)


def low_rank(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, panels: WhileUnchanged[Panels]) -> Tensor:
    """``low_rank_linear``, from ``panels`` where that may be and a compiled kernel reads them."""
    kept = panels(x, a, b, bias) if low_rank_linear_packed.compiled else None
    y: Tensor = low_rank_linear(x, a, b, bias) if kept is None else low_rank_linear_packed(x, *kept, bias)
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
        if self._costs_more:
            weight = self._dense(x, a, b, bias)
            if weight is not None and x.dim() and x.shape[-1] == weight.shape[1]:  # else the op refuses
                return F.linear(x, weight, bias)
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
