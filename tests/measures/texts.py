"""A world in which one word sells, and rankers that read texts as bags of words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from compress_rec.perturbation import words_of
from compress_rec.trial import Catalogue, Ranker, Trial, UserKind

ITEMS = 20
# four popular items share a word that all users love; every item has a word of its own
TEXTS = (*(f"gold own{chr(97 + item)}" for item in range(4)), *(f"plain own{chr(97 + item)}" for item in range(4, ITEMS)))
WORDS = tuple(dict.fromkeys(word for text in TEXTS for word in words_of(text)))


class Reader(Ranker):
    """Ranks by the words of a text; all users want gold, and a little of what they used.

    words: how many words it reads: with 2 it never sees what an edit appends
    """

    def __init__(self, name: str, words: int = 99) -> None:
        self.name, self.words = name, words

    def read_items(self, texts: Sequence[str]) -> Tensor:
        rows = torch.zeros(len(texts), len(WORDS))
        for row, text in enumerate(texts):
            for word in words_of(text)[: self.words]:
                rows[row, WORDS.index(word)] = 3.0 if word == "gold" else 1.0
        return F.normalize(rows, dim=-1)

    def item_vectors(self, catalogue: Catalogue) -> Tensor:
        return self.read_items(catalogue.texts)

    def user_vectors(self, catalogue: Catalogue, histories: Sequence[Sequence[int]], kind: UserKind) -> Tensor:
        own = torch.stack([self.item_vectors(catalogue)[list(history)].mean(0) for history in histories])
        own[:, WORDS.index("gold")] += 1
        return F.normalize(own, dim=-1)


def reader_world(users: int = 30) -> Trial:
    """Return a trial over these texts; each user has used one of the plain items."""
    uses = torch.tensor([50] * 4 + [1] * (ITEMS - 4))
    catalogue = Catalogue(tuple(f"i{item:02}" for item in range(ITEMS)), TEXTS, torch.zeros(ITEMS, dtype=torch.bool), uses)
    histories = tuple((4 + user % (ITEMS - 4),) for user in range(users))
    return Trial(catalogue, tuple(f"u{user}" for user in range(users)), histories, torch.zeros(users, dtype=torch.int64))
