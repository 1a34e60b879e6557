"""Golden texts: what a model gave for them when it was written, so that whoever reads it can see that it still does."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from compress_rec.encoder import Encoder
from compress_rec.towers import Head, HeadStage, Tower
from compress_rec.weights import Chain, Dense, Format, Int8, Int8Form, Sum

GOLDEN_TEXTS = (
    "Toy Story (1995) Animation Children's Comedy",
    "the quick brown fox jumps over the lazy dog",
    "Amélie, 2001",
    "a",
    "running shoes; trail running; waterproof; size 42",
)
GOLDEN_COSINE = 0.9999
LOWEST_BOUND = 0.9


def golden_bound(tower: Tower, head: str, length: int, wanted: Tensor) -> float:
    """Return the cosine that the golden texts must reach when they are encoded again, here or elsewhere.

    0.9999 for floats. In integers every product is exact, but the float parts between them (softmax, norms) differ in the last bit from
    machine to machine and from batch to batch, and where that tips a number over the edge between two levels, everything behind it is
    rounded anew. Two roundings of one model lie apart by the sum of what each moves the vectors, so the bound is twice what rounding
    the activations moves the golden texts: between the model and the same weights with float activations. It is never below 0.9.

    wanted: (texts, dimensions) float32, what the tower gives for the golden texts through this head
    """
    if not any(isinstance(module, Int8Form) for module in tower.modules()):
        return GOLDEN_COSINE
    floats = float_activations(tower).encode(GOLDEN_TEXTS, head, length)
    return bound_from(float((1 - (wanted * floats).sum(-1)).max()))


def bound_from(moved: float) -> float:
    """Return the bound from the largest 1 − cosine that rounding the activations causes."""
    return max(LOWEST_BOUND, min(GOLDEN_COSINE, 1 - 2 * moved))


def float_activations(tower: Tower) -> Tower:
    """Return the tower with the same numbers for weights, but int8 ones stored as floats, so that activations are not rounded."""
    config, tensors = tower.encoder.config, dict(tower.encoder.tensors())
    formats = {name: _floats(form, tensors, name) for name, form in config.formats.items() if not name.startswith("embeddings.")}
    tables = {name: form for name, form in config.formats.items() if name.startswith("embeddings.")}
    shared = {name: _floats(form, tensors, f"shared.{name}") for name, form in config.shared.items()}
    encoder = Encoder(replace(config, formats={**formats, **tables}, shared=shared), tensors)
    heads = {}
    for name in tower.heads:
        head = tower.head(name)
        stored = {place: tensor.detach() for place, tensor in head.state_dict().items()}
        stages = [HeadStage(_floats(stage.format, stored, str(number)), stage.activation) for number, stage in enumerate(head.stages)]
        heads[name] = Head(stages, stored)
    return Tower(tower.tokens, encoder, tower.pooling, heads)


def _floats(form: Format, tensors: dict[str, Tensor], place: str) -> Format:
    """Replace the int8 tensors at ``place`` by float ones, and return the format that goes with them."""
    match form:
        case Int8():
            tensors[f"{place}.weight"] = tensors.pop(f"{place}.codes").float() * tensors.pop(f"{place}.scales")[:, None]
            return Dense()
        case Chain(parts) | Sum(parts):
            inner = tuple(_floats(part, tensors, f"{place}.{number}") for number, part in enumerate(parts))
            return Chain(inner) if isinstance(form, Chain) else Sum(inner)
        case _:
            return form
