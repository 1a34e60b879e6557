"""Fewer layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from compress_rec.encoder import Encoder
from compress_rec.errors import CompressRecError
from compress_rec.recipe import Lesson, Recipe, needs_layers
from compress_rec.towers import Tower
from compress_rec.weights import shared_names

TEXTS = 64


@dataclass(frozen=True)
class DropLayers(Recipe):
    """Remove whole transformer layers; those that stay follow one another as they are.

    keep: how many layers stay
    choose: ``tried`` removes, one at a time, the layer whose absence moves the vectors of 64 training texts a role least; ``evenly`` keeps
        the first and the last layer and others at equal distances
    which: the numbers of the layers that stay, ascending from 0, instead of both

    *Paper*: Sajjad et al. 2023, "On the Effect of Dropping Layers of Pre-trained Transformer Models" (arXiv 2004.03844); the initial
    layers of a distilled student as in Sanh et al. 2019, "DistilBERT" (arXiv 1910.01108).

    *When it helps*: latency falls by the share of layers removed, on every machine and in every runtime, and the result is still
    a plain BertModel. With `distill` behind it, it is hard to beat at a given latency.

    *When it does not*: alone. Without recovery the vectors move further than with whitened factors at the same number of operations.
    Models of few layers leave little to choose.

    *Cost*: ``evenly`` and ``which`` nothing; ``tried`` encodes the 64 texts a role once for every layer that could go: about 25 CPU
    seconds for 3 of MiniLM's 6.
    """

    keep: int = 3
    choose: Literal["tried", "evenly"] = "tried"
    which: tuple[int, ...] = ()

    name: ClassVar[str] = "drop_layers"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes", "operations"})

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise CompressRecError(f"'keep' of 'drop_layers' must be at least 1, but {self.keep} came: 'static' leaves no layer at all")
        if self.choose not in ("tried", "evenly"):
            raise CompressRecError(f"'choose' of 'drop_layers' must be tried or evenly, but {self.choose!r} came")
        if any(not isinstance(number, int) or number < 0 for number in self.which) or list(self.which) != sorted(set(self.which)):
            raise CompressRecError(
                f"'which' of 'drop_layers' must be layer numbers, ascending from 0, each once, but {list(self.which)!r} came"
            )

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        count = len(tower.encoder.config.layers)
        if self.which:
            if self.which[-1] >= count:
                raise CompressRecError(
                    f"'which' of 'drop_layers' names layer {self.which[-1]}, but the tower has 0 to {count - 1}: name those that stay"
                )
            kept: Sequence[int] = self.which
        elif self.keep > count:
            raise CompressRecError(f"'drop_layers' should keep {self.keep} layers, but the tower has {count}: use a smaller keep")
        elif self.choose == "evenly":
            kept = evenly(count, self.keep)
        else:
            kept = _tried(tower, lesson, self.keep)
        return tower.rebuilt(with_layers(tower.encoder, kept))


def evenly(count: int, keep: int) -> list[int]:
    """Return ``keep`` of ``count`` layers at equal distances, the first and the last among them (the last alone where one is kept)."""
    if keep == 1:
        return [count - 1]
    return [round(place * (count - 1) / (keep - 1)) for place in range(keep)]


def with_layers(encoder: Encoder, kept: Sequence[int]) -> Encoder:
    """Return the encoder with these layers only, renumbered in their order; shared factors that no layer uses any more are gone."""
    config, formats, tensors = encoder.config, {}, {}
    places = {f"layers.{old}.": f"layers.{new}." for new, old in enumerate(kept)}

    def renamed(name: str) -> str | None:
        if not name.startswith("layers."):
            return name
        stem = ".".join(name.split(".")[:2]) + "."
        return None if stem not in places else places[stem] + name[len(stem) :]

    for name, form in config.formats.items():
        if (new := renamed(name)) is not None:
            formats[new] = form
    used = {name for form in formats.values() for name in shared_names(form)}
    shared = {name: form for name, form in config.shared.items() if name in used}
    for name, tensor in encoder.tensors().items():
        new = renamed(name)
        if new is not None and (not name.startswith("shared.") or name.split(".")[1] in used):
            tensors[new] = tensor
    layers = tuple(config.layers[number] for number in kept)
    return encoder.rebuilt(replace(config, layers=layers, formats=formats, shared=shared), tensors)


def _tried(tower: Tower, lesson: Lesson, keep: int) -> list[int]:
    """Return the layers that stay when, again and again, the one goes whose absence moves the vectors least."""
    kept = list(range(len(tower.encoder.config.layers)))
    rows = {role: lesson.sample(role, TEXTS) for role, *_ in lesson.groups()}

    def harm(layers: Sequence[int]) -> float:
        student = tower.rebuilt(with_layers(tower.encoder, layers))
        total = 0.0
        for role, chosen in rows.items():
            found = lesson.roles[role]
            vectors = student.encode([lesson.texts[role][row] for row in chosen], found.head, found.length)
            total += float((1 - (vectors * lesson.targets(role)[torch.tensor(chosen)]).sum(-1)).mean())
        return total

    while len(kept) > keep:
        harms = [(harm([number for number in kept if number != gone]), gone) for gone in kept]
        kept.remove(min(harms)[1])
    return kept
