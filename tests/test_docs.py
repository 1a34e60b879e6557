"""The page about study files names every option with its default, as the code has it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from compress_rec.measure import MEASURES
from compress_rec.recipe import RECIPES
from compress_rec.study import TABLES
from compress_rec.teacher import TeacherSettings
from compress_rec.training import FitSettings
from compress_rec.verdict import Gate

PAGE = (Path(__file__).parent.parent / "docs" / "studies.md").read_text(encoding="utf-8")
LISTED = [("recipes", cls) for cls in RECIPES.classes().values()] + [("measures", cls) for cls in MEASURES.classes().values()]


def rows(block: str) -> list[list[str]]:
    """The cells of the table behind a marker, without its two head lines."""
    _, found, rest = PAGE.partition(f"<!-- options: {block} -->\n")
    assert found, f"docs/studies.md has lost the marker of '{block}'"
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def written(value: Any) -> str:
    return "none" if value is None else json.dumps(value)


@pytest.mark.parametrize("cls", [TeacherSettings, FitSettings, Gate])
def test_settings(cls):
    wanted = {f"`{field.name}`": written(field.default) for field in dataclasses.fields(cls) if field.name != "measure"}
    assert {name: default for name, default, _ in rows(cls.__name__)} == wanted


@pytest.mark.parametrize(("block", "cls"), LISTED, ids=[cls.name for _, cls in LISTED])
def test_options(block, cls):
    found = [options for names, options, _ in rows(block) if f"`{cls.name}`" in names]
    wanted = [f"{field.name} = {written(field.default)}" for field in dataclasses.fields(cls)]
    assert [re.findall(r"`([^`]+)`", options) for options in found] == [wanted]


@pytest.mark.parametrize("key", TABLES)
def test_every_part_of_a_study_file(key):
    assert f"## `[{key}]`" in PAGE or f"\n| `{key}` |" in PAGE


def test_imports_go_the_way_contributing_says():
    root = Path(__file__).parent.parent
    order = re.search(r"```text order\n(.*?)```", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert order is not None
    place = {name: number for number, name in enumerate(order[1].split())}
    wrong = []
    for name in place:
        path = root / "compress_rec" / name
        for file in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
            # the imports at the top level alone: those within functions are there to come late
            found = re.findall(r"^from compress_rec(?:\.(\w+))?(?:\.\w+)* import ([^\n(]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
            used = [one for module, names in found for one in ([module] if module else re.findall(r"\w+", names))]
            wrong += [f"{file.name} imports {one}" for one in used if one != name and place.get(one, -1) > place[name]]
    assert wrong == []
