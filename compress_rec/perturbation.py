"""What an edit is: the texts that an item's owner, or someone who means well, could put in the place of the item's own."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from typing import ClassVar

from compress_rec.registry import Registry, label
from compress_rec.trial import Catalogue

# letters of any script, with apostrophes and hyphens inside; numbers are left out, since years and sizes say what an item is
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class Perturbation(ABC):
    """A way of editing an item's text.

    Subclasses are frozen dataclasses; their fields are the options, the file format and part of the label. An edit sees the catalogue's
    texts and training counts, never a user: whoever takes the measure on users can use all of them.

    name: how a study file calls it
    """

    name: ClassVar[str]

    @property
    def label(self) -> str:
        """The name with the options that differ from their defaults."""
        return label(self, self.name)

    @abstractmethod
    def edits(self, item: int, catalogue: Catalogue, seed: int) -> tuple[str, ...]:
        """Return one or several edited texts of the item; several are draws of the same edit, over which figures are averaged.

        A pure function of the item's id, the catalogue and the seed.
        """


PERTURBATIONS: Registry[Perturbation] = Registry("compress_rec.perturbations", Perturbation, "perturbation")  # type: ignore[type-abstract]


def words_of(text: str) -> tuple[str, ...]:
    """Return the distinct words of a text in lower case, in the order in which they come."""
    return tuple(dict.fromkeys(word.lower() for word in WORD.findall(text)))


@functools.lru_cache(maxsize=4)
def vocabulary(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the distinct words of all texts, sorted."""
    return tuple(sorted({word for text in texts for word in words_of(text)}))
