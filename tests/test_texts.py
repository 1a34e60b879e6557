"""Texts of items and of histories."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress_rec.errors import CompressRecError
from compress_rec.interactions import Interactions
from compress_rec.template import columns_of, render
from compress_rec.texts import history_text, item_texts

MOVIE = "{title} ({year}) {genres}"


@pytest.mark.parametrize(
    ("template", "attributes", "text"),
    [
        (
            MOVIE,
            {"title": "Toy Story", "year": "1995", "genres": "Animation Children's Comedy"},
            "Toy Story (1995) Animation Children's Comedy",
        ),
        (MOVIE, {"title": " Toy\t Story\n", "year": "", "genres": "Comedy "}, "Toy Story Comedy"),
        (MOVIE, {"title": "Toy Story", "year": "1995", "genres": ""}, "Toy Story (1995)"),
        (MOVIE, {"title": "", "year": " ", "genres": "\n"}, ""),
        (MOVIE, {}, ""),
        ("{title}, {brand}; {size}", {"title": "Milk", "brand": "", "size": "1 l"}, "Milk,; 1 l"),
        ("{title} [{brand}] {{x}}", {"title": "Milk"}, "Milk {x}"),
        ("{full name}", {"full name": "a b"}, "a b"),
        ("{a} {a}", {"a": "x"}, "x x"),
        ("{a}", {"a": "{b}"}, "{b}"),
    ],
)
def test_render(template: str, attributes: dict[str, str], text: str) -> None:
    assert render(template, attributes) == text


@given(st.text(), st.text())
def test_render_is_clean_whatever_the_attributes(title: str, year: str) -> None:
    text = render("{title} ({year})", {"title": title, "year": year})
    assert text == " ".join(text.split())
    assert bool(text) >= bool(title.strip())


@pytest.mark.parametrize("template", ["title", "", "{}", "{title", "{title!r}", "{title:>5}", "{0:d}"])
def test_templates_that_cannot_be_read(template: str) -> None:
    with pytest.raises(CompressRecError, match=r"^the template .* '?\{title\} \(\{year\}\) \{genres\}'$"):
        columns_of(template)


def made(titles: list[str]) -> Interactions:
    return Interactions(
        name="made",
        users=("a", "b"),
        items=tuple(f"i{index}" for index in range(len(titles))),
        attributes=tuple({"title": title, "year": "1995"} for title in titles),
        template="{title}",
        event_users=np.array([0, 1]),
        event_items=np.array([0, 0]),
    )


def test_item_texts_by_the_datas_own_template_or_another() -> None:
    data = made(["One", "Two  two"])
    assert item_texts(data) == ("One", "Two two")
    assert item_texts(data, "{title} ({year})") == ("One (1995)", "Two two (1995)")


def test_a_template_with_an_unknown_column() -> None:
    sentence = "the template '{titel}' names the column 'titel', which the items of made lack; did you mean 'title'? known are title, year"
    with pytest.raises(CompressRecError, match=re.escape(sentence)):
        item_texts(made(["One"]), "{titel}")


def test_an_item_without_text_is_named() -> None:
    with pytest.raises(
        CompressRecError, match="the item 'i1' of made has no text in title: name more columns in it, or load the data with"
    ):
        item_texts(made(["One", " "]))


def test_history_text_is_most_recent_first() -> None:
    assert history_text(["a", "b", "c"]) == "c; b; a"
    assert history_text(["a", " b  b", "c"], last=2, separator=" | ") == "c | b b"
    assert history_text([]) == ""
    assert history_text(("a",), last=99) == "a"


def test_history_text_needs_an_item() -> None:
    with pytest.raises(CompressRecError, match="a history text needs at least one item, but last = 0 came"):
        history_text(["a"], last=0)
