"""The forms a weight can be stored and run in: dense, int8, sparse, diagonal, chains and sums of them, and one shared by several places.

A ``Format`` is a tree of frozen values that says how a matrix is stored; a ``Form`` is the module that runs it as stored. Bias vectors are
always dense and belong to the outermost form. Tensor names are the place's name and a suffix: ``.weight``; ``.codes`` and ``.scales``;
``.mask``, ``.values`` and ``.shape``; and the part's number for chains and sums: ``layers.0.query.1.weight``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress_rec.errors import CompressRecError
from compress_rec.int8_layer import Int8Linear
from compress_rec.low_rank_layer import low_rank, panels_of_factors
from compress_rec.ops.int8_embedding import int8_embedding
from compress_rec.ops.int8_linear import quantize_per_channel
from compress_rec.sparse import unpack_sparse


@dataclass(frozen=True)
class Dense:
    """float32 as it is."""

    kind: ClassVar[str] = "dense"


@dataclass(frozen=True)
class Int8:
    """Signed bytes with one float32 scale an output row."""

    kind: ClassVar[str] = "int8"


@dataclass(frozen=True)
class Sparse:
    """A bit a place and float32 values where the bit is set; it saves bytes only, since dense rows are rebuilt at load."""

    kind: ClassVar[str] = "sparse"


@dataclass(frozen=True)
class Diagonal:
    """A float32 number an input, by which it is multiplied: what stands before an int8 weight whose inputs differ much in size."""

    kind: ClassVar[str] = "diagonal"


@dataclass(frozen=True)
class Chain:
    """A product, run factor by factor, the first one first."""

    parts: tuple[Format, ...]
    kind: ClassVar[str] = "chain"


@dataclass(frozen=True)
class Sum:
    """A sum of forms over the same input."""

    parts: tuple[Format, ...]
    kind: ClassVar[str] = "sum"


@dataclass(frozen=True)
class Shared:
    """A factor that several places use and that is stored once, under its own name among the encoder's shared weights."""

    name: str
    kind: ClassVar[str] = "shared"


Format = Dense | Int8 | Sparse | Diagonal | Chain | Sum | Shared
DENSE = Dense()
_PLAIN: Mapping[str, Format] = {"dense": DENSE, "int8": Int8(), "sparse": Sparse(), "diagonal": Diagonal()}


def format_to_json(form: Format) -> Any:
    """Return ``"dense"``, ``"int8"``, ``"sparse"``, ``"diagonal"``, ``{"chain": […]}``, ``{"sum": […]}`` or ``{"shared": name}``."""
    match form:
        case Chain(parts) | Sum(parts):
            return {form.kind: [format_to_json(part) for part in parts]}
        case Shared(name):
            return {"shared": name}
        case _:
            return form.kind


def format_from_json(value: Any) -> Format:
    """Read what ``format_to_json`` wrote; an unknown kind is refused by name."""
    if isinstance(value, str) and value in _PLAIN:
        return _PLAIN[value]
    if isinstance(value, Mapping) and len(value) == 1:
        kind, inner = next(iter(value.items()))
        if kind in ("chain", "sum") and isinstance(inner, list) and inner:
            parts = tuple(format_from_json(part) for part in inner)
            return Chain(parts) if kind == "chain" else Sum(parts)
        if kind == "shared" and isinstance(inner, str):
            return Shared(inner)
    raise CompressRecError(
        f"a weight's format must be one of dense, int8, sparse, diagonal, chain, sum or shared, but {value!r} came: "
        "was the folder written by a newer version?"
    )


def shared_names(form: Format) -> Iterator[str]:
    """Yield the names of the shared weights that ``form`` refers to."""
    match form:
        case Shared(name):
            yield name
        case Chain(parts) | Sum(parts):
            for part in parts:
                yield from shared_names(part)
        case _:
            return


class Form(nn.Module, ABC):
    """A linear map run as it is stored: ``x (…, inputs) -> (…, outputs)``, with an optional bias (outputs,)."""

    bytes_only: ClassVar[bool] = False
    bias: nn.Parameter | None

    def __init__(self, bias: Tensor | None) -> None:
        super().__init__()
        self.bias = None if bias is None else nn.Parameter(bias)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(outputs, inputs)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """(…, inputs) float32 -> (…, outputs) float32."""

    @abstractmethod
    def dense(self) -> Tensor:
        """The same map as one matrix (outputs, inputs) float32: for analysis, never for running."""

    @abstractmethod
    def operations(self) -> int:
        """Multiplications a row of x costs."""


class DenseForm(Form):
    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.weight = nn.Parameter(weight)

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def dense(self) -> Tensor:
        return self.weight

    def operations(self) -> int:
        return self.weight.numel()


class Int8Form(Int8Linear, Form):
    """Without numbers of its own before x: those are a ``DiagonalForm``."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.out_features, self.in_features

    def dense(self) -> Tensor:
        return self.codes.float() * self.scales[:, None]

    def operations(self) -> int:
        return self.out_features * self.in_features


class SparseForm(Form):
    bytes_only = True
    mask: Tensor
    values: Tensor
    extent: Tensor
    _weight: Tensor

    def __init__(self, mask: Tensor, values: Tensor, extent: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self.register_buffer("mask", mask)
        self.register_buffer("values", values)
        self.register_buffer("extent", extent)
        self.register_buffer("_weight", unpack_sparse(mask, values, extent), persistent=False)

    @property
    def shape(self) -> tuple[int, int]:
        return self._weight.shape[0], self._weight.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self.bias)

    def dense(self) -> Tensor:
        return self._weight

    def operations(self) -> int:
        return self._weight.numel()


class DiagonalForm(Form):
    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.weight = nn.Parameter(weight, requires_grad=False)  # what it is folded into takes no gradient either

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.weight), len(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.weight
        return y if self.bias is None else y + self.bias

    def dense(self) -> Tensor:
        return torch.diag(self.weight)

    def operations(self) -> int:
        return self.weight.numel()


class ChainForm(Form):
    def __init__(self, parts: tuple[Form, ...], bias: Tensor | None = None) -> None:
        super().__init__(bias)
        for number, part in enumerate(parts):
            self.add_module(str(number), part)
        self.length = len(parts)
        self._panels = panels_of_factors()
        if self.bias is not None and any(isinstance(resolve(part), Int8Form) for part in parts):
            self.bias.requires_grad_(False)

    @property
    def parts(self) -> tuple[Form, ...]:
        return tuple(getattr(self, str(number)) for number in range(self.length))

    @property
    def shape(self) -> tuple[int, int]:
        return self.parts[-1].shape[0], self.parts[0].shape[1]

    def forward(self, x: Tensor) -> Tensor:
        *early, before, last = self.parts
        diagonal: Tensor | None = None  # what stands before an int8 weight is multiplied where its rows are rounded
        for part, following in pairwise((*early, before)):
            x, diagonal = _step(x, part, diagonal, following)
        inner, outer = resolve(before), resolve(last)
        if isinstance(inner, DenseForm) and isinstance(outer, DenseForm):
            return low_rank(x, inner.weight, outer.weight, self.bias, self._panels)
        x, diagonal = _step(x, before, diagonal, last)
        if isinstance(outer, Int8Form):
            return outer.product(x, self.bias, diagonal)
        x = outer(x)
        return x if self.bias is None else x + self.bias

    def dense(self) -> Tensor:
        whole = self.parts[0].dense()
        for part in self.parts[1:]:
            whole = part.dense() @ whole
        return whole

    def operations(self) -> int:
        return sum(part.operations() for part in self.parts)


def _step(x: Tensor, part: Form, diagonal: Tensor | None, following: Form) -> tuple[Tensor, Tensor | None]:
    """Run one factor of a chain, or hand a diagonal on to the int8 weight that follows."""
    form = resolve(part)
    if isinstance(form, DiagonalForm) and form.bias is None and diagonal is None and isinstance(resolve(following), Int8Form):
        return x, form.weight
    if isinstance(form, Int8Form) and diagonal is not None:
        return form.product(x, None, diagonal), None
    return part(x), None


class SumForm(ChainForm):
    @property
    def shape(self) -> tuple[int, int]:
        return self.parts[0].shape

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.parts[0](x)
        for part in self.parts[1:]:
            total = total + part(x)
        return total if self.bias is None else total + self.bias

    def dense(self) -> Tensor:
        total = self.parts[0].dense()
        for part in self.parts[1:]:
            total = total + part.dense()
        return total


class SharedForm(Form):
    """A reference to a form that the encoder owns; it holds no tensor of its own but the bias."""

    def __init__(self, owner: Form, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        # in a tuple, so that the owner's tensors are not listed a second time under this name
        self._owner = (owner,)

    @property
    def owner(self) -> Form:
        return self._owner[0]

    @property
    def shape(self) -> tuple[int, int]:
        return self.owner.shape

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.owner(x)
        return y if self.bias is None else y + self.bias

    def dense(self) -> Tensor:
        return self.owner.dense()

    def operations(self) -> int:
        return self.owner.operations()


def resolve(form: Form) -> Form:
    """Return the form itself, or the one it shares."""
    return form.owner if isinstance(form, SharedForm) else form


def build_form(form: Format, tensors: Mapping[str, Tensor], place: str, shared: Mapping[str, Form]) -> Form:
    """Build the module for the weight at ``place`` from its tensors; a missing tensor is refused by name."""
    bias = tensors.get(f"{place}.bias")

    def take(suffix: str) -> Tensor:
        name = f"{place}.{suffix}"
        if name not in tensors:
            raise CompressRecError(f"the tensor '{name}' is missing: its format says {format_to_json(form)!r}; save the model again")
        return tensors[name]

    match form:
        case Dense():
            return DenseForm(take("weight"), bias)
        case Int8():
            return Int8Form(take("codes"), take("scales"), bias)
        case Diagonal():
            return DiagonalForm(take("weight"), bias)
        case Sparse():
            return SparseForm(take("mask"), take("values"), take("extent"), bias)
        case Chain(parts) | Sum(parts):
            built = tuple(build_form(part, tensors, f"{place}.{number}", shared) for number, part in enumerate(parts))
            return ChainForm(built, bias) if isinstance(form, Chain) else SumForm(built, bias)
        case Shared(name):
            if name not in shared:
                raise CompressRecError(
                    f"'{place}' shares a weight called '{name}', which the configuration does not list: save the model again"
                )
            return SharedForm(shared[name], bias)


class Embedding(nn.Module):
    """Rows looked up by id: (…) int64 -> (…, width) float32; stored dense or in int8."""

    def __init__(self, form: Format, tensors: Mapping[str, Tensor], place: str) -> None:
        super().__init__()
        self.int8 = isinstance(form, Int8)
        wanted = ("codes", "scales") if self.int8 else ("weight",)
        if not self.int8 and not isinstance(form, Dense):
            raise CompressRecError(f"the embedding '{place}' can be dense or int8, but {format_to_json(form)!r} came: choose one of them")
        for suffix in wanted:
            if f"{place}.{suffix}" not in tensors:
                raise CompressRecError(f"the tensor '{place}.{suffix}' is missing: save the model again")
            tensor = tensors[f"{place}.{suffix}"]
            if self.int8:
                self.register_buffer(suffix, tensor)
            else:
                self.weight = nn.Parameter(tensor)

    def forward(self, ids: Tensor) -> Tensor:
        if self.int8:
            return int8_embedding(ids, self.codes, self.scales)  # type: ignore[arg-type]
        return F.embedding(ids, self.weight)

    def dense(self) -> Tensor:
        """(rows, width) float32."""
        return self.codes.float() * self.scales[:, None] if self.int8 else self.weight  # type: ignore[operator,index,union-attr]


def int8_tensors(weight: Tensor, place: str, quantize: Callable[..., tuple[Tensor, Tensor]] = quantize_per_channel) -> dict[str, Tensor]:
    """Quantise (outputs, inputs) float32 to the tensors that ``Int8`` wants at ``place``."""
    codes, scales = quantize(weight.detach())
    return {f"{place}.codes": codes, f"{place}.scales": scales}
