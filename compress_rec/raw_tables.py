"""Events and a catalogue as plain columns of text, before anything is filtered, and the reader of a user's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from compress_rec.errors import CompressRecError
from compress_rec.tables import numbers, pick, read_table, times


@dataclass(frozen=True)
class Dropped:
    """What was left out, how often, and why."""

    reason: str
    count: int


@dataclass(frozen=True, eq=False)
class RawTables:
    """What a reader found: plain columns, nothing filtered yet.

    what, item_what: how messages name the two tables
    users, items: (events,) ids as text, in file order
    item_ids: (items,) ids as text
    catalogue: (items,) rows of attributes as text
    defaults: settings that this set has unless the study says otherwise
    """

    name: str
    what: str
    item_what: str
    users: pl.Series
    items: pl.Series
    times: np.ndarray | None
    ratings: np.ndarray | None
    item_ids: pl.Series
    catalogue: pl.DataFrame
    defaults: Mapping[str, Any]
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()


_TEXT = (
    "items_separator",
    "items_encoding",
    "interactions",
    "items",
    "user",
    "item",
    "time",
    "rating",
    "item_id",
    "separator",
    "encoding",
    "time_format",
)


def read_own(settings: Mapping[str, Any]) -> RawTables:
    """Read the two tables that ``settings`` maps; see ``compress_rec.interactions.load`` for the keys."""
    for key in ("interactions", "items", "user", "item"):
        if key not in settings:
            raise CompressRecError(
                f"[data] needs '{key}' for tables of one's own (interactions and items are files, user and item are columns), or name = "
                '"ml-100k" for a known set'
            )
    for key in (*_TEXT, "template", "path", "name"):
        if key in settings and not isinstance(settings[key], str):
            raise CompressRecError(f"[data] {key} must be text, but {settings[key]!r} came: write it in quotes")
    separator, encoding = settings.get("separator", ","), settings.get("encoding", "utf-8")
    folder = Path(settings.get("path", "."))
    events = read_table(folder / settings["interactions"], separator=separator, encoding=encoding)
    item_separator = settings.get("items_separator", separator)
    catalogue = read_table(folder / settings["items"], separator=item_separator, encoding=settings.get("items_encoding", encoding))
    what, item_what = settings["interactions"], settings["items"]
    users = pick(events, settings["user"], what, "user", separator)
    items = pick(events, settings["item"], what, "item", separator)
    moment = rating = None
    if "time" in settings:
        moment = times(pick(events, settings["time"], what, "time", separator), what, settings.get("time_format"))
    if "rating" in settings:
        rating = numbers(pick(events, settings["rating"], what, "rating", separator), what, "rating")
    key = settings.get("item_id", settings["item"])
    ids = pick(catalogue, key, item_what, "item_id", item_separator)
    others = [name for name in catalogue.columns if name != key]
    if not others:
        raise CompressRecError(f"{item_what} has no column beside the id '{key}', but an item needs a text: add one, such as its title")
    return RawTables(
        name=settings.get("name", Path(what).stem),
        what=what,
        item_what=item_what,
        users=users,
        items=items,
        times=moment,
        ratings=rating,
        item_ids=ids,
        catalogue=catalogue,
        defaults={"template": " ".join(f"{{{name}}}" for name in others)},
    )
