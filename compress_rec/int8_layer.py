"""A linear layer in int8 for a serving stack: the weight packed once, an activation scale a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.int8_eights import Int8Parts, joined, parts_of, quantize_by_eights
from compress_rec.ops.int8_linear import int8_linear
from compress_rec.ops.int8_linear_packed import int8_linear_packed
from compress_rec.smooth_quant import smooth_quant


class Int8Linear(nn.Module):
    """``(x * diagonal) @ (codes * scales).T + bias`` in integers, as ``ops.int8_linear`` specifies it.

    codes: (outputs, inputs) int8, -127 … 127
    scales: (outputs,) float32
    bias: (outputs,) float32
    diagonal: (inputs,) float32: what brings the inputs to one size before a row is rounded; ``None`` for ones

    A row of x has the same bits alone and in any batch. Where a compiled kernel serves, the codes are held as it reads them and nowhere
    else, and ``scales`` and ``bias`` are views of the one tensor that it reads: writing to them or assigning others counts at once, while
    what ``torch.func.functional_call`` puts in their place does not. Codes that no sum of eight products of can leave 16 bits are the
    quickest; ``from_linear`` makes such, others take two or four times as long. ``state_dict`` holds ``codes``, ``scales`` and, where there
    are any, ``bias`` and ``diagonal`` all the same, so that files do not depend on the machine. No gradient passes.
    """

    scales: Tensor
    diagonal: Tensor | None
    bias: nn.Parameter | None
    _codes: Tensor
    _packed: tuple[Tensor, int] | tuple[Tensor, int, Tensor] | None  # what the kernel gets behind x

    def __init__(self, codes: Tensor, scales: Tensor, bias: Tensor | None = None, diagonal: Tensor | None = None) -> None:
        nn.Module.__init__(self)  # also where a subclass has a second parent that wants arguments
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("scales", scales)
        self.register_buffer("diagonal", diagonal)
        self._hold(codes)

    @classmethod
    def from_linear(cls, linear: nn.Linear, inputs: Tensor | None = None) -> Int8Linear:
        """Quantise a float layer, a scale an output; it keeps its own tensors.

        inputs: (…, in_features) float32, a sample of what the layer will be given, a few thousand rows are many: by their sizes the
            inputs are divided before they are rounded, and the weight's columns multiplied, so that a few large ones do not take the
            levels of all others

        Errors: NaN or infinity in the weight or the sample; a sample of another width or of nothing.
        """
        if not isinstance(linear, nn.Linear):
            raise CompressRecError(f"Int8Linear.from_linear wants a torch.nn.Linear, but {type(linear).__name__} came: give one layer")
        weight, diagonal = linear.weight.detach().float(), None
        if inputs is not None:
            divisor = smooth_quant(_sizes(inputs, weight.shape[1]), weight.abs().amax(0))
            weight, diagonal = weight * divisor, 1 / divisor
        codes, scales = quantize_by_eights(weight)
        return cls(codes, scales, None if linear.bias is None else linear.bias.detach().float().clone(), diagonal)

    @property
    def codes(self) -> Tensor:
        """(outputs, inputs) int8, unpacked where they are held packed."""
        parts = self.parts
        return self._codes if parts is None else parts.codes(self.out_features, self.in_features)

    @property
    def parts(self) -> Int8Parts | None:
        """What the compiled kernel reads, as views; ``None`` where the reference serves."""
        return None if self._packed is None else parts_of(*self._packed[:2], self.in_features)

    @property
    def backend(self) -> str:
        """Which kernel serves: ``"reference"`` or an instruction tier."""
        return op.backend("int8_linear_packed" if self._packed is not None else "int8_linear")

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) float32 -> (…, outputs) float32."""
        packed = self._packed
        y: Tensor = self._plain(x, self.diagonal) if packed is None else int8_linear_packed(x, *packed)
        return y

    def product(self, x: Tensor, bias: Tensor | None, diagonal: Tensor | None = None) -> Tensor:
        """The same with another bias and other numbers before x, for a layer that has none of its own."""
        if diagonal is None:
            y = self(x)
        elif self._packed is None:
            y = self._plain(x, diagonal)
        else:
            y = int8_linear_packed(x, *self._packed[:2], diagonal)
        return y if bias is None else y.add_(bias)

    def _plain(self, x: Tensor, diagonal: Tensor | None) -> Tensor:
        y: Tensor = int8_linear(x if diagonal is None else x * diagonal, self._codes, self.scales, self.bias)
        return y

    def extra_repr(self) -> str:
        told = f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
        return f"{told}{'' if self.diagonal is None else ', diagonal=True'}, backend='{self.backend}'"

    def _hold(self, codes: Tensor) -> None:
        """Keep the codes as the kernel that serves reads them, scales and bias beside them in one tensor."""
        self.out_features, self.in_features = codes.shape
        self._packed = None
        # a buffer too, so that whoever counts a module's memory finds it; the tuple, since looking up buffers takes as long as a small
        # product
        for name in ("_codes", "_layer"):
            self._buffers.pop(name, None)
        if not self._may_pack(codes):
            self.register_buffer("_codes", codes, persistent=False)
            return
        layer = joined(codes, self.scales.detach(), None if self.bias is None else self.bias.detach())
        self.register_buffer("_layer", layer, persistent=False)
        self._packed = (layer, self.out_features) if self.diagonal is None else (layer, self.out_features, self.diagonal)
        self._tie()

    def _tie(self) -> None:
        """Make scales and bias views of what the kernel reads, so that a write to them counts at once."""
        parts = self.parts
        if parts is None:
            return
        self._buffers["scales"] = parts.scales[: self.out_features]
        if self.bias is not None:
            self._parameters["bias"] = nn.Parameter(parts.bias[: self.out_features], requires_grad=False)

    def _may_pack(self, codes: Tensor) -> bool:
        numbers = [self.scales] if self.bias is None else [self.scales, self.bias]
        fit = all(one.dtype is torch.float32 and one.shape == codes.shape[:1] and one.device == codes.device for one in numbers)
        return fit and codes.device.type == "cpu" and op.backend("int8_linear_packed") != op.REFERENCE

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in ("scales", "bias", "diagonal") and self.__dict__.get("_packed") is not None:
            self._hold(self.codes)  # the kernel reads a copy

    def __getstate__(self) -> dict[str, Any]:
        """What copies and pickles are made of: no views, which they could not hold as views."""
        apart = {kind: dict(self.__dict__[kind]) for kind in ("_buffers", "_parameters")}
        apart["_buffers"]["scales"] = self.scales.clone()
        if self.bias is not None:
            apart["_parameters"]["bias"] = nn.Parameter(self.bias.detach().clone(), requires_grad=False)
        return {**self.__dict__, **apart}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._tie()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Int8Linear:
        codes = self.codes
        super()._apply(fn, recurse)
        self._hold(fn(codes))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name in ("scales", "bias"):  # not views, with which a file would hold all that they are parts of
            if f"{prefix}{name}" in destination:
                destination[f"{prefix}{name}"] = destination[f"{prefix}{name}"].clone()
        destination[f"{prefix}codes"] = self.codes

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        _, _, missing, unexpected, errors = args
        super()._load_from_state_dict(state_dict, prefix, *args)
        name = f"{prefix}codes"
        if name not in state_dict:
            missing.append(name)
            return
        unexpected[:] = [key for key in unexpected if key != name]
        codes = state_dict[name]
        if codes.dtype != torch.int8 or codes.shape != (self.out_features, self.in_features):
            errors.append(f"'{name}' must be int8 ({self.out_features}, {self.in_features}), but {op.described(codes)} came")
            return
        self._hold(codes.to(self.scales.device))


def _sizes(inputs: Tensor, width: int) -> Tensor:
    """Return the root mean square of each input over a sample (…, width): (width,) float32."""
    if inputs.dim() < 1 or inputs.shape[-1] != width or not inputs.numel():
        wanted = f"float32 (rows, {width}), at least one row"
        raise op.refuse("Int8Linear.from_linear", "inputs", wanted, op.described(inputs), "give a sample of what the layer is given")
    sizes = inputs.detach().reshape(-1, width).double().square().mean(0).sqrt().float()
    if not bool(torch.isfinite(sizes).all()):
        raise op.refuse("Int8Linear.from_linear", "inputs", "finite", "nan or inf", "leave those rows out")
    return sizes
