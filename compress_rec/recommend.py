"""Recommending from a saved variant: titles with scores, and which of the history's items each score comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compress_rec.coalitions import PooledTable, unit_parts
from compress_rec.errors import CompressRecError, nearest
from compress_rec.huggingface import read_json
from compress_rec.index import CosineIndex
from compress_rec.variant import load

REASONS = 2


@dataclass(frozen=True)
class Recommended:
    """An item, its cosine, and the history items with their exact Shapley values, the largest first; the values add up to the cosine."""

    item: str
    text: str
    score: float
    reasons: tuple[tuple[str, float], ...]

    def because(self) -> str:
        """The strongest reasons in words."""
        return ", ".join(f"{text} ({value:+.3f})" for text, value in self.reasons[:REASONS] if value > 0) or "nothing in particular"


def recommend(variant: Path | str, history: Sequence[str], k: int = 10, catalogue: Path | str | None = None) -> list[Recommended]:
    """Return the k best items of a catalogue for a history, the history's own items left out.

    variant: a saved variant's folder; history: items' ids or texts, oldest first
    catalogue: a ``catalogue.json`` as a study's run folder holds it; that of the run folder above ``variant`` where none is given
    """
    folder = Path(variant)
    found = read_json(Path(catalogue) if catalogue is not None else folder.parent.parent / "catalogue.json")
    if not isinstance(found.get("items"), list) or not isinstance(found.get("texts"), list):
        raise CompressRecError(
            "the catalogue should hold 'items' and 'texts', but they are missing: take catalogue.json from a study's run folder"
        )
    items, texts = [str(item) for item in found["items"]], [str(text) for text in found["texts"]]
    if isinstance(history, str):
        raise CompressRecError(f"a history is a list of ids or texts, but the string '{history}' came: put it into a list")
    if not history:
        raise CompressRecError("a recommendation needs at least one item of the history: give --history once or several times")
    if not 1 <= k <= len(items):
        raise CompressRecError(f"k must be between 1 and the catalogue's {len(items)} items, but {k} came")
    places = [_place(name, items, texts) for name in history]
    left = len(items) - len(set(places))
    if not left:
        raise CompressRecError(f"the history holds all {len(items)} items of the catalogue, and none is left: give fewer of them")
    towers = load(folder).compile().towers
    vectors, behaviours = towers.encode(texts, "item"), towers.encode([texts[place] for place in places], "behaviour")
    user = towers.pooled(behaviours, [range(len(places))])
    scores, ids = CosineIndex(vectors).search(user, min(k, left), exclude=[places])
    parts, units = unit_parts(behaviours.double().numpy(), towers.recency)
    # nothing known about a user scores 0, so that the values add up to the cosine
    table = PooledTable(np.zeros(parts.shape[1]), parts)
    values = table.shapley() @ vectors[ids[0]].double().numpy().T
    names = [texts[places[unit[0]]] if len(unit) == 1 else f"{len(unit)} older items" for unit in units]
    done = []
    for column, (score, item) in enumerate(zip(scores[0].tolist(), ids[0].tolist(), strict=True)):
        reasons = sorted(zip(names, values[:, column].tolist(), strict=True), key=lambda pair: -pair[1])
        done.append(Recommended(items[item], texts[item], score, tuple(reasons)))
    return done


def _place(name: str, items: Sequence[str], texts: Sequence[str]) -> int:
    """Return the item called ``name``: by id, by text, or by a text that only one item begins with."""
    if name in items:
        return items.index(name)
    if name in texts:
        return texts.index(name)
    begins = [place for place, text in enumerate(texts) if text.lower().startswith(name.lower())]
    if len(begins) == 1:
        return begins[0]
    if begins:
        raise CompressRecError(
            f"'{name}' fits {len(begins)} items, such as '{texts[begins[0]]}' and '{texts[begins[1]]}': write more of the title"
        )
    hint = nearest(name, texts).partition(" known are ")[0].rstrip(";")
    raise CompressRecError(f"the catalogue has no item with the id or text '{name}'{hint or ''}; give an id or the beginning of a title")
