"""A small made-up data set with a known right answer, for tests and for runs that must not wait for real data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from compress_rec.errors import CompressRecError
from compress_rec.interactions import Interactions, assemble
from compress_rec.raw_tables import RawTables

# plain words, each a single piece of BERT's vocabulary
TOPICS: Mapping[str, tuple[str, ...]] = {
    "music": ("song", "guitar", "piano", "concert"),
    "ocean": ("boat", "wave", "island", "harbor"),
    "kitchen": ("bread", "soup", "cheese", "dinner"),
    "war": ("soldier", "battle", "army", "tank"),
    "school": ("teacher", "student", "lesson", "book"),
    "space": ("rocket", "planet", "moon", "star"),
    "garden": ("flower", "tree", "grass", "seed"),
    "sport": ("football", "runner", "coach", "stadium"),
    "law": ("judge", "court", "lawyer", "trial"),
    "winter": ("snow", "ice", "storm", "mountain"),
    "farm": ("horse", "cow", "barn", "wheat"),
    "city": ("street", "tower", "bridge", "train"),
}
STYLES = (
    *("red", "old", "quiet", "golden", "dark", "happy", "broken", "secret"),
    *("young", "wild", "silver", "lonely", "tiny", "holy", "angry", "blue"),
)
TEMPLATE = "{title} {genre}"
_STARTS_STREAM, _ORDER_STREAM = 1, 2
_DAY = 86_400


@dataclass(frozen=True, eq=False)
class Planted:
    """The data and the rule behind it.

    Items are all pairs of a topic and a style, and both can be read in their text. The topics follow each other in a ring. A user has one
    style and goes round the ring: after an item comes the item of the next topic in the same style. So

    - the last item names the next one, and ``oracle`` ranks it first: NDCG and recall are 1 without cold items;
    - where ``users`` is a multiple of topics times styles, every item is used equally often and popularity knows nothing;
    - the text of an item that nobody has used yet names its topic and its style, which other items share: cold items can be predicted.

    topic, style: (items,) int64
    """

    interactions: Interactions
    topic: np.ndarray
    style: np.ndarray

    @property
    def topics(self) -> int:
        """How many topics the ring has."""
        return int(self.topic.max()) + 1

    def oracle(self, history: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the scores that the rule gives after ``history`` (oldest first): (items,) float64.

        The same style comes before all others, and within it what lies fewer steps ahead. An empty history scores all items alike.
        """
        if not len(history):
            return np.zeros(len(self.topic))
        last = int(history[-1])
        ahead = (self.topic - self.topic[last] - 1) % self.topics
        return np.where(self.style == self.style[last], 1.0 / (1.0 + ahead), 0.0)


def planted(users: int = 160, topics: int = 10, styles: int = 8, events: int = 9, seed: int = 0) -> Planted:
    """Make a planted data set; same arguments, same data.

    users: how many; best a multiple of topics × styles, so that every item is used equally often
    topics: the length of the ring, 3 to 12
    styles: 2 to 16; there are topics × styles items
    events: of every user, at least 3 and at most ``topics``, so that no item is used twice
    """
    for name, value, least, most in (
        ("users", users, 2, None),
        ("topics", topics, 3, len(TOPICS)),
        ("styles", styles, 2, len(STYLES)),
        ("events", events, 3, topics),
        ("seed", seed, 0, None),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
            bounds = f"between {least} and {most}" if most is not None else f"of {least} or more"
            raise CompressRecError(f"{name} of the planted data must be a whole number {bounds}, but {value!r} came")
    # numbers are shuffled, so that the order of items or users tells nothing
    place = np.random.default_rng([seed, _ORDER_STREAM]).permutation(topics * styles)
    topic, style = place % topics, place // topics
    number = np.empty(topics * styles, dtype=np.int64)
    number[place] = np.arange(topics * styles)
    start = np.random.default_rng([seed, _STARTS_STREAM])
    walk = np.arange(users) % (topics * styles)
    first_day = start.integers(0, 100, size=users)
    walk = start.permutation(walk)
    steps = np.arange(events)
    used = number[((walk % topics)[:, None] + steps) % topics + (walk // topics)[:, None] * topics]
    moments = (first_day[:, None] + steps) * float(_DAY)

    names = list(TOPICS)[:topics]
    titles = [f"{STYLES[s]} {' '.join(_pair(TOPICS[names[t]], s))}" for t, s in zip(topic, style, strict=True)]
    digits = len(str(topics * styles))
    ids = [f"i{index:0{digits}d}" for index in range(topics * styles)]
    raw = RawTables(
        name="planted",
        what="the planted events",
        item_what="the planted items",
        users=pl.Series(np.repeat([f"u{user}" for user in range(users)], events).tolist(), dtype=pl.String),
        items=pl.Series([ids[item] for item in used.ravel()], dtype=pl.String),
        times=moments.ravel(),
        ratings=None,
        item_ids=pl.Series(ids, dtype=pl.String),
        catalogue=pl.DataFrame({"title": titles, "genre": [names[t] for t in topic]}),
        defaults={"template": TEMPLATE},
        notes=("planted data: made up, with a known rule; its figures say nothing about real users",),
    )
    return Planted(assemble(raw, {}), topic, style)


def planted_from(settings: Mapping[str, Any]) -> Planted:
    """Make what the ``[data]`` table of a study file describes: ``users``, ``topics``, ``styles``, ``events`` and ``seed``."""
    return planted(**{key: settings[key] for key in ("users", "topics", "styles", "events", "seed") if key in settings})


def _pair(words: Sequence[str], style: int) -> tuple[str, str]:
    """Return two different words of a topic: which, hangs on the style, so that texts of a topic differ in more than one word."""
    first = style % len(words)
    return words[first], words[(first + 1 + (style // len(words)) % (len(words) - 1)) % len(words)]
