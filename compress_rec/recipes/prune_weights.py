"""The smallest weights set to zero and not stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from compress_rec.encoder import linear_tensors, with_linear
from compress_rec.errors import CompressRecError
from compress_rec.recipe import Lesson, Recipe, cannot_follow, check_share, leaves, needs_layers
from compress_rec.sparse import sparse_tensors, unpack_sparse
from compress_rec.towers import Tower
from compress_rec.weights import Chain, Format, Int8, Shared, Sparse, Sum

MOST = 0.96  # a bit a place and four bytes a value: above 31/32 the bits cost more than the zeros save


@dataclass(frozen=True)
class PruneWeights(Recipe):
    """Magnitude pruning: the smallest weights of each matrix become zero and are not stored; it saves bytes only, never time.

    Each linear weight of the encoder keeps its largest numbers by absolute value; a bitmask says where they belong. At load the matrix
    is rebuilt dense and runs as fast, or as slowly, as before. Word embeddings, heads, biases and norms are left alone.

    keep: share of each matrix's weights kept, above 0 and at most 0.96 (above it the bitmask costs more than is saved)

    *Paper*: Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks" (arXiv 1506.02626), without its
    retraining, since what is stored sparse is not trained here.

    *When it helps*: where the download or the disk is what costs: about half the bytes of the linear weights at 0.5, with vectors closer
    to the uncompressed ones than by plain `factorize` at the same share, though not than by whitened.

    *When it does not*: for latency or memory at run time, at all. Below a half the lists change quickly. `quantize_int8` saves more bytes
    than ``keep`` = 0.5 and changes less.

    *Cost*: one sort a matrix: about a second on a six-layer MiniLM.
    """

    keep: float = 0.5

    name: ClassVar[str] = "prune_weights"
    shrinks: ClassVar[frozenset[str]] = frozenset({"bytes"})

    def __post_init__(self) -> None:
        check_share(self.name, "keep", self.keep, below_one=True)
        if self.keep > MOST:
            raise CompressRecError(
                f"'keep' of 'prune_weights' must be at most {MOST}, but {self.keep} came: above it the bitmask costs more than is saved"
            )

    def apply(self, tower: Tower, lesson: Lesson) -> Tower:
        needs_layers(self.name, tower)
        encoder, config = tower.encoder, tower.encoder.config
        for name in config.linears():
            if any(isinstance(end, Int8) for end in leaves(config.format(name), config)):
                reason = f"'{name}' is in int8, and the sparse form stores float"
                raise cannot_follow(self.name, "quantize_int8", reason, "put 'prune_weights' before 'quantize_int8', or leave one out")
        tensors, formats, shared = encoder.tensors(), dict(config.formats), dict(config.shared)
        for name in config.linears():
            formats[name], new = self._pruned(config.format(name), linear_tensors(tensors, name), name)
            tensors = with_linear(tensors, name, new)
        for key, form in config.shared.items():
            shared[key], new = self._pruned(form, linear_tensors(tensors, f"shared.{key}"), f"shared.{key}")
            tensors = with_linear(tensors, f"shared.{key}", new)
        return tower.rebuilt(encoder.rebuilt(replace(config, formats=formats, shared=shared), tensors))

    def _pruned(self, form: Format, tensors: Mapping[str, Tensor], place: str) -> tuple[Format, dict[str, Tensor]]:
        """Return the sparse twin of a stored weight: its format and its tensors, without the bias."""
        match form:
            case Chain(parts) | Sum(parts):
                done = [self._pruned(part, tensors, f"{place}.{number}") for number, part in enumerate(parts)]
                return type(form)(tuple(part for part, _ in done)), {name: tensor for _, new in done for name, tensor in new.items()}
            case Shared():
                return form, {}
            case Sparse():
                weight = unpack_sparse(tensors[f"{place}.mask"], tensors[f"{place}.values"], tensors[f"{place}.extent"])
                if self.keep * weight.numel() >= int((weight != 0).sum()):
                    reason = f"'{place}' keeps no more than {self.keep:g} of its weights already"
                    raise cannot_follow(self.name, self.name, reason, "use a smaller keep in the second one")
            case _:
                weight = tensors[f"{place}.weight"]
        return Sparse(), sparse_tensors(_largest(weight, self.keep), place)


def _largest(weight: Tensor, keep: float) -> Tensor:
    """Return the weight with all but its ``keep`` largest numbers set to zero."""
    flat = weight.reshape(-1)
    kept = torch.argsort(flat.abs(), descending=True, stable=True)[: max(1, round(keep * flat.numel()))]
    done = torch.zeros_like(flat)
    done[kept] = flat[kept]
    return done.reshape(weight.shape)
