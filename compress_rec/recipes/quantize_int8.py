"""Every linear weight and the word embeddings in int8."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from compress_rec.encoder import linear_tensors, with_linear
from compress_rec.errors import CompressRecError
from compress_rec.int8_eights import quantize_by_eights
from compress_rec.recipe import Lesson, Recipe, cannot_follow, leaves
from compress_rec.smoothing import divisors
from compress_rec.sparse import unpack_sparse
from compress_rec.towers import Tower
from compress_rec.weights import Chain, Diagonal, Format, Int8, Shared, Sparse, Sum, int8_tensors


@dataclass(frozen=True)
class QuantizeInt8(Recipe):
    """Weights in int8 with a scale an output, activations in 7 bits with a scale a token; a quarter of the bytes.

    Every linear weight of the encoder, factors inside low-rank weights included, and the word embeddings (one scale a piece). Heads,
    position embeddings, biases and norms stay float: they are small, and the heads end in the vectors that are compared. Nothing is
    learned: weights are rounded to the nearest step, symmetrically, at the smallest scale at which the kernel's sums of eight products
    fit in 16 bits; activations are rounded as they come, each token by itself, so a text's vector does not depend on its batch. The
    inputs of a weight are brought to one size before that, by divisors that its columns are multiplied with: a few of BERT's inputs are
    many times as large as the rest, which would share what levels they leave.

    embeddings: whether the word embeddings are rounded too
    smooth: how much of an input's size its divisor takes over, 0 to below 1; 0 rounds the inputs as they are

    *Paper*: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference"
    (arXiv 1712.05877), equations 1-4; per-token scales as in Yao et al. 2022, "ZeroQuant" (arXiv 2206.01861); divisors as in Xiao et al.
    2023, "SmoothQuant" (arXiv 2211.10438), equation 4.

    *When it helps*: nearly always, and last in a chain. The lists it changes are few beside those of any other recipe of this size;
    a kernel that multiplies bytes makes it faster as well.

    *When it does not*: before anything that trains or decomposes: gradients do not pass through bytes, so `distill` and the rest
    come first. On the reference ops it is smaller but not faster. After `prune_weights` it stores the zeros as bytes, so a matrix that
    keeps less than a fifth of its weights would be smaller without it.

    *Cost*: one pass over at most 128 texts a role, a few CPU seconds; without `smooth` well below one for 20 million weights.
    """

    embeddings: bool = True
    smooth: float = 0.5

    name: ClassVar[str] = "quantize_int8"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes"})

    def __post_init__(self) -> None:
        if not 0 <= self.smooth < 1:
            raise CompressRecError(
                f"'smooth' of 'quantize_int8' must be at least 0 and below 1, but {self.smooth!r} came: 0.5 is usual, 0 switches it off"
            )

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        encoder, config = tower.encoder, tower.encoder.config
        tensors = encoder.tensors()
        formats, shared = dict(config.formats), dict(config.shared)
        words = "embeddings.words"
        places = [config.format(name) for name in config.linears()]
        todo = any(not isinstance(end, Int8 | Diagonal) for form in places for end in leaves(form, config))
        if not todo and not (self.embeddings and not isinstance(config.format(words), Int8)):
            raise cannot_follow(self.name, self.name, "every weight is in int8 already", "leave the second one out")
        smooth = divisors(tower, lesson, self.smooth) if self.smooth and todo else {}
        for name in config.linears():
            formats[name], new = _quantized(config.format(name), linear_tensors(tensors, name), name, smooth.get(name))
            tensors = with_linear(tensors, name, new)
        for key, form in config.shared.items():
            place = f"shared.{key}"
            shared[key], new = _quantized(form, linear_tensors(tensors, place), place)
            tensors = with_linear(tensors, place, new)
        if self.embeddings and not isinstance(config.format(words), Int8):
            formats[words] = Int8()
            tensors = with_linear(tensors, words, int8_tensors(tensors[f"{words}.weight"], words))
        return tower.rebuilt(encoder.rebuilt(replace(config, formats=formats, shared=shared), tensors))


def _quantized(form: Format, tensors: Mapping[str, Tensor], place: str, divisor: Tensor | None = None) -> tuple[Format, dict[str, Tensor]]:
    """Return the int8 twin of a stored weight, its inputs divided first: its format and its tensors, without the bias."""
    if divisor is not None:
        parts = form.parts if isinstance(form, Chain) else (form,)
        stored = dict(tensors) if isinstance(form, Chain) else {name.replace(place, f"{place}.0", 1): t for name, t in tensors.items()}
        first = _float_weight(parts[0], stored, f"{place}.0") * divisor
        new = {f"{place}.0.weight": 1 / divisor, **int8_tensors(first, f"{place}.1", quantize_by_eights)}
        formats: list[Format] = [Diagonal(), Int8()]
        for number, part in enumerate(parts[1:], 1):
            inner, found = _quantized(part, stored, f"{place}.{number}")
            formats.append(inner)
            new |= {name.replace(f"{place}.{number}", f"{place}.{number + 1}", 1): tensor for name, tensor in found.items()}
        return Chain(tuple(formats)), new
    match form:
        case Chain(parts) | Sum(parts):
            done = [_quantized(part, tensors, f"{place}.{number}") for number, part in enumerate(parts)]
            return type(form)(tuple(part for part, _ in done)), {name: tensor for _, new in done for name, tensor in new.items()}
        case Int8():
            return form, {name: tensors[name] for name in (f"{place}.codes", f"{place}.scales")}
        case Diagonal():
            return form, {f"{place}.weight": tensors[f"{place}.weight"]}
        case Shared():
            return form, {}
        case _:
            return Int8(), int8_tensors(_float_weight(form, tensors, place), place, quantize_by_eights)


def _float_weight(form: Format, tensors: Mapping[str, Tensor], place: str) -> Tensor:
    if isinstance(form, Sparse):
        return unpack_sparse(tensors[f"{place}.mask"], tensors[f"{place}.values"], tensors[f"{place}.extent"])
    return tensors[f"{place}.weight"]
