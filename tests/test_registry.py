"""Finding the modules of a plural folder, and building what a study file names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from compress_rec.errors import CompressRecError, nearest
from compress_rec.explainer import EXPLAINERS
from compress_rec.export import EXPORTS
from compress_rec.measure import MEASURES
from compress_rec.recipe import RECIPES
from compress_rec.registry import Registry, fields_of, label


class Fruit:
    """What the made-up folder holds."""

    name: ClassVar[str]


SOURCE = '''
from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from tests.test_registry import Fruit


@dataclass(frozen=True)
class {cls}(Fruit):
    """{card}

    More of it.
    """

    name: ClassVar[str] = "{name}"
    ripe: float = 0.5
    k: int = 10
    colour: Literal["red", "green"] = "red"
    parts: tuple[int, ...] = ()
    weight: int | None = None
'''


@pytest.fixture
def fruits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Fruit]]:
    """A registry over a folder of two modules, written for this test."""
    folder = tmp_path / "orchard"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "pear.py").write_text(SOURCE.format(cls="Pear", name="pear", card="A pear."))
    (folder / "apple.py").write_text(SOURCE.format(cls="Apple", name="apple", card="An apple.") + "\n\nclass Blossom:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("orchard", Fruit, "fruit")
    for name in [name for name in sys.modules if name.partition(".")[0] == "orchard"]:
        del sys.modules[name]


def refusal(work: Any) -> str:
    with pytest.raises(CompressRecError) as caught:
        work()
    return str(caught.value)


def test_a_module_in_the_folder_is_found_without_a_list(fruits: Registry[Fruit]) -> None:
    assert list(fruits.classes()) == ["apple", "pear"]
    assert fruits.cards() == {"apple": "An apple.", "pear": "A pear."}
    with pytest.raises(TypeError):
        fruits.classes()["plum"] = Fruit  # type: ignore[index]


def test_building_from_a_name_a_suffix_brackets_and_a_table(fruits: Registry[Fruit]) -> None:
    plain = fruits.build("pear")
    assert (plain.name, fields_of(plain)) == ("pear", {"ripe": 0.5, "k": 10, "colour": "red", "parts": (), "weight": None})
    assert fields_of(fruits.build("pear@5[ripe=1,colour=green]")) == fields_of(plain) | {"k": 5, "ripe": 1.0, "colour": "green"}
    assert fruits.build({"fruit": "pear", "parts": [1, 2], "weight": 3}) == fruits.find("pear")(parts=(1, 2), weight=3)
    assert fruits.build(plain) is plain
    # a whole number is a fine ripeness, but it is kept as what the option is
    assert isinstance(fruits.build("pear[ripe=1]").ripe, float)  # type: ignore[attr-defined]


@pytest.mark.parametrize("spec", ["apple", "apple@3", "apple[ripe=0.25]", "apple@7[ripe=1.0,colour=green]"])
def test_a_label_is_read_back(fruits: Registry[Fruit], spec: str) -> None:
    made = fruits.build(spec)
    assert fruits.build(label(made, made.name)) == made
    assert label(made, made.name) in (spec, f"apple@10{spec[5:]}")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("peer", "there is no fruit called 'peer'; did you mean 'pear'? known are apple, pear"),
        ("zzz", "there is no fruit called 'zzz'; known are apple, pear"),
        ("pear[rip=1]", "fruit 'pear' has no option 'rip'; did you mean 'ripe'? known are colour, k, parts, ripe, weight"),
        ("pear[k=1.5]", "option 'k' of fruit 'pear' must be int, but 1.5 came"),
        ("pear[k=true]", "option 'k' of fruit 'pear' must be int, but True came"),
        ("pear[ripe=soon]", "option 'ripe' of fruit 'pear' must be float, but 'soon' came"),
        ({"fruit": "pear", "colour": "blue"}, "option 'colour' of fruit 'pear' must be one of 'red' and 'green', but 'blue' came"),
        ({"fruit": "pear", "weight": "heavy"}, "option 'weight' of fruit 'pear' must be int or nothing, but 'heavy' came"),
        ({"ripe": 1}, 'a fruit was given as {\'ripe\': 1} without its name: write {fruit = "name", …} or just "name"'),
        (7, "a fruit is a name or a table of options, but 7 came"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(fruits: Registry[Fruit], spec: Any, sentence: str) -> None:
    assert refusal(lambda: fruits.build(spec)) == sentence


def test_an_option_without_default_must_be_given() -> None:
    @dataclass(frozen=True)
    class Bare(Fruit):
        name: ClassVar[str] = "bare"
        needed: int

    registry = Registry("nowhere", Fruit, "fruit")
    registry._found = {"bare": Bare}
    assert refusal(lambda: registry.build("bare")) == "fruit 'bare' needs the option 'needed', which was not given"


def test_unreadable_brackets_are_an_unknown_name(fruits: Registry[Fruit]) -> None:
    assert refusal(lambda: fruits.build("pear[k=1")).startswith("there is no fruit called 'pear[k=1'; did you mean 'pear'?")


def test_nearest_names_the_closest_and_all_known() -> None:
    assert nearest("quantise_int8", ["tucker", "quantize_int8"]) == "; did you mean 'quantize_int8'? known are quantize_int8, tucker"
    assert nearest("xyz", ["b", "a"]) == "; known are a, b"


def test_every_folder_holds_what_it_should() -> None:
    assert {"quantize_int8", "factorize", "distill"} <= set(RECIPES.classes())
    assert {"ndcg", "latency", "disk_bytes"} <= set(MEASURES.classes())
    assert {"onnx", "hugging_face"} == set(EXPORTS.classes())
    for registry in (RECIPES, MEASURES, EXPLAINERS, EXPORTS):
        for name, cls in registry.classes().items():
            # one stem everywhere: a name is found in the file of the same name
            assert cls.__module__.rpartition(".")[2] == name
            assert registry.cards()[name].endswith((".", "…")), f"the card of {name} is one sentence"
            assert registry.build(name) == cls()


def test_literal_hint_of_real_recipe_is_checked() -> None:
    sentence = refusal(lambda: RECIPES.build({"recipe": "factorize", "method": "magic"}))
    assert sentence.startswith("option 'method' of recipe 'factorize' must be one of ")
    assert "'plain'" in sentence
    assert Literal  # the made-up modules read their hints from this file's imports
