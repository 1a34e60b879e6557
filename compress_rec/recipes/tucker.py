"""Query, key and value of a layer as small cores between two factors that they share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from tensorly.decomposition import partial_tucker
from torch import Tensor

from compress_rec.encoder import with_linear
from compress_rec.errors import CompressRecError
from compress_rec.recipe import Lesson, Moments, Recipe, cannot_follow, check_share, made_by, needs_layers
from compress_rec.towers import Tower
from compress_rec.weights import DENSE, Chain, Format, Shared

STACKED = ("query", "key", "value")


@dataclass(frozen=True)
class Tucker(Recipe):
    """Tucker decomposition of each layer's query, key and value, stacked: a core each, and an input and an output factor that all share.

    The stack (3, outputs, inputs) is decomposed along its last two axes: W_i = A G_i B, with B (rank, inputs) and A (outputs, rank)
    stored once a layer and G_i (rank, rank) a matrix. It runs as stored: B, then the core, then A. Before the decomposition the inputs
    are scaled by the root of their covariance on the training texts, and scaled back after it, so that the error of the outputs is made
    small and not that of the weights; the mean's share moves into the bias. The attention's output weight reads another input and stays
    as it is.

    keep: share of the parameters of query, key and value kept, above 0 and below 1; rank solves 2 rank width + 3 rank² = keep 3 width²
    iterations: rounds of higher-order orthogonal iteration

    *Paper*: Tucker 1966; De Lathauwer, De Moor & Vandewalle 2000, "On the Best Rank-1 and Rank-(R1, R2, ..., RN) Approximation of
    Higher-Order Tensors", as in TensorLy (Kossaifi et al. 2019); for BERT's weights, Wang et al. 2022, "Exploring Extreme Parameter
    Compression for Pre-trained Language Models" (arXiv 2205.10036).

    *When it helps*: where bytes count more than time: at the same parameters its rank is higher than that of `factorize`, since the factors
    are stored once for three matrices, and `distill` can train all of it.

    *When it does not*: it runs all three products for each of the three matrices, so at the same parameters it does about twice
    the operations of `factorize`; above roughly 45 % of the parameters it would do more than the dense weights, and is refused. On
    MiniLM, `factorize` by ``fisher`` over all weights is closer to the uncompressed vectors at half the operations and fewer bytes.

    *Cost*: a singular value decomposition of width x 3 rank numbers a round and axis; with 5 rounds, about 20 CPU seconds on a six-layer
    MiniLM, calibration included. Large ranks and many rounds take minutes and gain little.
    """

    keep: float = 0.3
    iterations: int = 5

    name: ClassVar[str] = "tucker"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes", "operations"})

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep, below_one=True)
        if self.iterations < 1:
            raise CompressRecError(f"'iterations' of 'tucker' must be at least 1, but {self.iterations} came: 5 are usual")

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        encoder, config = tower.encoder, tower.encoder.config
        for name in config.linears():
            earlier = made_by(config.format(name), config)
            if name.rpartition(".")[2] in STACKED and earlier is not None:
                way_out = "leave the second one out" if earlier == self.name else f"put 'tucker' before '{earlier}', or leave one out"
                if earlier == "factorize":
                    way_out = "factorise parts = feed_forward only, or leave one of them out"
                raise cannot_follow(self.name, earlier, f"'{name}' is not stored dense any more", way_out)
        moments = lesson.moments(tower)
        tensors = encoder.tensors()
        formats: dict[str, Format] = dict(config.formats)
        shared: dict[str, Format] = dict(config.shared)
        for number in range(len(config.layers)):
            places = [f"layers.{number}.{part}" for part in STACKED]
            seen = moments[places[0]]
            stack = torch.stack([encoder.linear(place).dense().detach().double() for place in places])
            outer, cores, inner = self._decomposed(stack, seen, places[0], lesson.seed)
            ends = (f"layer_{number}_inputs", f"layer_{number}_outputs")
            for end, factor in zip(ends, (inner, outer), strict=True):
                shared[end] = DENSE
                tensors[f"shared.{end}.weight"] = factor.float()
            for place, weight, core in zip(places, stack, cores, strict=True):
                formats[place] = Chain((Shared(ends[0]), DENSE, Shared(ends[1])))
                new = {f"{place}.1.weight": core.float()}
                if f"{place}.bias" in tensors:
                    new[f"{place}.bias"] = (tensors[f"{place}.bias"].double() + (weight - outer @ core @ inner) @ seen.mean).float()
                tensors = with_linear(tensors, place, new)
        return tower.rebuilt(encoder.rebuilt(replace(config, formats=formats, shared=shared), tensors))

    def _decomposed(self, stack: Tensor, seen: Moments, place: str, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Decompose a stack (3, outputs, inputs): return A (outputs, rank), the cores (3, rank, rank) and B (rank, inputs)."""
        _, outputs, inputs = stack.shape
        rank = self._rank(outputs, inputs, place)
        values, vectors = torch.linalg.eigh(seen.covariance)
        values = values.clamp_min(0) + 1e-6 * float(values.mean()) + 1e-30
        root, back = (vectors * values.sqrt()) @ vectors.T, (vectors / values.sqrt()) @ vectors.T
        scaled = (stack @ root).numpy()
        # the matrices differ in size by what follows them; each gets the same say
        sizes = np.linalg.norm(scaled, axis=(1, 2), keepdims=True)
        (core, (left, right)), _ = partial_tucker(
            scaled / sizes, rank=[rank, rank], modes=[1, 2], n_iter_max=self.iterations, init="svd", tol=0, random_state=seed
        )
        cores = torch.from_numpy(np.ascontiguousarray(core * sizes))
        return torch.from_numpy(np.ascontiguousarray(left)), cores, torch.from_numpy(np.ascontiguousarray(right)).T @ back

    def _rank(self, outputs: int, inputs: int, place: str) -> int:
        ends = outputs + inputs
        rank = max(1, int((math.sqrt(ends**2 + 12 * self.keep * 3 * outputs * inputs) - ends) / 6))
        rank = min(rank, outputs, inputs)
        if 3 * rank * (ends + rank) >= 3 * outputs * inputs or rank * (ends + 3 * rank) >= 3 * outputs * inputs:
            raise CompressRecError(
                f"'tucker' at keep = {self.keep:g} takes rank {rank} of '{place}' ({outputs}×{inputs}) and does more operations than the "
                "dense weights: use a smaller keep, below about 0.45"
            )
        return rank
