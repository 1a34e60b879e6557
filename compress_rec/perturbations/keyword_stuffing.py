"""Putting the words of popular items behind one's own text."""

from __future__ import annotations

import functools
import math
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from compress_rec.errors import CompressRecError
from compress_rec.perturbation import Perturbation, words_of
from compress_rec.trial import Catalogue


@dataclass(frozen=True)
class KeywordStuffing(Perturbation):
    """Append the words that are most typical of what is popular: what sellers do who know neither the model nor its users.

    A word's weight is p ln(p/q): p is the share of all uses in training that went to items with the word, q the share of items with
    it. Words that the item has already are passed over. One edit an item; nothing is drawn.

    words: how many words are appended; fewer where the catalogue has no more
    """

    name: ClassVar[str] = "keyword_stuffing"
    words: int = 5

    def __post_init__(self) -> None:
        if self.words < 1:
            raise CompressRecError(f"keyword_stuffing appends words, but words={self.words} came: choose 1 or more")

    def edits(self, item: int, catalogue: Catalogue, seed: int) -> tuple[str, ...]:
        own = set(words_of(catalogue.texts[item]))
        added = [word for word in typical_words(catalogue.texts, tuple(catalogue.uses.tolist())) if word not in own][: self.words]
        return (" ".join([catalogue.texts[item], *added]),)


@functools.lru_cache(maxsize=4)
def typical_words(texts: tuple[str, ...], uses: tuple[int, ...]) -> tuple[str, ...]:
    """Return all words, the most typical of popular items first; equal ones by the alphabet."""
    among_items: Counter[str] = Counter()
    among_uses: Counter[str] = Counter()
    for text, count in zip(texts, uses, strict=True):
        for word in words_of(text):
            among_items[word] += 1
            among_uses[word] += count
    total = max(sum(uses), 1)

    def weight(word: str) -> float:
        p, q = among_uses[word] / total, among_items[word] / len(texts)
        return p * math.log(p / q) if p else 0.0

    return tuple(sorted(among_items, key=lambda word: (-weight(word), word)))
