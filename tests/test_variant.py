"""Saving, loading and compressing models, and what is refused on the way."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from compress_rec.errors import CompressRecError
from compress_rec.golden import GOLDEN_TEXTS
from compress_rec.recipe import Step, read_plan
from compress_rec.recipes.quantize_int8 import QuantizeInt8
from compress_rec.variant import Variant, compress, load, size_on_disk
from tests.exports.shapes import all_shapes, only, with_encoder
from tests.models import small_histories, small_lessons, small_texts, small_variant

ROLES = ("item", "behaviour", "text")


@pytest.mark.parametrize("name", all_shapes())
def test_a_saved_variant_loads_as_it_was(name: str, tmp_path: Path) -> None:
    variant = all_shapes()[name]
    again = load(variant.save(tmp_path / "variant"))
    for role in ROLES:
        assert torch.equal(again.encode(small_texts(6), role), variant.encode(small_texts(6), role))
    assert (again.name, again.steps, again.towers.roles) == (variant.name, variant.steps, variant.towers.roles)
    assert again.towers.history == variant.towers.history
    assert torch.equal(again.towers.recency, variant.towers.recency)  # type: ignore[arg-type]
    assert again.tensors().keys() == variant.tensors().keys()
    for place, tensor in variant.tensors().items():
        assert again.tensors()[place].dtype == tensor.dtype
        assert torch.equal(again.tensors()[place], tensor)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = small_variant().save(tmp_path / "a"), small_variant().save(tmp_path / "b")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [path for path in files if (first / path).read_bytes() != (second / path).read_bytes()] == []
    assert len(files) == 6


def test_a_tower_that_serves_three_roles_is_stored_once(tmp_path: Path) -> None:
    folder = small_variant().save(tmp_path / "variant")
    numbers = sum(tensor.numel() for tensor in small_variant().tensors().values())
    sizes = size_on_disk(folder)
    assert 4 * numbers <= sizes["tensors"] <= 4 * numbers + 10_000
    assert sizes["tokenizer"] == (folder / "tokenizers" / "both" / "tokenizer.json").stat().st_size


def test_a_plan_makes_a_variant_and_leaves_the_first_one(tmp_path: Path) -> None:
    reference = small_variant()
    before = {name: tensor.clone() for name, tensor in reference.tensors().items()}
    plan = [{"recipe": "drop_layers", "keep": 2}, {"recipe": "quantize_int8", "tower": "user"}]
    variant = compress(reference, plan, {"item": small_texts(12), "text": small_histories(6)}, name="small")
    assert variant.name == "small"
    assert [step.to_json() for step in variant.steps] == [step.to_json() for step in read_plan(plan)]
    assert len(variant.towers.towers) == 2
    assert variant.towers.tower_of("item").encoder.config.formats == {}
    assert variant.towers.tower_of("text").encoder.config.formats
    assert all(torch.equal(tensor, before[name]) for name, tensor in reference.tensors().items())
    assert size_on_disk(variant.save(tmp_path / "small"))["tensors"] > 0
    again = load(tmp_path / "small")
    assert again.steps == variant.steps
    assert torch.equal(again.encode(small_texts(4), "text"), variant.encode(small_texts(4), "text"))


def test_compress_is_reproducible_and_named_by_its_plan() -> None:
    variants = [compress(small_variant(), ["factorize", "quantize_int8"], small_texts(12)) for _ in range(2)]
    assert variants[0].name == "factorize → quantize_int8"
    first, second = (variant.tensors() for variant in variants)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pairs_are_texts_to_learn_from() -> None:
    pairs = [(history, item) for history, item in zip(small_histories(6), small_texts(6), strict=True)]
    variant = compress(small_variant(), ["quantize_int8"], [], pairs)
    assert torch.isfinite(variant.encode(small_texts(3), "text")).all()


def test_steps_one_by_one_are_a_plan() -> None:
    reference = small_variant()
    lessons = small_lessons(reference, items=12)
    one = reference.then(Step(QuantizeInt8()), lessons)
    texts = {"item": small_texts(12), "behaviour": small_texts(12), "text": small_histories()}
    assert torch.equal(one.encode(small_texts(3)), compress(reference, [QuantizeInt8()], texts).encode(small_texts(3)))


def test_what_compress_refuses() -> None:
    reference, texts = small_variant(), small_texts(6)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: compress(reference, ["quantise_int8"], texts), "no recipe called 'quantise_int8'; did you mean 'quantize_int8'"),
        (lambda: compress(reference, [{"recipe": "drop_layers", "kep": 2}], texts), "no option 'kep'; did you mean 'keep'"),
        (lambda: compress(reference, [{"recipe": "quantize_int8", "tower": "left"}], texts), "must be 'both', 'user' or 'item'"),
        (lambda: compress(reference, "quantize_int8", texts), "a plan is a list of steps"),
        (lambda: compress(reference, ["quantize_int8"], "red river"), "a single string came"),
        (lambda: compress(reference, ["quantize_int8"], []), "there are no training texts"),
        (lambda: compress(reference, ["quantize_int8"], ["red", 3]), "text 1 of the role 'item' should be a string, but int came"),  # type: ignore[list-item]
        (lambda: compress(reference, ["quantize_int8"], {"items": texts}), "no role called 'items'; did you mean 'item'"),
        (lambda: compress(reference, ["quantize_int8"], texts, [("only one",)]), "pair 0 should be"),  # type: ignore[list-item]
        (
            lambda: compress(reference, [{"recipe": "drop_layers", "keep": 9}], texts),
            "the step 'drop_layers.*' after the uncompressed model",
        ),
    ]
    for call, sentence in cases:
        with pytest.raises(CompressRecError, match=sentence) as refusal:
            call()
        assert "\n" not in str(refusal.value)


def _nan(variant: Variant) -> Variant:
    encoder = only(variant).encoder
    tensors = {name: tensor.clone() for name, tensor in encoder.tensors().items()}
    tensors["layers.0.up.weight"][0, 0] = float("nan")
    return with_encoder(variant, encoder.rebuilt(encoder.config, tensors))


def test_nan_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="encodes to NaN or infinity in the role 'item' and was not saved"):
        _nan(small_variant()).save(tmp_path / "variant")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_variant().save(tmp_path_factory.mktemp("saved") / "variant")


def _edit(name: str, change: Callable[[Any], Any]) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(change(value)))

    return edit


def _cut(name: str, share: float = 0.5) -> Callable[[Path], Any]:
    def cut(folder: Path) -> None:
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: int(len(whole) * share)])

    return cut


def _tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        tensors = load_file(folder / "tensors.safetensors")
        change(tensors)
        save_file(tensors, folder / "tensors.safetensors")

    return edit


def _without(*keys: str) -> Callable[[Any], Any]:
    return lambda value: {key: kept for key, kept in value.items() if key not in keys}


UP = "both.encoder.layers.0.up.weight"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "tensors cut": (_cut("tensors.safetensors", 0.9), r"tensors\.safetensors cannot be read .* it is missing or cut off"),
    "tensors cut in the head": (_cut("tensors.safetensors", 0.001), "it is missing or cut off"),
    "tensors empty": (_cut("tensors.safetensors", 0), "it is missing or cut off"),
    "tensors missing": (lambda folder: (folder / "tensors.safetensors").unlink(), "it is missing or cut off"),
    "golden texts missing": (_edit("golden.json", _without("texts")), "has 0 golden texts and 5 golden vectors"),
    "golden missing": (lambda folder: (folder / "golden.safetensors").unlink(), r"golden\.safetensors cannot be read"),
    "a tensor missing": (_tensors(lambda tensors: tensors.pop(UP)), r"the tensor 'layers\.0\.up\.weight' is missing"),
    "a tensor of another shape": (
        _tensors(lambda tensors: tensors.update({UP: torch.zeros(60, 32)})),
        r"'layers\.0\.up' should be 64×32 by the configuration, but its tensors make 60×32",
    ),
    "a tensor changed": (_tensors(lambda tensors: tensors[UP].mul_(-1)), "does not do what it did when it was saved"),
    "NaN": (_tensors(lambda tensors: tensors[UP][0].fill_(float("nan"))), "does not do what it did when it was saved"),
    "tokenizer missing": (lambda folder: shutil.rmtree(folder / "tokenizers"), "has no tokenizer"),
    "tokenizer cut": (_cut("tokenizers/both/tokenizer.json"), "the tokenizer .* cannot be read"),
    "config cut": (_cut("config.json"), "cannot be read as JSON"),
    "config lacks towers": (_edit("config.json", _without("towers")), "is incomplete or damaged"),
    "config lacks roles": (_edit("config.json", _without("roles")), "is incomplete or damaged"),
    "steps missing": (lambda folder: (folder / "steps.json").unlink(), "is incomplete or damaged"),
    "steps cut": (lambda folder: (folder / "steps.json").write_text("[{"), "is incomplete or damaged"),
    "an unknown recipe": (_edit("steps.json", lambda steps: [{"recipe": "quantum"}]), "there is no recipe called 'quantum'"),
    "a newer format": (_edit("config.json", lambda value: {**value, "compress_rec": 99}), "of format 1, but its config.json says 99"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_folder_gets_one_sentence(fault: str, saved: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / "variant"))
    break_it, sentence = BROKEN[fault]
    break_it(folder)
    with pytest.raises(CompressRecError, match=sentence) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="is no folder: a saved variant or a Hugging Face model was wanted; check the path"):
        load(tmp_path / "nowhere")


def _fails(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _safetensors_fails(*_: object, **__: object) -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("os.replace", _fails),
        ("pathlib.Path.write_text", _fails),
        ("compress_rec.variant.save_file", _fails),
        ("compress_rec.variant.save_file", _safetensors_fails),
    ],
)
def test_a_full_disk_leaves_what_was_there(place: str, fault: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_variant(0).save(tmp_path / "old")
    wanted = small_variant(0).encode(GOLDEN_TEXTS)
    with monkeypatch.context() as patched:
        patched.setattr(place, fault)
        for goal in ("old", "new"):
            with pytest.raises(CompressRecError, match=r"could not be written: .*No space left on device.*; nothing was changed there"):
                small_variant(1).save(tmp_path / goal)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert torch.equal(load(tmp_path / "old").encode(GOLDEN_TEXTS), wanted)


def test_a_rename_that_fails_half_way_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_variant(0).save(tmp_path / "old")
    rename, calls = os.replace, []

    def second_fails(source: Path, goal: Path) -> None:
        calls.append(goal)
        if len(calls) == 2:
            _fails()
        rename(source, goal)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", second_fails)
        with pytest.raises(CompressRecError, match="nothing was changed there"):
            small_variant(1).save(tmp_path / "old")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert torch.equal(load(tmp_path / "old").encode(GOLDEN_TEXTS), small_variant(0).encode(GOLDEN_TEXTS))


def test_a_saved_variant_is_replaced_and_anything_else_is_left(tmp_path: Path) -> None:
    small_variant(0).save(tmp_path / "variant")
    small_variant(1).save(tmp_path / "variant")
    assert torch.equal(load(tmp_path / "variant").encode(GOLDEN_TEXTS), small_variant(1).encode(GOLDEN_TEXTS))
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for taken in ("file", "mine"):
        with pytest.raises(CompressRecError, match="holds something else than a saved variant and was left as it is"):
            small_variant().save(tmp_path / taken)
    with pytest.raises(CompressRecError, match="could not be written"):
        small_variant().save(tmp_path / "file" / "variant")
    assert (tmp_path / "file").read_text() == "x"
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_ctrl_c_while_saving_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("compress_rec.variant.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        small_variant().save(tmp_path / "variant")
    assert list(tmp_path.iterdir()) == []
