"""A tower's compiled runtime: token ids to unit vectors in one call, on ragged batches, built from the tower's configuration and tensors.

Nothing is padded, every weight runs as it is stored, and a text's vector has the same bits alone and in any batch, with any number of
threads. torch's thread setting is obeyed, and other Python threads run meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from compress_rec import op
from compress_rec.encoder import Layer
from compress_rec.errors import CompressRecError
from compress_rec.int8_eights import joined, parts_of
from compress_rec.panels import ROWS as PANEL
from compress_rec.panels import packed
from compress_rec.towers import Tower, Towers
from compress_rec.weights import ChainForm, DenseForm, DiagonalForm, Form, Int8Form, SparseForm, resolve

POOLED = -1
STORED = (torch.float32, torch.int8, torch.int32)
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "tanh": "tanh",
    "identity": "identity",
}

Array = npt.NDArray[Any]


class CannotCompile(CompressRecError):
    """The compiled runtime cannot run this tower; the sentence says why."""


class Runtime:
    """Runs one tower as it was when this was made; later changes of its tensors are not seen. ``Tower`` asks it, and checks before.

    Raises ``CannotCompile`` where no compiled kernel is at hand, or the tower holds something that the runtime has no code for.
    """

    def __init__(self, tower: Tower) -> None:
        extension = op._EXTENSION
        if extension is None or extension.best_tier() == op.REFERENCE:
            raise CannotCompile(str(op.fallback("int8_linear_packed")))
        self._numbers = {name: number for number, name in enumerate(tower.heads)}
        self._dimensions = {name: tower.dimensions(name) for name in tower.heads}
        self._width = tower.encoder.config.width
        if tower.device.type != "cpu":
            raise CannotCompile(f"the compiled encoder runs on the CPU, and this tower lies on {tower.device}")
        with torch.inference_mode(), _refusing(CannotCompile):
            self._encoder = extension.Encoder(_Description(tower).told)

    @property
    def serves(self) -> bool:
        """Whether it may run at present: not while the reference tier is in force."""
        return op.tier() != op.REFERENCE

    def encode(self, ids: Array, offsets: Array, heads: Sequence[str]) -> dict[str, Tensor]:
        """Encode a ragged batch: ids (tokens,) and offsets (texts + 1,), int64 -> (texts, dimensions) float32 a head, unit length.

        Errors: ids beyond the vocabulary, offsets that do not ascend from 0 to the number of ids, an empty text, one longer than the
        encoder's positions.
        """
        out = [np.empty((len(offsets) - 1, self._dimensions[name]), np.float32) for name in heads]
        self._run(ids, offsets, [self._numbers[name] for name in heads], out)
        return {name: torch.from_numpy(vectors) for name, vectors in zip(heads, out, strict=True)}

    def pooled(self, ids: Array, offsets: Array) -> Tensor:
        """Encode a ragged batch up to the pooling: -> (texts, width) float32."""
        out = np.empty((len(offsets) - 1, self._width), np.float32)
        self._run(ids, offsets, [POOLED], [out])
        return torch.from_numpy(out)

    def profile(self, ids: Array, offsets: Array) -> dict[str, float]:
        """Encode a ragged batch on one thread, and return the milliseconds that each step took, on the clock, in the order of the steps."""
        with _refusing():
            return {step: taken / 1e6 for step, taken in self._encoder.profile(ids, offsets)}

    def _run(self, ids: Array, offsets: Array, heads: list[int], out: list[Array]) -> None:
        with _refusing():
            self._encoder.run(ids, offsets, heads, out)


@contextlib.contextmanager
def _refusing(kind: type[CompressRecError] = CompressRecError) -> Iterator[None]:
    """Let the extension's refusals leave as ours."""
    try:
        yield
    except ValueError as refusal:
        raise kind(str(refusal)) from None


def compiled(towers: Towers) -> Towers:
    """Return the recommender with every tower served by its compiled runtime where it has one; tensors are shared with this one."""
    return replace(towers, towers={name: _compiled(tower) for name, tower in towers.towers.items()})


def _compiled(tower: Tower) -> Tower:
    try:
        return tower.served_by(Runtime(tower))
    except CannotCompile as reason:
        return tower.served_by(None, str(reason))


class _Description:
    """A tower as the extension reads it: numbers, names and arrays. Equal diagonals become one array, so that rows are rounded once."""

    def __init__(self, tower: Tower) -> None:
        self._diagonals: dict[bytes, Array] = {}
        encoder, config = tower.encoder, tower.encoder.config
        words = encoder.embeddings["words"]
        if config.token_types and not config.positions:
            raise CannotCompile("the compiled encoder adds token types to positions, and this one has none")
        places = None
        if config.positions:
            places = encoder.embeddings["positions"].dense()  # type: ignore[operator]
            if config.token_types:
                places = places + encoder.embeddings["types"].dense()[0]  # type: ignore[operator]
        self.told: dict[str, Any] = {
            "width": config.width,
            "vocabulary": config.vocabulary,
            "positions": config.positions,
            "epsilon": config.epsilon,
            "activation": _activation(config.activation),
            "mean_pooling": tower.pooling == "mean",
            "word_floats": None if words.int8 else _array(words.weight),  # type: ignore[arg-type]
            "word_codes": _array(words.codes) if words.int8 else None,  # type: ignore[arg-type]
            "word_scales": _array(words.scales) if words.int8 else None,  # type: ignore[arg-type]
            "places": None if places is None else _array(places),
            "norm": _norm(encoder.embeddings["norm"]) if config.embedding_norm else None,
            "layers": [self._layer(layer, f"layers.{number}") for number, layer in enumerate(encoder.layers)],  # type: ignore[arg-type]
            "heads": [
                [
                    {"linear": self._linear(form, f"heads.{name}.{number}"), "activation": _activation(stage.activation)}
                    for number, (stage, form) in enumerate(zip(tower.head(name).stages, tower.head(name).forms(), strict=True))
                ]
                for name in tower.heads
            ],
        }

    def _layer(self, layer: Layer, place: str) -> dict[str, Any]:
        shape = layer.shape
        told: dict[str, Any] = {"heads": shape.heads, "head_width": shape.head_width}
        for name in ("query", "key", "value"):
            told[name] = self._linear(getattr(layer, name), f"{place}.{name}", (shape.heads, shape.head_width))
        for name in ("output", "up", "down"):
            told[name] = self._linear(getattr(layer, name), f"{place}.{name}")
        return told | {name: _norm(getattr(layer, name)) for name in ("attention_norm", "output_norm")}

    def _linear(self, form: Form, place: str, heads: tuple[int, int] | None = None) -> dict[str, Any]:
        """A weight as it is stored; with ``heads`` (heads, head width), every head's outputs are padded to whole panels."""
        parts = _parts(form, place)
        outputs = parts[-1].shape[0]
        bias = torch.zeros(outputs) if form.bias is None else form.bias.detach()
        order = None
        if heads is not None:
            number, width = heads
            if outputs != number * width:
                raise CannotCompile(f"the compiled encoder wants a weight of {number * width} outputs, where one of {outputs} stands")
            if width % PANEL:  # the place behind the last stands for an output of zeros
                order = F.pad(torch.arange(number * width).view(number, width), (0, -width % PANEL), value=outputs).flatten()
                bias = F.pad(bias, (0, 1))[order]
        chain, diagonal = [], None
        for position, part in enumerate(parts):
            if isinstance(part, DiagonalForm):
                diagonal = part.weight.detach() if diagonal is None else diagonal * part.weight.detach()
                continue
            chain.append(self._matrix(part, order if position == len(parts) - 1 else None, diagonal))
            diagonal = None
        if diagonal is not None or not chain:
            raise CannotCompile(f"the compiled encoder cannot run '{place}': it ends in a diagonal")
        return {"chain": chain, "bias": _array(F.pad(bias, (0, -len(bias) % PANEL)))}

    def _matrix(self, form: Form, order: Tensor | None, diagonal: Tensor | None) -> dict[str, Any]:
        outputs, inputs = form.shape
        if order is not None:
            outputs = len(order)
        told: dict[str, Any] = {"inputs": inputs, "outputs": outputs}
        if not isinstance(form, Int8Form):
            weight = form.dense().detach()
            return told | {"floats": _array(packed(_ordered(weight if diagonal is None else weight * diagonal, order)))}
        if order is None and form.parts is not None:
            held = form.parts  # as the layer's own kernel reads it
        else:
            scales = form.scales if order is None else F.pad(form.scales, (0, 1))[order]
            made = parts_of(joined(_ordered(form.codes, order), scales), outputs, inputs)
            assert made is not None
            held = made
        told |= {"bytes": _array(held.parts), "first": _array(held.first), "sums": _array(held.sums), "scales": _array(held.scales)}
        if diagonal is not None:
            array = _array(diagonal)
            told["diagonal"] = self._diagonals.setdefault(array.tobytes(), array)
        return told


def _parts(form: Form, place: str) -> list[Form]:
    """Return the matrices and diagonals that a weight is a product of, the first one first."""
    if resolve(form) is not form and resolve(form).bias is not None:
        raise CannotCompile(f"the compiled encoder cannot run '{place}': the weight it shares has a bias of its own")
    form = resolve(form)
    if isinstance(form, DenseForm | Int8Form | SparseForm | DiagonalForm):
        return [form]
    if type(form) is not ChainForm:
        raise CannotCompile(
            f"the compiled encoder cannot run '{place}', which is stored as a {type(form).__name__.removesuffix('Form').lower()}"
        )
    if any(part.bias is not None for part in form.parts):
        raise CannotCompile(f"the compiled encoder cannot run '{place}': a factor has a bias of its own")
    return [end for part in form.parts for end in _parts(part, place)]


def _ordered(weight: Tensor, order: Tensor | None) -> Tensor:
    return weight if order is None else F.pad(weight, (0, 0, 0, 1))[order]


def _norm(norm: Any) -> dict[str, Array]:
    return {name: _array(F.pad(getattr(norm, name).detach(), (0, -len(norm.weight) % PANEL))) for name in ("weight", "bias")}


def _activation(name: str) -> str:
    if name not in ACTIVATIONS:
        raise CannotCompile(f"the compiled encoder has no activation called '{name}'")
    return ACTIVATIONS[name]


def _array(tensor: Tensor) -> Array:
    if tensor.dtype not in STORED:
        raise CannotCompile(f"the compiled encoder reads float32 and int8, and this tower holds {str(tensor.dtype).removeprefix('torch.')}")
    return np.ascontiguousarray(tensor.detach().numpy())
