"""Each linear weight as a product of two thin factors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from compress_rec.encoder import ATTENTION, FEED_FORWARD, with_linear
from compress_rec.errors import CompressRecError
from compress_rec.importance import output_gradients
from compress_rec.recipe import Lesson, Moments, Recipe, cannot_follow, check_share, made_by, needs_layers
from compress_rec.towers import Tower
from compress_rec.weights import DENSE, Chain

PARTS = {"all": (*ATTENTION, *FEED_FORWARD), "attention": ATTENTION, "feed_forward": FEED_FORWARD}


@dataclass(frozen=True)
class Factorize(Recipe):
    """Singular value decomposition: each linear weight becomes two thin factors and runs as two.

    A weight of d x n numbers at rank r has r(d + n) numbers in its factors, so r = keep * d * n / (d + n) keeps the share ``keep`` of its
    parameters. Half the rank of a square matrix keeps all of them: shares are shares of parameters throughout.

    keep: share of the linear parameters kept, above 0 and below 1
    method: ``whitened`` keeps what matters for the outputs on the training texts: W' = U Uᵀ W with U the leading eigenvectors of
        W C Wᵀ, C the covariance of the inputs about their mean, and the mean's share put into the bias. It is the least squared error
        of the outputs that any matrix of this rank has. ``fisher`` measures that error by what it does to the model's vectors: the outputs
        are scaled by the root of their gradients' second moments, and ranks are dealt out over all matrices, where they lower
        the error most for a parameter. ``plain`` is the singular value decomposition of the weight itself, the least error of the weight.
    parts: ``all`` linear weights, those of the ``attention``, or those of the ``feed_forward`` halves

    *Paper*: Chen et al. 2021, "DRONE: Data-aware Low-rank Compression for Large NLP Models", theorem 1; Wang et al. 2024, "SVD-LLM"
    (arXiv 2403.07378); the ``fisher`` metric follows Hsu et al. 2022, "Language model compression with weighted low-rank factorization"
    (arXiv 2207.00112), with the Kronecker-factored curvature of Martens & Grosse 2015 (arXiv 1503.05671).

    *When it helps*: where operations count (a re-embedded catalogue, long texts) and `distill` follows: both factors train. The inputs
    of BERT's weights lie close to a subspace, which is what ``whitened`` uses.

    *When it does not*: without recovery at half the parameters and below: the weights themselves are far from low rank, so ``plain``
    loses most of the lists. It saves nothing at ``keep`` near 1, and two small products use a machine less well than one large one.

    *Cost*: one pass over at most 512 texts a role (``whitened``, ``fisher``), one more with gradients (``fisher``), and an
    eigendecomposition a weight: about 18 CPU seconds on a six-layer MiniLM, 24 for ``fisher``, 2 for ``plain``.
    """

    keep: float = 0.5
    method: Literal["whitened", "fisher", "plain"] = "whitened"
    parts: Literal["all", "attention", "feed_forward"] = "all"

    name: ClassVar[str] = "factorize"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes", "operations"})

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep, below_one=True)
        for option, value, known in (("method", self.method, ("whitened", "fisher", "plain")), ("parts", self.parts, tuple(PARTS))):
            if value not in known:
                raise CompressRecError(f"'{option}' of 'factorize' must be one of {', '.join(known)}, but {value!r} came")

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        encoder, config = tower.encoder, tower.encoder.config
        places = [name for name in config.linears() if name.rpartition(".")[2] in PARTS[self.parts]]
        for name in places:
            earlier = made_by(config.format(name), config)
            if earlier == "factorize":
                raise cannot_follow(self.name, earlier, f"'{name}' has two factors already", "use one of them with a smaller keep")
            if earlier is not None:
                way_out = f"put 'factorize' before '{earlier}'"
                if earlier == "tucker" and self.parts == "all":
                    way_out = "factorise parts = feed_forward only, or leave one of them out"
                raise cannot_follow(self.name, earlier, f"'{name}' is not stored dense any more", way_out)
        weights = {name: encoder.linear(name).dense().detach().double() for name in places}
        moments = None if self.method == "plain" else lesson.moments(tower)
        roots = dict.fromkeys(places) if self.method != "fisher" else _output_roots(tower, lesson, places)
        spectra = {}
        for name, weight in weights.items():
            spectra[name] = _left_directions(weight, None if moments is None else moments[name], roots[name])
        ranks = self._ranks({name: weights[name].shape for name in places}, {name: values for name, (values, _) in spectra.items()})
        formats, tensors = dict(config.formats), encoder.tensors()
        for name, weight in weights.items():
            inner, outer = _factors(weight, spectra[name][1][:, : ranks[name]], roots[name])
            formats[name] = Chain((DENSE, DENSE))
            new = {f"{name}.0.weight": inner.float(), f"{name}.1.weight": outer.float()}
            bias = tensors.get(f"{name}.bias")
            if moments is not None and bias is not None:
                # the factors are fitted about the mean, whose share of the output moves into the bias
                new[f"{name}.bias"] = (bias.double() + (weight - outer @ inner) @ moments[name].mean).float()
            tensors = with_linear(tensors, name, new)
        return tower.rebuilt(encoder.rebuilt(replace(config, formats=formats), tensors))

    def _ranks(self, shapes: dict[str, torch.Size], spectra: dict[str, Tensor]) -> dict[str, int]:
        """Return a rank a weight: the same share of each, or, by ``fisher``, the same total dealt out by what a rank is worth."""
        own = {name: max(1, int(self.keep * d * n / (d + n))) for name, (d, n) in shapes.items()}
        for name, (d, n) in shapes.items():
            if own[name] * (d + n) >= d * n:
                raise CompressRecError(
                    f"rank {own[name]} of '{name}' ({d}×{n}) saves nothing: below {d * n / (d + n):.0f} was wanted; use a smaller keep"
                )
        if self.method != "fisher":
            return own
        budget = sum(own[name] * (d + n) for name, (d, n) in shapes.items())
        ranks = dict.fromkeys(shapes, 1)
        budget -= sum(d + n for d, n in shapes.values())
        offers = [
            (-float(value) / sum(shapes[name]), name, place)
            for name in shapes
            for place, value in enumerate(spectra[name].tolist())
            if place >= 1 and (place + 1) * sum(shapes[name]) < shapes[name][0] * shapes[name][1]
        ]
        for _, name, place in sorted(offers):
            price = sum(shapes[name])
            if price <= budget and ranks[name] == place:
                ranks[name] = place + 1
                budget -= price
        return ranks


def _left_directions(weight: Tensor, moments: Moments | None, root: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the output directions that carry most, best first: squared singular values (k,), directions (outputs, k).

    weight: (outputs, inputs) float64; root: (outputs, outputs), what outputs are measured by
    """
    scaled = weight if root is None else root @ weight
    outputs, inputs = scaled.shape
    if moments is not None and outputs <= inputs:
        # W C Wᵀ has the same directions as W C^½, and no root of the wider covariance is needed
        values, directions = torch.linalg.eigh(scaled @ moments.covariance @ scaled.T)
        return values.flip(0).clamp_min(0), directions.flip(1)
    if moments is not None:
        scaled = scaled @ _root(moments.covariance)
    directions, values, _ = torch.linalg.svd(scaled, full_matrices=False)
    return values**2, directions


def _factors(weight: Tensor, directions: Tensor, root: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the inner (rank, inputs) and the outer (outputs, rank) factor, balanced so that both train alike."""
    if root is None:
        inner, outer = directions.T @ weight, directions
    else:
        inner, outer = directions.T @ root @ weight, torch.linalg.solve(root, directions)
    # the same product for any scale between them: both get the same norm, rank by rank
    balance = (outer.norm(dim=0) / inner.norm(dim=1).clamp_min(1e-30)).sqrt().clamp(1e-6, 1e6)
    return inner * balance[:, None], outer / balance


def _root(second: Tensor, damping: float = 1e-6) -> Tensor:
    """Return the symmetric root of a positive matrix, damped by a share of its mean eigenvalue."""
    values, vectors = torch.linalg.eigh(second)
    floor = damping * float(values.clamp_min(0).mean()) + 1e-30
    return (vectors * (values.clamp_min(0) + floor).sqrt()) @ vectors.T


def _output_roots(tower: Tower, lesson: Lesson, places: list[str]) -> dict[str, Tensor | None]:
    gradients = output_gradients(tower, lesson, places)
    return {name: _root(gradients[name], damping=1e-3) for name in places}
