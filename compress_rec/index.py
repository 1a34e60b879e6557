"""A catalogue that answers "which k items are nearest to this vector"; items join and leave it, and it can be kept in a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compress_rec import op
from compress_rec.errors import CompressRecError, nearest
from compress_rec.files import new_folder
from compress_rec.index_formats import FORMATS, Bounded, Format, Stored

Found = tuple[Tensor, Tensor]
VERSION = 2
READ = (1, VERSION)  # version 1 had no removed items: its rows are its items


class CosineIndex:
    """The items of a catalogue, searched by cosine.

    items: (items, dimensions), a torch tensor or numpy array of any floating dtype and layout, of any length; it is copied, and
        normalised in float64. An item of length 0 has cosine 0 with everything.
    format: how the items are kept: ``"float32"``; ``"int8"``, which looks through codes and scores only who may be among the best: exact,
        quick in a large catalogue, five bytes a dimension; ``"int8-only"``, one byte a dimension, scores and order those of the codes

    An item's id is its row in ``items``; items that are added get the ids behind the largest ever given, and a removed item's id is never
    given again. Let no other thread search while items are added or removed.

    Errors: NaN or infinity, no items, no dimensions, an unknown format.
    """

    def __init__(self, items: Tensor | np.ndarray[Any, Any], format: str = "float32") -> None:
        kept_as = _format(format)
        vectors = _vectors("items", items)
        if 0 in vectors.shape:
            lacking, came = ("item", "(0, …)") if len(vectors) == 0 else ("dimension", "(…, 0)")
            raise CompressRecError(f"the index needs at least one {lacking}, but {came} came: give the catalogue's vectors, one a row")
        unit = _unit("items", vectors)
        self._hold(format, kept_as.pack(unit), torch.zeros(len(unit), dtype=torch.bool), unit.shape[1])

    def _hold(self, format: str, stored: Stored, removed: Tensor, dimensions: int) -> None:
        self.format, self._dimensions = format, dimensions
        self.stored: Stored = MappingProxyType(dict(stored))
        self._removed = removed  # (rows,) bool; rows are all ids ever given
        self._rows = len(removed)  # kept, since a search for one query asks: torch takes a microsecond to say
        self._left = self._rows - int(removed.sum())
        self._device = next(iter(self.stored.values())).device

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
        """The unit vectors (ids ever given, dimensions) float32, as exactly as the format holds them; NaN where the item was removed."""
        return FORMATS[self.format].vectors(self.stored, self._rows, self.dimensions)

    def __len__(self) -> int:
        return self._left

    def __repr__(self) -> str:
        return (
            f"CosineIndex(items={len(self)}, dimensions={self.dimensions}, format='{self.format}', backend='{self.backend}', "
            f"bytes_per_dimension={FORMATS[self.format].bytes})"
        )

    @overload
    def search(
        self,
        queries: Tensor | np.ndarray[Any, Any],
        k: int,
        exclude: Sequence[Iterable[int]] | None = None,
        *,
        bounds: Literal[False] = ...,
    ) -> Found: ...
    @overload
    def search(
        self, queries: Tensor | np.ndarray[Any, Any], k: int, exclude: Sequence[Iterable[int]] | None = None, *, bounds: Literal[True]
    ) -> Bounded: ...
    def search(
        self, queries: Tensor | np.ndarray[Any, Any], k: int, exclude: Sequence[Iterable[int]] | None = None, *, bounds: bool = False
    ) -> Found | Bounded:
        """Return the k items nearest to each query.

        queries: (queries, dimensions), a torch tensor or numpy array of any floating dtype
        k: 1 … items left in the index
        exclude: for each query the item ids that must not be returned; ids of removed items may be among them
        bounds: whether to say, too, how far each score may lie from the cosine of the given vectors in exact arithmetic

        returns: scores (queries, k) float32, the cosines, falling; ids (queries, k) int64, equal scores by the smaller id; where fewer
            than k items remain, the tail has score -inf and id -1. With ``bounds``, thirdly bounds (queries, k) float32, 0 in the tail

        Errors: NaN or infinity, vectors of another width, k above the items left, unknown ids, queries that require grad.
        """
        vectors = self._as_wide("queries", queries)
        if self._left == 0:
            raise CompressRecError(f"a search needs at least one item in the index, but all {self._rows} were removed: add items first")
        if not 1 <= k <= self._left:
            raise CompressRecError(f"k must be from 1 to the {self._left} items of the index, but {k} came: ask for fewer")
        ids, offsets = self._ragged(exclude, len(vectors)) if exclude is not None else (None, None)
        if vectors.dtype is not torch.float32:
            refused = vectors.requires_grad and torch.is_grad_enabled()  # by the op, in its own words
            vectors = vectors.float() if refused else _unit("queries", vectors)
        if vectors.device != self._device:
            vectors = vectors.to(self._device)
        try:
            scores, found, off = FORMATS[self.format].search(self.stored, self._rows, vectors, k, ids, offsets)
        except CompressRecError:
            raise
        except ValueError as fault:  # a compiled kernel's refusal
            raise CompressRecError(str(fault)) from fault
        if not bounds:
            return scores, found
        each = off if isinstance(off, Tensor) else torch.full_like(scores, off)
        return scores, found, each.masked_fill(found < 0, 0.0)

    def add(self, items: Tensor | np.ndarray[Any, Any]) -> Tensor:
        """Add items and return their ids (items,) int64, which follow the largest ever given.

        items: (items, dimensions), as the index was made from

        What is stored is copied once, whatever the number of items: add many at a time.

        Errors: NaN or infinity, vectors of another width; the index is then as it was.
        """
        unit = _unit("items", self._as_wide("items", items))
        rows = self._rows
        if len(unit):
            stored = FORMATS[self.format].append(self.stored, rows, unit.to(self._device))
            self._hold(self.format, stored, torch.cat([self._removed, torch.zeros(len(unit), dtype=torch.bool)]), self.dimensions)
        return torch.arange(rows, rows + len(unit))

    def remove(self, ids: Iterable[int]) -> None:
        """Remove items. They are never found again; the other items keep their ids, and the memory stays taken.

        ids: whole numbers, also as a torch tensor or numpy array

        Errors: ids that were never given, were removed before, or come twice; the index is then as it was.
        """
        rows = _whole("ids", "", ids)
        outside = (rows < 0) | (rows >= self._rows)
        if outside.any():
            came = int(rows[outside][0])
            raise CompressRecError(f"ids must be item ids from 0 to {self._rows - 1}, but {came} came: leave unknown ids out")
        gone = self._removed[rows]
        if gone.any():
            came = int(rows[gone][0])
            raise CompressRecError(f"ids must be of items that are in the index, but {came} was removed before: leave removed ids out")
        distinct, times = rows.unique(return_counts=True)
        if len(distinct) < len(rows):
            came = int(distinct[times > 1][0])
            raise CompressRecError(f"ids must be distinct, but {came} came {int(times.max())} times: give each id once")
        with torch.inference_mode():  # an index made within it may change outside, too
            FORMATS[self.format].forget(self.stored, rows.to(self._device))
        self._hold(self.format, self.stored, self._removed.index_fill(0, rows, True), self.dimensions)

    def save(self, folder: Path | str) -> None:
        """Write ``index.json`` and ``index.safetensors`` into a new folder, which takes the place of an old one of this name."""
        rows = self._rows
        with new_folder(folder) as aside:
            facts = {"version": VERSION, "format": self.format, "rows": rows, "items": len(self), "dimensions": self.dimensions}
            (aside / "index.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            written = FORMATS[self.format].written(self.stored, rows, self.dimensions)
            save_file({name: tensor.cpu().contiguous() for name, tensor in written.items()}, aside / "index.safetensors")

    @classmethod
    def load(cls, folder: Path | str) -> CosineIndex:
        """Read what ``save`` wrote, removed items and ids still to give among it; searches give the same bits."""
        place = Path(folder)
        try:
            facts = json.loads((place / "index.json").read_text(encoding="utf-8"))
            held = load_file(place / "index.safetensors")
        except (OSError, ValueError, SafetensorError) as fault:
            raise CompressRecError(f"{place} does not hold a readable index ({fault}): save the index again") from fault
        if not isinstance(facts, dict) or facts.get("version") not in READ:
            came = facts.get("version") if isinstance(facts, dict) else facts
            raise CompressRecError(f"{place / 'index.json'} must have version {VERSION}, but {came!r} came: save the index again")
        kept_as = _format(facts.get("format", ""))
        numbers = [facts.get(name) for name in ("items" if facts["version"] == 1 else "rows", "items", "dimensions")]
        rows, items, dimensions = (number if isinstance(number, int) else -1 for number in numbers)
        if min(rows, items, dimensions) < 0:
            raise CompressRecError(
                f"{place / 'index.json'} must count 'rows', 'items' and 'dimensions', but {numbers} came: save the index again"
            )
        for name, (dtype, shape) in kept_as.contents(rows, dimensions).items():
            came = op.described(held[name]) if name in held else "no such tensor"
            wanted = op.described(torch.empty(shape, dtype=dtype, device="meta"))
            if came != wanted:
                raise CompressRecError(
                    f"{place / 'index.safetensors'} must hold '{name}' as {wanted}, but {came} came: save the index again"
                )
        stored = kept_as.read(held)
        removed = kept_as.removed(stored, rows)
        if int(removed.sum()) != rows - items:
            raise CompressRecError(f"{place} must hold {items} of {rows} items, but {rows - int(removed.sum())} came: save the index again")
        index = cls.__new__(cls)
        index._hold(facts["format"], stored, removed, dimensions)
        return index

    def _as_wide(self, argument: str, given: Tensor | np.ndarray[Any, Any]) -> Tensor:
        vectors = _vectors(argument, given)
        if vectors.shape[1] != self._dimensions:
            raise CompressRecError(
                f"{argument} must have the index's {self.dimensions} dimensions, but {vectors.shape[1]} came: "
                "encode both with the same recommender"
            )
        return vectors

    def _ragged(self, exclude: Sequence[Iterable[int]], queries: int) -> Found:
        if len(exclude) != queries:
            raise CompressRecError(
                f"exclude must hold one sequence of ids a query ({queries}), but {len(exclude)} came: "
                "give an empty one where nothing is excluded"
            )
        rows = [_whole("exclude", f" for query {row}", ids) for row, ids in enumerate(exclude)]
        lengths = torch.tensor([0, *(ids.numel() for ids in rows)], dtype=torch.int64)
        return torch.cat([torch.empty(0, dtype=torch.int64), *rows]), lengths.cumsum(0)


def _format(name: str) -> Format:
    if name not in FORMATS:
        raise CompressRecError(f"there is no index format called '{name}'{nearest(str(name), FORMATS)}")
    return FORMATS[name]


def _whole(argument: str, where: str, given: Iterable[int]) -> Tensor:
    """Return ids (ids,) int64; what is empty may be of any dtype."""
    wanted = f"{argument} must hold whole numbers"
    try:
        ids = torch.as_tensor(given if isinstance(given, Tensor | np.ndarray) else list(given))
    except (TypeError, ValueError, RuntimeError, OverflowError) as fault:
        raise CompressRecError(f"{wanted}, but {given!r:.60} came{where}: give item ids") from fault
    if ids.numel() and (ids.dtype.is_floating_point or ids.dtype == torch.bool or ids.dim() != 1):
        raise CompressRecError(f"{wanted}, but {op.described(ids)} came{where}: give item ids")
    return ids.reshape(-1).to(device="cpu", dtype=torch.int64)


def _vectors(argument: str, given: Tensor | np.ndarray[Any, Any]) -> Tensor:
    if isinstance(given, Tensor):
        vectors = given
    elif isinstance(given, np.ndarray):
        if given.dtype.kind != "f" or given.dtype.itemsize > 8:
            raise CompressRecError(f"{argument} must be floating point, but a numpy array of {given.dtype} came: convert it with .astype")
        # torch takes neither negative strides, foreign byte order nor read-only memory
        vectors = torch.from_numpy(given.astype(given.dtype.newbyteorder("="), order="C", copy=True))
    else:
        raise CompressRecError(
            f"{argument} must be a torch tensor or numpy array ({argument}, dimensions), but {type(given).__name__} came: convert it first"
        )
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
