"""Item attributes as a multi-hot table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

_WORD = re.compile(r"[^\s,;|/]+")
_YEAR = re.compile(r"[12]\d{3}")


def attribute_columns(attributes: Sequence[Mapping[str, str]], most_distinct: float = 0.5) -> tuple[str, ...]:
    """Return the columns that sort items into groups, in their order: those with at most ``most_distinct`` different values an item.

    Names and descriptions, which differ from item to item, are text and no attributes.
    """
    columns = tuple(attributes[0]) if attributes else ()
    return tuple(column for column in columns if len({item[column] for item in attributes}) <= most_distinct * len(attributes))


def tokens(item: Mapping[str, str], columns: Sequence[str]) -> set[str]:
    """Return an item's attributes: ``genres=comedy`` for every word of a value, and ``year=1990s`` beside ``year=1995``."""
    found = set()
    for column in columns:
        for word in _WORD.findall(item[column].lower()):
            found.add(f"{column}={word}")
            if _YEAR.fullmatch(word):
                found.add(f"{column}={word[:3]}0s")
    return found


def multi_hot(
    attributes: Sequence[Mapping[str, str]], columns: Sequence[str], known: np.ndarray, at_least: int = 3
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (items, attributes) float64 of 0 and 1, and what each column stands for.

    known: (items,) bool, the items to learn from: an attribute that fewer than ``at_least`` of them have is left out
    """
    sets = [tokens(item, columns) for item in attributes]
    counts = Counter(token for own, keep in zip(sets, known, strict=True) if keep for token in own)
    names = tuple(sorted(token for token, count in counts.items() if count >= at_least))
    place = {name: number for number, name in enumerate(names)}
    table = np.zeros((len(sets), len(names)))
    for row, own in enumerate(sets):
        table[row, [place[token] for token in own if token in place]] = 1.0
    return table, names
