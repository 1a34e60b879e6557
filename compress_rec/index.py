"""A frozen catalogue that answers "which k items are nearest to this vector", and can be kept in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress_rec import op
from compress_rec.errors import CompressRecError, nearest
from compress_rec.files import new_folder
from compress_rec.ops.cosine_top_k import cosine_top_k

Found = tuple[Tensor, Tensor]
VERSION = 1


@dataclass(frozen=True)
class Format:
    """How a catalogue is kept and searched.

    pack: unit vectors (items, dimensions) float32 → what is stored, by name
    search: (stored, queries, k, exclude, exclude_offsets) → scores and ids, as ``cosine_top_k`` gives them
    vectors: stored → (items, dimensions) float32, as exactly as the format holds them
    op: the op that does the work
    """

    pack: Callable[[Tensor], dict[str, Tensor]]
    search: Callable[[Mapping[str, Tensor], Tensor, int, Tensor | None, Tensor | None], Found]
    vectors: Callable[[Mapping[str, Tensor]], Tensor]
    op: str


def _search_float32(stored: Mapping[str, Tensor], queries: Tensor, k: int, exclude: Tensor | None, offsets: Tensor | None) -> Found:
    found: Found = cosine_top_k(queries, stored["items"], k, exclude, offsets, True)
    return found


FORMATS: Mapping[str, Format] = MappingProxyType(
    {"float32": Format(lambda unit: {"items": unit}, _search_float32, lambda stored: stored["items"], "cosine_top_k")}
)


class CosineIndex:
    """The items of a catalogue, searched by cosine.

    items: (items, dimensions), a torch tensor or numpy array of any floating dtype and layout, of any length; it is copied, and
        normalised in float64. An item of length 0 has cosine 0 with everything.
    format: how the items are kept: ``"float32"``

    Item ids are the rows of ``items``. Errors: NaN or infinity, no items, an unknown format.
    """

    def __init__(self, items: Tensor | np.ndarray[Any, Any], format: str = "float32") -> None:
        kept_as = _format(format)
        unit = _unit("items", _vectors("items", items))
        if len(unit) == 0:
            raise CompressRecError("the index needs at least one item, but (0, …) came: give the catalogue's vectors, one a row")
        self.format = format
        self.stored: Mapping[str, Tensor] = MappingProxyType(kept_as.pack(unit))
        self._count, self._dimensions = unit.shape

    @property
    def dimensions(self) -> int:
        """The width of the vectors."""
        return self._dimensions

    @property
    def backend(self) -> str:
        """Which kernel serves a search: ``"reference"`` or an instruction tier."""
        return op.backend(FORMATS[self.format].op)

    @property
    def vectors(self) -> Tensor:
        """The unit vectors (items, dimensions) float32, as exactly as the format holds them."""
        return FORMATS[self.format].vectors(self.stored)

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"CosineIndex(items={len(self)}, dimensions={self.dimensions}, format='{self.format}', backend='{self.backend}')"

    def search(self, queries: Tensor | np.ndarray[Any, Any], k: int, exclude: Sequence[Iterable[int]] | None = None) -> Found:
        """Return the k items nearest to each query.

        queries: (queries, dimensions), a torch tensor or numpy array of any floating dtype
        k: 1 … items
        exclude: for each query the item ids that must not be returned

        returns: scores (queries, k) float32, the cosines, falling; ids (queries, k) int64, equal scores by the smaller id; where fewer
            than k items remain, the tail has score -inf and id -1

        Errors: NaN or infinity, vectors of another width, k above the catalogue, unknown ids, queries that require grad.
        """
        vectors = _vectors("queries", queries)
        if vectors.shape[1] != self.dimensions:
            raise CompressRecError(
                f"queries must have the index's {self.dimensions} dimensions, but {vectors.shape[1]} came: "
                "encode both with the same recommender"
            )
        if not 1 <= k <= len(self):
            raise CompressRecError(f"k must be from 1 to the {len(self)} items of the index, but {k} came: ask for fewer")
        ids, offsets = self._ragged(exclude, len(vectors)) if exclude is not None else (None, None)
        if vectors.dtype != torch.float32:
            refused = vectors.requires_grad and torch.is_grad_enabled()  # by the op, in its own words
            vectors = vectors.float() if refused else _unit("queries", vectors)
        device = next(iter(self.stored.values())).device
        try:
            return FORMATS[self.format].search(self.stored, vectors.to(device), k, ids, offsets)
        except CompressRecError:
            raise
        except ValueError as fault:  # a compiled kernel's refusal
            raise CompressRecError(str(fault)) from fault

    def save(self, folder: Path | str) -> None:
        """Write ``index.json`` and ``index.safetensors`` into a new folder, which takes the place of an old one of this name."""
        with new_folder(folder) as aside:
            facts = {"version": VERSION, "format": self.format, "items": len(self), "dimensions": self.dimensions}
            (aside / "index.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            save_file({name: tensor.cpu().contiguous() for name, tensor in self.stored.items()}, aside / "index.safetensors")

    @classmethod
    def load(cls, folder: Path | str) -> CosineIndex:
        """Read what ``save`` wrote; searches give the same bits."""
        place = Path(folder)
        try:
            facts = json.loads((place / "index.json").read_text(encoding="utf-8"))
            stored = load_file(place / "index.safetensors")
        except (OSError, ValueError, SafetensorError) as fault:
            raise CompressRecError(f"{place} does not hold a readable index ({fault}): save the index again") from fault
        if not isinstance(facts, dict) or facts.get("version") != VERSION:
            came = facts.get("version") if isinstance(facts, dict) else facts
            raise CompressRecError(f"{place / 'index.json'} must have version {VERSION}, but {came!r} came: save the index again")
        index = cls.__new__(cls)
        index.format = facts.get("format", "")
        kept_as = _format(index.format)
        index.stored = MappingProxyType(stored)
        try:
            shape = tuple(kept_as.vectors(stored).shape)
        except KeyError as fault:
            raise CompressRecError(f"{place / 'index.safetensors'} lacks the tensor {fault}: save the index again") from fault
        if shape != (facts.get("items"), facts.get("dimensions")):
            raise CompressRecError(
                f"{place} must hold ({facts.get('items')}, {facts.get('dimensions')}) vectors, but {shape} came: save the index again"
            )
        index._count, index._dimensions = shape
        return index

    def _ragged(self, exclude: Sequence[Iterable[int]], queries: int) -> Found:
        if len(exclude) != queries:
            raise CompressRecError(
                f"exclude must hold one sequence of ids a query ({queries}), but {len(exclude)} came: "
                "give an empty one where nothing is excluded"
            )
        rows = [torch.as_tensor(ids if isinstance(ids, Tensor | np.ndarray) else list(ids)) for ids in exclude]
        for row, ids in enumerate(rows):
            if ids.numel() and (ids.dtype.is_floating_point or ids.dtype == torch.bool or ids.dim() != 1):
                raise CompressRecError(f"exclude must hold whole numbers, but {op.described(ids)} came for query {row}: give item ids")
        lengths = torch.tensor([0, *(ids.numel() for ids in rows)], dtype=torch.int64)
        return torch.cat([torch.empty(0, dtype=torch.int64), *(ids.reshape(-1).to(torch.int64) for ids in rows)]), lengths.cumsum(0)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise CompressRecError(f"there is no index format called '{name}'{nearest(str(name), FORMATS)}")
    return FORMATS[name]


def _vectors(argument: str, given: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if not isinstance(given, Tensor | np.ndarray):
        raise CompressRecError(
            f"{argument} must be a torch tensor or numpy array ({argument}, dimensions), but {type(given).__name__} came: convert it first"
        )
    if isinstance(given, np.ndarray):
        if given.dtype.kind != "f" or given.dtype.itemsize > 8:
            raise CompressRecError(f"{argument} must be floating point, but a numpy array of {given.dtype} came: convert it with .astype")
        # torch takes neither negative strides, foreign byte order nor read-only memory
        vectors = torch.from_numpy(given.astype(given.dtype.newbyteorder("="), order="C", copy=True))
    else:
        vectors = given
    if not vectors.dtype.is_floating_point or vectors.dim() != 2:
        raise CompressRecError(
            f"{argument} must be floating point ({argument}, dimensions), but {op.described(vectors)} came: one vector a row, also for one"
        )
    return vectors


def _unit(argument: str, vectors: Tensor) -> Tensor:
    """Return float32 vectors of length 1 (or 0), normalised in float64; refuse NaN and infinity."""
    values = vectors.detach().double()
    bad = ~torch.isfinite(values).all(dim=1)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise CompressRecError(f"{argument} must be finite, but row {row} holds NaN or infinity: drop or repair that row")
    # by the largest first: a square in float64 overflows too
    values = values / values.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny) if values.shape[1] else values
    norms = torch.linalg.vector_norm(values, dim=1, keepdim=True)
    return (values / norms.masked_fill(norms == 0, 1.0)).float().contiguous()
