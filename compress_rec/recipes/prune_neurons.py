"""Fewer neurons in the middle of the feed-forward halves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress_rec.cutting import keep_inputs_fitted, keep_outputs
from compress_rec.encoder import linear_tensors, with_linear
from compress_rec.importance import gate_importance
from compress_rec.recipe import Lesson, Recipe, check_share, needs_gradients, needs_layers
from compress_rec.towers import Tower

GROUP = 8


@dataclass(frozen=True)
class PruneNeurons(Recipe):
    """Remove feed-forward neurons and let those that stay take over what they can predict of the others; the matrices get narrower.

    A neuron's importance is the Fisher information of closing it, in the model's own vectors over the training texts, so no labels are
    needed and layers can be compared: the neurons kept are the best of all layers together, in groups of eight (whole registers), at
    least one group a layer. ``down`` is then refitted by least squares to give the same outputs from the neurons that stay, in closed
    form from their covariance; the bias takes over the mean.

    keep: share of the neurons kept, above 0 and at most 1

    *Paper*: Molchanov et al. 2017, "Pruning Convolutional Neural Networks for Resource Efficient Inference" (arXiv 1611.06440), for the
    importance; He, Zhang & Sun 2017 (arXiv 1707.06168) for the refit.

    *When it helps*: two thirds of a layer's operations are in its feed-forward half, and dense narrower matrices are faster on every
    machine, with no kernel of their own. A good start for `distill`.

    *When it does not*: below a quarter or so the refit has too little left to work with. Neurons of a weight that is stored sparse are
    removed without a refit, since that would fill its zeros.

    *Cost*: one pass with gradients over at most 256 texts a role, one without over 512, and a solve a layer: about 25 CPU seconds on a
    six-layer MiniLM.
    """

    keep: float = 0.5

    name: ClassVar[str] = "prune_neurons"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes", "operations"})

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep)

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        needs_gradients(self.name, tower)
        encoder, config = tower.encoder, tower.encoder.config
        chosen = _best_groups(gate_importance(tower, lesson, "down"), self.keep)
        moments = lesson.moments(tower)
        tensors, layers = encoder.tensors(), list(config.layers)
        for number, kept in enumerate(chosen):
            up, down = f"layers.{number}.up", f"layers.{number}.down"
            layers[number] = replace(layers[number], neurons=len(kept))
            tensors = with_linear(tensors, up, keep_outputs(config.format(up), linear_tensors(tensors, up), up, kept))
            tensors = keep_inputs_fitted(encoder, tensors, down, kept, moments[down])
        return tower.rebuilt(encoder.rebuilt(replace(config, layers=tuple(layers)), tensors))


def _best_groups(importance: list[Tensor], keep: float) -> list[Tensor]:
    """Return the neurons to keep of each layer, ascending: the best of all layers in groups of ``GROUP``, at least one group a layer."""
    ordered = [torch.argsort(scores, descending=True, stable=True) for scores in importance]
    offers = []
    for layer, (scores, order) in enumerate(zip(importance, ordered, strict=True)):
        for start in range(GROUP, len(scores), GROUP):
            rows = order[start : start + GROUP]
            offers.append((-float(scores[rows].mean()), layer, len(rows)))
    counts = [min(GROUP, len(scores)) for scores in importance]
    budget = round(keep * sum(len(scores) for scores in importance)) - sum(counts)
    # within a layer the offers get worse, so taking the best of all takes each layer's in order
    for _, layer, size in sorted(offers):
        if size <= budget:
            counts[layer] += size
            budget -= size
    return [order[:count].sort().values for order, count in zip(ordered, counts, strict=True)]
