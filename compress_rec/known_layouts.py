"""The file layouts of the known sets: GroupLens' own archives, RecBole's atomic files, and the Complete Journey's tables."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from compress_rec.errors import CompressRecError, nearest
from compress_rec.known_sets import KNOWN_SETS, fetch
from compress_rec.raw_tables import Dropped, RawTables
from compress_rec.tables import as_text, decode, numbers, parse_parquet, parse_text, pick
from compress_rec.template import clean, render

MOVIE_TEMPLATE = "{title} ({year}) {genres}"
PRODUCT_TEMPLATE = "{brand} {department} {category} {type} {size}"
# the order of the flags in GroupLens' u.item
_GENRES = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]
_TITLE = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)(?P<rest>.*)$")
_LEAST_HOUSEHOLDS = 20


def check_name(name: Any) -> None:
    """Refuse a name that is no known set of interactions, with the nearest one."""
    if not isinstance(name, str) or name not in _READERS:
        raise CompressRecError(
            f"[data] name = {name!r} is not a known set{nearest(str(name), [*_READERS, 'planted'])}; "
            "for tables of your own, set interactions and items"
        )


def read_known(settings: Mapping[str, Any]) -> RawTables:
    """Read the set that ``settings["name"]`` names, from ``settings["path"]`` where it is given, else from the cache or its package.

    path: a folder that holds the files (at most four folders deep, so the folder of installed packages will do), a zip archive or a wheel
    """
    name = settings["name"]
    check_name(name)
    for key in ("path", "folder"):
        if key in settings and not isinstance(settings[key], (str, Path)):
            raise CompressRecError(f"[data] {key} must be a path, but {settings[key]!r} came: write it in quotes")
    place = Path(settings["path"]) if "path" in settings else fetch(name, settings.get("folder"))
    return _READERS[name](name, Place(place))


class Place:
    """A folder or an archive in which files are found by name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_file() and path.suffix.lower() in (".zip", ".whl"):
            try:
                with zipfile.ZipFile(path) as archive:
                    self.members: dict[str, str] = {Path(member).name: member for member in reversed(archive.namelist())}
            except zipfile.BadZipFile as fault:
                raise CompressRecError(
                    f"{path} is not a whole zip archive ({fault}): take it again, or name the unpacked folder"
                ) from fault
            self.is_archive = True
        elif path.is_dir():
            self.is_archive = False
        else:
            raise CompressRecError(f"[data] path = '{path}' is neither a folder nor a .zip or .whl archive that exists: correct the path")

    def find(self, *names: str) -> str | None:
        """Return the first of ``names`` that is here."""
        return next((name for name in names if self._locate(name) is not None), None)

    def read(self, name: str) -> bytes:
        """Return the bytes of the file called ``name``; refuse where it is missing."""
        where = self._locate(name)
        if where is None:
            raise CompressRecError(f"{self.path} has no file {name}, which belongs to this set: name the folder or archive that holds it")
        if self.is_archive:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(str(where))
        return Path(where).read_bytes()

    def _locate(self, name: str) -> str | None:
        if self.is_archive:
            return self.members.get(name)
        for depth in range(5):
            found = sorted(self.path.glob("*/" * depth + name))
            if found:
                return str(found[0])
        return None


def _movielens(name: str, place: Place) -> RawTables:
    own = {"ml-100k": "u.data", "ml-1m": "ratings.dat"}[name]
    found = place.find(f"{name}.inter", own)
    if found is None:
        raise CompressRecError(f"{place.path} holds neither {name}.inter nor {own}: give the folder or archive that holds {name}")
    if found.endswith(".inter"):
        events = _table(place, found, "\t", "utf-8", typed_header=True)
        raw_items = _table(place, f"{name}.item", "\t", "utf-8", typed_header=True)
        # RecBole names the fourth column "class" in one set and "genre" in the other
        ids, title, year, genres = (raw_items[column].to_list() for column in raw_items.columns[:4])
        user, item, rating, moment = (events[column] for column in events.columns[:4])
        item_file = f"{name}.item"
    elif found == "u.data":
        events = _table(place, found, "\t", "utf-8", names=["user_id", "item_id", "rating", "timestamp"])
        raw_items = _table(place, "u.item", "|", "latin-1", names=["item_id", "full", "release", "video", "url", *_GENRES])
        ids = raw_items["item_id"].to_list()
        title, year = _titles(raw_items["full"].to_list())
        flags = raw_items.select(_GENRES).rows()
        genres = [" ".join(genre for genre, flag in zip(_GENRES, row, strict=True) if flag == "1") for row in flags]
        user, item, rating, moment = (events[column] for column in events.columns)
        item_file = "u.item"
    else:
        events = _table(place, found, "::", "utf-8", names=["user_id", "item_id", "rating", "timestamp"])
        raw_items = _table(place, "movies.dat", "::", "latin-1", names=["item_id", "full", "genres"])
        ids = raw_items["item_id"].to_list()
        title, year = _titles(raw_items["full"].to_list())
        genres = [value.replace("|", " ") for value in raw_items["genres"].to_list()]
        user, item, rating, moment = (events[column] for column in events.columns)
        item_file = "movies.dat"
    what = f"{place.path}/{found}"
    return RawTables(
        name=name,
        what=what,
        item_what=f"{place.path}/{item_file}",
        users=user,
        items=item,
        times=numbers(moment, what, "time"),
        ratings=numbers(rating, what, "rating"),
        item_ids=pl.Series(ids, dtype=pl.String),
        catalogue=pl.DataFrame(
            {"title": [clean(value) for value in title], "year": year, "genres": genres},
            schema=dict.fromkeys(("title", "year", "genres"), pl.String),
        ),
        defaults={"template": MOVIE_TEMPLATE, "unused_items": "drop"},
        notes=(KNOWN_SETS[name].terms,),
    )


def _table(
    place: Place, file: str, separator: str, encoding: str, names: list[str] | None = None, typed_header: bool = False
) -> pl.DataFrame:
    what = f"{place.path}/{file}"
    text = decode(place.read(file), encoding, what)
    table = parse_text(text, separator=separator, what=what, names=names, quote=None, typed_header=typed_header)
    wanted = 4 if names is None else len(names)
    if table.width < wanted:
        raise CompressRecError(f"{what} has {table.width} columns, but {wanted} were wanted: give the file as its makers lay it out")
    return table


def _titles(full: list[str]) -> tuple[list[str], list[str]]:
    """Take ``Title (1995)`` apart; what has no year keeps its whole text as the title."""
    matches = [(_TITLE.match(value), value) for value in full]
    title = [clean(match["title"] + " " + match["rest"]) if match else clean(value) for match, value in matches]
    return title, [match["year"] if match else "" for match, _ in matches]


def _complete_journey(name: str, place: Place) -> RawTables:
    """Products with one text are one item; an event is the first time that a household buys it.

    Kept are the items that at least 20 households bought. Lines whose product has no row in the table of products are dropped and counted.
    """
    products = parse_parquet(place.read("products.parquet"), f"{place.path}/products.parquet")
    lines = parse_parquet(place.read("transactions.parquet"), f"{place.path}/transactions.parquet")
    named = {"brand": "brand", "department": "department", "product_category": "category", "product_type": "type", "package_size": "size"}
    wanted = {"products.parquet": ("product_id", *named), "transactions.parquet": ("household_id", "product_id", "transaction_timestamp")}
    for (file, columns), table in zip(wanted.items(), (products, lines), strict=True):
        for column in columns:
            pick(table, column, f"{place.path}/{file}", "column of this set")
    products = products.select(as_text(products[column]) for column in wanted["products.parquet"]).rename(named)
    # rows that differ in white space alone give one text, so the texts themselves are compared
    distinct = products.select(named.values()).unique(maintain_order=True)
    texts = pl.Series("text", [render(PRODUCT_TEMPLATE, row) for row in distinct.iter_rows(named=True)], dtype=pl.String)
    products = products.join(distinct.with_columns(texts), on=list(named.values()), maintain_order="left")
    lines = lines.with_row_index("row").with_columns(as_text(lines["product_id"]))
    events = lines.join(products.select("product_id", "text"), on="product_id", how="inner", maintain_order="left")
    dropped = [Dropped("lines on products that products.parquet does not list", lines.height - events.height)]
    # the catalogue's order is the order of the products, so that it does not hang on who bought what
    catalogue = products.unique("text", keep="first", maintain_order=True).filter(pl.col("text").is_in(events["text"].unique().implode()))
    events = events.join(catalogue.select("text", pl.col("product_id").alias("item")), on="text", how="inner", maintain_order="left")
    return RawTables(
        name=name,
        what=f"{place.path}/transactions.parquet",
        item_what=f"{place.path}/products.parquet",
        users=events["household_id"].cast(pl.String),
        items=events["item"],
        times=events["transaction_timestamp"].dt.epoch("s").to_numpy().astype("float64"),
        ratings=None,
        item_ids=catalogue["product_id"],
        catalogue=catalogue.select(list(named.values())),
        defaults={"template": PRODUCT_TEMPLATE, "min_item_users": _LEAST_HOUSEHOLDS, "unused_items": "drop"},
        dropped=tuple(entry for entry in dropped if entry.count),
        notes=(KNOWN_SETS[name].terms, "products with the same text are one item; an event is a household's first purchase of it"),
    )


_READERS: Mapping[str, Callable[[str, Place], RawTables]] = {
    "ml-100k": _movielens,
    "ml-1m": _movielens,
    "complete-journey": _complete_journey,
}
