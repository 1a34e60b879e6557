"""A linear layer in int8 for a serving stack: the weight packed once, an activation scale a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.int8_panels import Int8Panels, pack, unpack
from compress_rec.ops.int8_linear import int8_linear, quantize_per_channel
from compress_rec.ops.int8_linear_packed import int8_linear_packed


class Int8Linear(nn.Module):
    """``x @ (codes * scales).T + bias`` in integers, as ``ops.int8_linear`` specifies it.

    codes: (outputs, inputs) int8, -127 … 127
    scales: (outputs,) float32
    bias: (outputs,) float32

    A row of x has the same bits alone and in any batch. Where a compiled kernel serves, the codes are held as it reads them and nowhere
    else; ``state_dict`` holds ``codes``, ``scales`` and ``bias`` all the same, so that files do not depend on the machine. No gradient
    passes.
    """

    scales: Tensor
    bias: nn.Parameter | None
    _codes: Tensor
    _packed: tuple[Tensor, ...] | None

    def __init__(self, codes: Tensor, scales: Tensor, bias: Tensor | None = None) -> None:
        nn.Module.__init__(self)  # also where a subclass has a second parent that wants arguments
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("scales", scales)
        self._hold(codes)

    @classmethod
    def from_linear(cls, linear: nn.Linear) -> Int8Linear:
        """Quantise a float layer, a scale an output; it keeps its own tensors. Errors: NaN or infinity in the weight."""
        if not isinstance(linear, nn.Linear):
            raise CompressRecError(f"Int8Linear.from_linear wants a torch.nn.Linear, but {type(linear).__name__} came: give one layer")
        codes, scales = quantize_per_channel(linear.weight)
        return cls(codes, scales, None if linear.bias is None else linear.bias.detach().float().clone())

    @property
    def codes(self) -> Tensor:
        """(outputs, inputs) int8, unpacked where they are held packed."""
        return self._codes if self._packed is None else unpack(Int8Panels(*self._packed), self.in_features)

    @property
    def backend(self) -> str:
        """Which kernel serves: ``"reference"`` or an instruction tier."""
        return op.backend("int8_linear_packed" if self._packed is not None else "int8_linear")

    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) float32 -> (…, outputs) float32."""
        return self.product(x, self.bias)

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """The same with another bias, or none."""
        packed = self._packed
        if packed is None:
            y: Tensor = int8_linear(x, self._codes, self.scales, bias)
        else:
            y = int8_linear_packed(x, *packed, self.scales, bias)
        return y

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}, backend='{self.backend}'"

    def _hold(self, codes: Tensor) -> None:
        self.out_features, self.in_features = codes.shape
        served = codes.device.type == "cpu" and op.backend("int8_linear_packed") != op.REFERENCE
        self._packed = tuple(pack(codes)) if served else None
        held = {"codes": codes} if self._packed is None else dict(zip(Int8Panels._fields, self._packed, strict=True))
        # buffers too, so that whoever counts a module's memory finds them; the tuple, since looking up buffers takes as long as a small
        # product
        for name in ("codes", *Int8Panels._fields):
            self._buffers.pop(f"_{name}", None)
            if name in held:
                self.register_buffer(f"_{name}", held[name], persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Int8Linear:
        codes = self.codes
        super()._apply(fn, recurse)
        self._hold(fn(codes))
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
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
