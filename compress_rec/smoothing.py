"""How an int8 weight's inputs are brought to one size, so that rounding a token to 127 levels is kind to all of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from compress_rec.recipe import Lesson
from compress_rec.smooth_quant import smooth_quant
from compress_rec.towers import Tower
from compress_rec.weights import ChainForm, DenseForm, Form, SparseForm

TEXTS = 128  # a role: sizes of inputs are known well from a few thousand tokens


def divisors(tower: Tower, lesson: Lesson, strength: float) -> Mapping[str, Tensor]:
    """Return by what the inputs of each linear weight should be divided, and its columns multiplied: (inputs,) float32 by its name.

    As ``smooth_quant`` says, with the sizes of training texts. Query, key and value read the same input and get the same divisors, so
    that it is rounded once. What attention hands on is left as it is, since its rounding hardly shows; weights that begin with
    a shared factor too, which several places read.
    """
    moments = lesson.moments(tower, TEXTS)
    found: dict[str, Tensor] = {}
    for number, layer in enumerate(tower.encoder.layers):
        for parts in (("query", "key", "value"), ("up",), ("down",)):
            first = [_first(getattr(layer, part)) for part in parts]
            known = [weight for weight in first if weight is not None]
            if len(known) < len(first) or not known[0].numel():
                continue
            size = moments[f"layers.{number}.{parts[0]}"].second.diagonal().clamp_min(0).sqrt().float()
            divisor = smooth_quant(size, torch.cat(known).abs().amax(0), strength)
            found.update({f"layers.{number}.{part}": divisor for part in parts})
    return found


def _first(form: Form) -> Tensor | None:
    """Return the first float matrix that an input meets, (outputs, inputs); ``None`` where it is no place's own."""
    inner = form.parts[0] if type(form) is ChainForm else form
    return inner.dense().detach() if isinstance(inner, DenseForm | SparseForm) else None
