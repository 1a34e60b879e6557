"""A study file is checked whole before any long work; whatever cannot be used is refused in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from compress_rec.baseline import BASELINES
from compress_rec.errors import CompressRecError
from compress_rec.measure import MEASURES
from compress_rec.recipes.factorize import Factorize
from compress_rec.recipes.quantize_int8 import QuantizeInt8
from compress_rec.report import REFERENCE
from compress_rec.study import DEFAULT_MEASURES, STATIC_AVERAGE, TABLES, ZERO_SHOT, parse, read
from compress_rec.teacher import TeacherSettings
from compress_rec.training import FitSettings

ROOT = Path(__file__).parent.parent
PLANTED = {"name": "planted"}
PARTS = ", ".join(sorted(TABLES))


def refusal(table: Mapping[str, Any]) -> str:
    with pytest.raises(CompressRecError) as caught:
        parse({"data": PLANTED, **table})
    return str(caught.value)


def test_everything_but_the_data_has_a_default() -> None:
    study = parse({"data": PLANTED}, "mine")
    assert (study.name, study.seed, study.threads, study.show) == ("mine", 0, 0, 3)
    assert (study.teacher, study.fit, study.fine_tune) == (TeacherSettings(), FitSettings(), True)
    assert study.model == {"name": "minilm-l6"}
    assert [measure.label for measure in study.measures] == [MEASURES.build(name).label for name in DEFAULT_MEASURES]
    assert [baseline.name for baseline in study.tables] == ["popularity", "id_lookup", "attribute_ridge"]
    assert study.zero_shot
    assert study.static_average
    assert (study.plans, study.gates, study.budget) == ({}, {}, {})


def test_what_is_written_is_what_is_built() -> None:
    study = parse(
        {
            "data": PLANTED,
            "name": "other",
            "seed": 7,
            "model": {"path": "models/mine"},
            "fit": {"fine_tune": False, "passes": 3, "learning_rate": 1},
            "teacher": {"epochs": 2},
            "lesson": {"histories": 9},
            "baselines": {"tables": ["popularity"], "zero_shot": False, "static_average": False},
            "variants": {"int8": "quantize_int8", "two": [{"recipe": "factorize", "keep": 0.5, "tower": "user"}, "quantize_int8"]},
            "measures": {"take": ["ndcg@5"]},
            "gates": {"ndcg@5": {"at_least": 0.9, "of": "reference", "variants": ["two", "popularity"]}},
            "budget": {"fit": 3},
        },
        "mine",
    )
    assert (study.name, study.seed, study.histories, study.teacher.epochs, study.fit.passes) == ("other", 7, 9, 2, 3)
    assert study.fine_tune is False
    assert study.fit.learning_rate == 1.0
    assert [step.recipe for step in study.plans["int8"]] == [QuantizeInt8()]
    first, second = study.plans["two"]
    assert (first.recipe, first.tower, second.tower) == (Factorize(keep=0.5), "user", "both")
    assert [baseline.row for baseline in study.tables] == ["popularity"]
    assert study.budget == {"fit": 3}


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"variant": {}}, f"a study file has no part 'variant'; did you mean 'variants'? known are {PARTS}"),
        ({"fit": {"pases": 3}}, "[fit] has no option 'pases'; did you mean 'passes'? known are "),
        ({"fit": {"passes": "many"}}, "option 'passes' of [fit] must be int, but 'many' came"),
        ({"fit": {"passes": True}}, "option 'passes' of [fit] must be int, but True came"),
        ({"fit": {"optimizer": "adam"}}, "option 'optimizer' of [fit] must be one of 'adamw' and 'sgd', but 'adam' came"),
        ({"fit": {"fine_tune": "no"}}, "'fine_tune' of [fit] must be true or false, but 'no' came"),
        ({"fit": 3}, "[fit] of the study file must be a table, but 3 came"),
        ({"data": "ml-100k"}, "[data] of the study file must be a table, but 'ml-100k' came"),
        ({"teacher": {"epoch": 1}}, "[teacher] has no option 'epoch'; did you mean 'epochs'? known are "),
        ({"seed": "3"}, "'seed' of the study file must be of type int, but '3' came"),
        ({"show": True}, "'show' of the study file must be of type int, but True came"),
        ({"name": 3}, "'name' of the study file must be of type str, but 3 came"),
        ({"lesson": {"history": 3}}, "[lesson] has no option 'history'; did you mean 'histories'? known are histories"),
        ({"lesson": {"histories": 0.5}}, "'histories' of [lesson] must be of type int, but 0.5 came"),
        ({"lesson": {"histories": -1}}, "'histories' of [lesson] must be at least 0, but -1 came"),
        (
            {"fit": {"method": "softmax", "batch": 1}},
            "option 'batch' of [fit] must be at least 2 for the method 'softmax', but 1 came: others are negatives",
        ),
        ({"budget": {"fitt": 1}}, "[budget] has no option 'fitt'; did you mean 'fit'? known are data, fit, measures, report, variants"),
        ({"baselines": {"tables": ["popularty"]}}, "there is no baseline called 'popularty'; did you mean 'popularity'? known are "),
        ({"baselines": {"zero_shot": 1}}, "'zero_shot' of [baselines] must be of type bool, but 1 came"),
        ({"measures": {"take": ["ndcgs@10"]}}, "there is no measure called 'ndcgs'; did you mean 'ndcg'? known are "),
        ({"measures": {"take": ["ndcg@5", "ndcg[k=5]"]}}, "the measure 'ndcg@5' stands 2 times in the study: name it once"),
        ({"measures": {"take": "ndcg@10"}}, "'take' of [measures] must be of type list, but 'ndcg@10' came"),
        ({"model": {}}, '[model] needs either name = "minilm-l6" or path = "folder of a model", one of them'),
        ({"model": {"name": "a", "path": "b"}}, '[model] needs either name = "minilm-l6" or path = "folder of a model", one of them'),
        ({"model": {"name": "minilm-l3"}}, "there is no known model called 'minilm-l3'; did you mean 'minilm-l6'? known are minilm-l6"),
        ({"model": {"name": "ml-100k"}}, "there is no known model called 'ml-100k'; known are minilm-l6"),
        (
            {"variants": {"a": ["quantise_int8"]}},
            "the plan of the variant 'a' cannot be used: there is no recipe called 'quantise_int8'; did you mean 'quantize_int8'? known "
            "are ",
        ),
        (
            {"variants": {"a": [{"recipe": "factorize", "kep": 0.5}]}},
            "the plan of the variant 'a' cannot be used: recipe 'factorize' has no option 'kep'; did you mean 'keep'? known are ",
        ),
        (
            {"variants": {"a": [{"recipe": "quantize_int8", "tower": "left"}]}},
            "the plan of the variant 'a' cannot be used: a step's tower must be 'both', 'user' or 'item', but 'left' came",
        ),
        (
            {"variants": {"a": [{"recipe": "drop_layers", "keep": "all"}]}},
            "the plan of the variant 'a' cannot be used: option 'keep' of recipe 'drop_layers' must be ",
        ),
        (
            {"variants": {"reference": ["quantize_int8"]}},
            "the variant's name 'reference' is taken by a row of every report: choose another",
        ),
        (
            {"variants": {"zero-shot": ["quantize_int8"]}},
            "the variant's name 'zero-shot' is taken by a row of every report: choose another",
        ),
        (
            {"variants": {"static-average": ["static"]}},
            "the variant's name 'static-average' is taken by a row of every report: choose another",
        ),
        ({"variants": {"popularity": ["static"]}}, "the variant's name 'popularity' is taken by a row of every report: choose another"),
        ({"variants": {"id-lookup": ["static"]}}, "the variant's name 'id-lookup' is taken by a row of every report: choose another"),
        (
            {"variants": {"../up": ["static"]}},
            "the variant's name '../up' becomes a folder: use letters, digits, '.', '_', '+' and '-'",
        ),
        (
            {"gates": {"ndgc@10": {"at_least": 0.9}}},
            "the gate on 'ndgc@10' judges a measure that the study does not take; did you mean 'ndcg@10'? known are ",
        ),
        (
            {"gates": {"ndcg@10": {"at_least": 0.9, "variants": ["int8"]}}},
            "the gate on 'ndcg@10' names 'int8', which the report of this study will not hold; known are ",
        ),
        (
            {"gates": {"ndcg@10": {"at_least": 0.9, "of": "referense"}}},
            "the gate on 'ndcg@10' names 'referense', which the report of this study will not hold; did you mean 'reference'? known are ",
        ),
        ({"gates": {"ndcg@10": {"atleast": 0.9}}}, "the gate on 'ndcg@10' has no option 'atleast'; did you mean 'at_least'? known are "),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(table: dict[str, Any], sentence: str) -> None:
    told = refusal(table)
    assert told.startswith(sentence) if sentence.endswith(" ") else told == sentence
    assert "\n" not in told


BELOW_ONE, BELOW_ZERO = (0, "at least 1"), (-1, "at least 0")
NO_RATE, NO_SHARE = "finite and at least 0", "at least 0 and below 1"
FIT_COUNTS = ("passes", "batch", "accumulate", "evaluate_every", "dimensions", "history", "item_length", "text_length")
OUT_OF_RANGE = [
    *(("fit", key, *BELOW_ONE) for key in FIT_COUNTS),
    *(("teacher", key, *BELOW_ONE) for key in ("dimensions", "window", "epochs", "batch")),
    *(("fit", key, *BELOW_ZERO) for key in ("steps", "histories", "patience")),
    ("teacher", "patience", *BELOW_ZERO),
    *((part, "learning_rate", value, "finite and above 0") for part in ("fit", "teacher") for value in (0.0, -0.1, inf, nan)),
    *(("fit", key, -0.1, NO_RATE) for key in ("head_learning_rate", "word_learning_rate", "weight_decay", "popularity")),
    *(("teacher", key, nan, NO_RATE) for key in ("map_learning_rate", "weight_decay")),
    *((part, "dropout", value, NO_SHARE) for part in ("fit", "teacher") for value in (-0.1, 1.0, nan)),
    *(("fit", "warmup", value, "between 0 and 1") for value in (-0.1, 1.1, nan)),
]


@pytest.mark.parametrize(("part", "key", "value", "wanted"), OUT_OF_RANGE)
def test_a_number_out_of_range_is_refused(part: str, key: str, value: float, wanted: str) -> None:
    assert refusal({part: {key: value}}) == f"option '{key}' of [{part}] must be {wanted}, but {value} came"


@pytest.mark.parametrize("key", ["seed", "threads", "show"])
def test_a_count_below_zero_is_refused(key: str) -> None:
    assert refusal({key: -1}) == f"'{key}' of the study file must be at least 0, but -1 came"


def test_the_ends_of_the_ranges_can_be_used() -> None:
    fit = {"steps": 0, "histories": 0, "patience": 0, "word_learning_rate": 0, "weight_decay": 0, "dropout": 0, "warmup": 1, "batch": 1}
    study = parse({"data": PLANTED, "threads": 0, "show": 0, "lesson": {"histories": 0}, "fit": fit, "teacher": {"map_learning_rate": 0}})
    assert (study.show, study.histories, study.fit.warmup, study.teacher.map_learning_rate) == (0, 0, 1.0, 0.0)


def test_the_page_names_every_name_that_a_variant_cannot_have() -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8").partition("## `[variants]`")[2].partition("\n## ")[0]
    for name in (REFERENCE, ZERO_SHOT, STATIC_AVERAGE, *BASELINES.classes()):
        assert f"`{name}`" in page
        key = name.replace(" ", "_")
        assert (
            refusal({"variants": {key: ["quantize_int8"]}})
            == f"the variant's name '{key}' is taken by a row of every report: choose another"
        )


def test_a_study_without_data_is_refused() -> None:
    with pytest.raises(CompressRecError) as caught:
        parse({})
    assert str(caught.value) == 'the study file has no [data]: name a known set, such as name = "ml-100k", or tables of your own'


def test_a_file_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    missing = tmp_path / "no.toml"
    with pytest.raises(CompressRecError) as caught:
        read(missing)
    assert str(caught.value) == f"the study file {missing} does not exist: check the path; studies/demo.toml is one to start from"
    bad = tmp_path / "bad.toml"
    bad.write_text("seed = \n")
    with pytest.raises(CompressRecError, match=r"^the study file .*bad\.toml cannot be read as TOML \(.*line 1.*\): mend that place$"):
        read(bad)
    bad.write_bytes(b'title = "\xff\xfe"')
    with pytest.raises(CompressRecError, match="cannot be read as TOML"):
        read(bad)
    with pytest.raises(CompressRecError, match="cannot be read as TOML"):
        read(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.toml")), ids=lambda path: path.stem)
def test_the_studies_of_the_repository_can_be_used(path: Path) -> None:
    study = read(path)
    assert study.plans
    assert study.gates
