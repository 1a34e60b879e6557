"""Fewer attention heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress_rec.cutting import keep_inputs_fitted, keep_outputs
from compress_rec.encoder import ATTENTION, linear_tensors, with_linear
from compress_rec.importance import gate_importance
from compress_rec.recipe import Lesson, Recipe, cannot_follow, check_share, made_by, needs_gradients, needs_layers
from compress_rec.towers import Tower


@dataclass(frozen=True)
class PruneHeads(Recipe):
    """Remove attention heads and let those that stay take over what they can predict of the others; the matrices get narrower.

    A head's importance is the Fisher information of closing it, in the model's own vectors over the training texts, so no labels are
    needed and layers can be compared: the heads kept are the best of all layers together, at least one a layer. The attention's output
    weight is then refitted by least squares to give the same outputs from the heads that stay; the bias takes over the mean.

    keep: share of the heads kept, above 0 and at most 1

    *Paper*: Michel, Levy & Neubig 2019, "Are Sixteen Heads Really Better than One?" (arXiv 1905.10650), for the importance; He, Zhang &
    Sun 2017 (arXiv 1707.06168) for the refit.

    *When it helps*: with long texts, where attention itself costs, and as one of several moderate cuts before `distill`.

    *When it does not*: on short texts: heads are a third of a layer's operations, so half of them saves a sixth.

    *Cost*: one pass with gradients over at most 256 texts a role, one without over 512, and a solve a layer: about 25 CPU seconds on a
    six-layer MiniLM.
    """

    keep: float = 0.5

    name: ClassVar[str] = "prune_heads"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes", "operations"})

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        needs_gradients(self.name, tower)
        encoder, config = tower.encoder, tower.encoder.config
        for name in config.linears():
            if name.rpartition(".")[2] in ATTENTION and made_by(config.format(name), config) == "tucker":
                reason = f"'{name}' shares its factors with others, which cannot lose heads alone"
                raise cannot_follow(self.name, "tucker", reason, "put 'prune_heads' before 'tucker'")
        chosen = _best_heads(gate_importance(tower, lesson, "output"), self.keep)
        moments = lesson.moments(tower)
        tensors, layers = encoder.tensors(), list(config.layers)
        for number, heads in enumerate(chosen):
            width = layers[number].head_width
            kept = (heads[:, None] * width + torch.arange(width)).reshape(-1)
            layers[number] = replace(layers[number], heads=len(heads))
            for part in ("query", "key", "value"):
                place = f"layers.{number}.{part}"
                tensors = with_linear(tensors, place, keep_outputs(config.format(place), linear_tensors(tensors, place), place, kept))
            place = f"layers.{number}.output"
            tensors = keep_inputs_fitted(encoder, tensors, place, kept, moments[place])
        return tower.rebuilt(encoder.rebuilt(replace(config, layers=tuple(layers)), tensors))


def _best_heads(importance: list[Tensor], keep: float) -> list[Tensor]:
    """Return the heads to keep of each layer, ascending: each layer's best, then the best of all layers up to the share."""
    offers = sorted((-float(score), layer, head) for layer, scores in enumerate(importance) for head, score in enumerate(scores))
    chosen: list[list[int]] = [[int(scores.argmax())] if len(scores) else [] for scores in importance]
    budget = round(keep * len(offers)) - sum(map(len, chosen))
    for _, layer, head in offers:
        if budget > 0 and head not in chosen[layer]:
            chosen[layer].append(head)
            budget -= 1
    return [torch.tensor(sorted(heads), dtype=torch.int64) for heads in chosen]
