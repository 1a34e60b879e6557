"""The catalogue: what it accepts, what it refuses, and that a folder gives the same bits."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from compress_rec import op
from compress_rec.errors import CompressRecError
from compress_rec.index import CosineIndex
from compress_rec.index_formats import FORMATS

tiers = pytest.mark.parametrize("tier", op.tiers())
formats = pytest.mark.parametrize("format", FORMATS)
exact_formats = pytest.mark.parametrize("format", [name for name, kept_as in FORMATS.items() if kept_as.exact])

ITEMS = torch.randn((60, 12), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
QUERIES = torch.randn((5, 12), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def wanted(k: int) -> torch.Tensor:
    unit = torch.nn.functional.normalize
    return (unit(QUERIES) @ unit(ITEMS).T).topk(k).indices


@tiers
@exact_formats
def test_finds_the_nearest(tier: str, format: str) -> None:
    with op.force(tier):
        scores, ids = CosineIndex(ITEMS, format).search(QUERIES, 7)
    assert torch.equal(ids, wanted(7))
    exact = torch.nn.functional.cosine_similarity(QUERIES[:, None], ITEMS[ids], dim=2)
    torch.testing.assert_close(scores, exact.float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.float(),
        lambda x: x.numpy(),
        lambda x: x.numpy().astype(">f8"),
        lambda x: np.asfortranarray(x.numpy().astype(np.float32)),
        lambda x: x.flip(0).numpy()[::-1],
        lambda x: x.T.contiguous().T,
        lambda x: torch.stack([x, x], dim=2)[..., 0],
        lambda x: x * 1e200,
        lambda x: x * 1e-200,
        lambda x: x.clone().requires_grad_(),
    ],
    ids=["float32", "numpy", "big-endian", "fortran", "negative strides", "transposed", "strided", "huge", "tiny", "leaf"],
)
def test_takes_any_floats(convert) -> None:  # type: ignore[no-untyped-def]
    index = CosineIndex(convert(ITEMS))
    with torch.no_grad():
        assert torch.equal(index.search(convert(QUERIES), 7)[1], wanted(7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_takes_half_precision(dtype: torch.dtype) -> None:
    """The search is that of the rounded values, in float32."""
    items, queries = ITEMS.to(dtype), QUERIES.to(dtype)
    assert torch.equal(CosineIndex(items).search(queries, 9)[1], CosineIndex(items.double()).search(queries.double(), 9)[1])


def test_read_only_and_later_changed_items_do_not_matter() -> None:
    array = ITEMS.numpy().copy()
    array.setflags(write=False)
    assert torch.equal(CosineIndex(array).search(QUERIES, 3)[1], wanted(3))
    items = ITEMS.float().clone()
    index = CosineIndex(items)
    items.zero_()
    assert torch.equal(index.search(QUERIES, 3)[1], wanted(3))


@pytest.mark.parametrize("kind", [list, tuple, set, np.array, torch.tensor])
def test_excludes(kind) -> None:  # type: ignore[no-untyped-def]
    best = wanted(5).tolist()
    scores, ids = CosineIndex(ITEMS).search(QUERIES, 4, exclude=[kind(row[:1]) for row in best])
    assert ids.tolist() == [row[1:] for row in best]
    assert torch.isfinite(scores).all()


def test_excluding_nothing_and_nearly_everything() -> None:
    index = CosineIndex(ITEMS)
    assert torch.equal(index.search(QUERIES, 4, exclude=[[]] * 5)[1], wanted(4))
    scores, ids = index.search(QUERIES[:1], 3, exclude=[range(59)])
    assert ids.tolist() == [[59, -1, -1]]
    assert scores[0, 1:].tolist() == [-math.inf, -math.inf]


@formats
def test_facts(format: str) -> None:
    index, kept_as = CosineIndex(ITEMS, format), FORMATS[format]
    assert (len(index), index.dimensions, index.format) == (60, 12, format)
    assert repr(index) == (
        f"CosineIndex(items=60, dimensions=12, format='{format}', backend='{op.backend(kept_as.op)}', bytes_per_dimension={kept_as.bytes})"
    )
    tolerance = 1e-6 if kept_as.exact else 0.02  # half of one of the 112 steps to an item's largest number, and what trimming takes
    torch.testing.assert_close(index.vectors.double(), torch.nn.functional.normalize(ITEMS), rtol=0, atol=tolerance)


def test_the_bytes_of_a_dimension_are_counted() -> None:
    """At a width where what is stored once a row hardly counts."""
    for name, kept_as in FORMATS.items():
        stored = CosineIndex(torch.ones(16, 4096), name).stored
        held = sum(tensor.numel() * tensor.element_size() for tensor in stored.values())
        assert kept_as.bytes <= held / (16 * 4096) < kept_as.bytes + 0.01


def test_a_bound_is_no_wider_than_rounding() -> None:
    """It is stated, so a mistake in it must show in either direction: a score that is off by more, or a bound no one can use."""
    generator = torch.Generator().manual_seed(4)
    for width in (1, 12, 384):
        items, queries = (torch.randn((500, width), generator=generator, dtype=torch.float64) for _ in range(2))
        scores, ids, bounds = CosineIndex(items).search(queries, 500, bounds=True)
        unit = torch.nn.functional.normalize
        exact = (unit(queries) @ unit(items).T).gather(1, ids)
        assert bounds.unique().tolist() == pytest.approx([(width + 5) * 2.0**-24], rel=1e-4)
        assert ((scores.double() - exact).abs() <= bounds).all()


@formats
def test_save_and_load_give_the_same_bits(tmp_path: Path, format: str) -> None:
    index = CosineIndex(ITEMS, format)
    index.remove([59, 3])
    index.save(tmp_path / "index")
    again = CosineIndex.load(tmp_path / "index")
    assert torch.equal(index.vectors.view(torch.int32), again.vectors.view(torch.int32))
    assert (len(again), again.dimensions, again.format) == (58, 12, format)
    for one, two in zip(index.search(QUERIES, 58, bounds=True), again.search(QUERIES, 58, bounds=True), strict=True):
        assert torch.equal(one, two)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]
    assert again.add(ITEMS[:1]).tolist() == [60], "59 was given before"
    again.remove([0])
    assert set(again.search(QUERIES[:1], 58)[1][0].tolist()) == {*range(61)} - {0, 3, 59}


def test_the_first_version_of_a_folder_is_read(tmp_path: Path) -> None:
    unit = torch.nn.functional.normalize(ITEMS).float()
    save_file({"items": unit}, tmp_path / "index.safetensors")
    (tmp_path / "index.json").write_text(json.dumps({"version": 1, "format": "float32", "items": 60, "dimensions": 12}))
    index = CosineIndex.load(tmp_path)
    assert torch.equal(index.vectors, unit)
    assert torch.equal(index.search(QUERIES, 7)[1], wanted(7))
    assert index.add(ITEMS[:1]).tolist() == [60]


def test_saving_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    CosineIndex(ITEMS).save(tmp_path / "index")
    CosineIndex(ITEMS[:7]).save(tmp_path / "index")
    assert len(CosineIndex.load(tmp_path / "index")) == 7


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda i: CosineIndex(ITEMS, "float23"),
            f"there is no index format called 'float23'; did you mean 'float32'? known are {', '.join(sorted(FORMATS))}",
        ),
        (
            lambda i: CosineIndex(ITEMS[:0]),
            "the index needs at least one item, but (0, …) came: give the catalogue's vectors, one a row",
        ),
        (
            lambda i: CosineIndex(ITEMS[:, :0]),
            "the index needs at least one dimension, but (…, 0) came: give the catalogue's vectors, one a row",
        ),
        (
            lambda i: CosineIndex(ITEMS.index_fill(0, torch.tensor(4), math.nan)),
            "items must be finite, but row 4 holds NaN or infinity: drop or repair that row",
        ),
        (
            lambda i: i.search(QUERIES.index_fill(0, torch.tensor(2), math.inf), 1),
            "queries must be finite, but row 2 holds NaN or infinity: drop or repair that row",
        ),
        (
            lambda i: i.search(QUERIES.float().index_fill(0, torch.tensor(2), math.inf), 1),
            "cosine_top_k_panels: queries must be finite, but inf in row 2 came; drop or repair that row",
        ),
        (
            lambda i: i.search(QUERIES[0], 1),
            "queries must be floating point (queries, dimensions), but float64 (12) came: one vector a row, also for one",
        ),
        (
            lambda i: i.search(QUERIES[:, :5], 1),
            "queries must have the index's 12 dimensions, but 5 came: encode both with the same recommender",
        ),
        (lambda i: i.search(QUERIES, 61), "k must be from 1 to the 60 items of the index, but 61 came: ask for fewer"),
        (lambda i: i.search(QUERIES, 0), "k must be from 1 to the 60 items of the index, but 0 came: ask for fewer"),
        (
            lambda i: i.search(QUERIES, 1, exclude=[[1]]),
            "exclude must hold one sequence of ids a query (5), but 1 came: give an empty one where nothing is excluded",
        ),
        (
            lambda i: i.search(QUERIES[:1], 1, exclude=[[0.5]]),
            "exclude must hold whole numbers, but float32 (1) came for query 0: give item ids",
        ),
        (
            lambda i: i.search(QUERIES[:1].float(), 1, exclude=[[60]]),
            "cosine_top_k_panels: exclude must be item ids from 0 to 59, but id 60 came; leave unknown ids out",
        ),
        (
            lambda i: i.search(QUERIES[:1], 1, exclude=[["a"]]),
            "exclude must hold whole numbers, but ['a'] came for query 0: give item ids",
        ),
        (
            lambda i: i.add(ITEMS.index_fill(0, torch.tensor(4), math.nan)),
            "items must be finite, but row 4 holds NaN or infinity: drop or repair that row",
        ),
        (
            lambda i: i.add(ITEMS[:, :5]),
            "items must have the index's 12 dimensions, but 5 came: encode both with the same recommender",
        ),
        (lambda i: i.remove([1, 60]), "ids must be item ids from 0 to 59, but 60 came: leave unknown ids out"),
        (lambda i: i.remove([-1]), "ids must be item ids from 0 to 59, but -1 came: leave unknown ids out"),
        (lambda i: i.remove([1, 4, 4, 4]), "ids must be distinct, but 4 came 3 times: give each id once"),
        (
            lambda i: (i.remove([5, 7]), i.remove([6, 7])),
            "ids must be of items that are in the index, but 7 was removed before: leave removed ids out",
        ),
        (lambda i: (i.remove([5, 7]), i.search(QUERIES, 59)), "k must be from 1 to the 58 items of the index, but 59 came: ask for fewer"),
        (lambda i: i.remove([0.5]), "ids must hold whole numbers, but float32 (1) came: give item ids"),
        (lambda i: i.remove(torch.ones(60, dtype=torch.bool)), "ids must hold whole numbers, but bool (60) came: give item ids"),
        (lambda i: i.remove(3), "ids must hold whole numbers, but 3 came: give item ids"),
        (
            lambda i: CosineIndex([[1.0]]),
            "items must be a torch tensor or numpy array (items, dimensions), but list came: convert it first",
        ),
        (
            lambda i: CosineIndex(np.ones((2, 2), int)),
            "items must be floating point, but a numpy array of int64 came: convert it with .astype",
        ),
        (
            lambda i: i.search(QUERIES.float().requires_grad_(), 1),
            "cosine_top_k_panels: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
        (
            lambda i: i.search(QUERIES.clone().requires_grad_(), 1),
            "cosine_top_k_panels: queries must be a tensor without gradient, but one that requires grad came; "
            "call it under torch.no_grad(), or detach the tensor",
        ),
    ],
)
@tiers
def test_refusals(call, sentence: str, tier: str) -> None:  # type: ignore[no-untyped-def]
    index = CosineIndex(ITEMS)
    with op.force(tier), pytest.raises(CompressRecError) as refused:
        call(index)
    assert str(refused.value) == sentence


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CompressRecError, match="does not hold a readable index"):
        CosineIndex.load(tmp_path / "nowhere")
    place = tmp_path / "index"
    index = CosineIndex(ITEMS)
    index.remove([4])
    index.save(place)
    whole = (place / "index.safetensors").read_bytes()
    (place / "index.safetensors").write_bytes(whole[:-100])
    with pytest.raises(CompressRecError, match="does not hold a readable index"):
        CosineIndex.load(place)
    (place / "index.safetensors").write_bytes(whole)
    facts = json.loads((place / "index.json").read_text())
    for change, sentence in (
        ({"rows": 61}, r"must hold 'items' as float32 \(61, 12\), but float32 \(60, 12\) came"),
        ({"dimensions": 11}, r"must hold 'items' as float32 \(60, 11\), but float32 \(60, 12\) came"),
        ({"items": 60}, "must hold 60 of 60 items, but 59 came"),
        ({"rows": None}, r"must count 'rows', 'items' and 'dimensions', but \[None, 59, 12\] came"),
        ({"dimensions": -12}, r"must count 'rows', 'items' and 'dimensions', but \[60, 59, -12\] came"),
        ({"version": 9}, "must have version 2, but 9 came"),
        ({"format": "int9"}, "no index format called 'int9'"),
    ):
        (place / "index.json").write_text(json.dumps({**facts, **change}))
        with pytest.raises(CompressRecError, match=sentence):
            CosineIndex.load(place)
    (place / "index.json").write_text("[]")
    with pytest.raises(CompressRecError, match="must have version 2"):
        CosineIndex.load(place)
    (place / "index.json").write_text(json.dumps(facts))
    held = load_file(place / "index.safetensors")
    for tensors, came in (({"items": held["items"].double()}, r"float64 \(60, 12\)"), ({"others": held["items"]}, "no such tensor")):
        save_file(tensors, place / "index.safetensors")
        with pytest.raises(CompressRecError, match=rf"must hold 'items' as float32 \(60, 12\), but {came} came"):
            CosineIndex.load(place)


@pytest.mark.parametrize("format", [name for name in FORMATS if name.startswith("int8")])
def test_codes_that_no_index_has_written_are_refused(tmp_path: Path, format: str) -> None:
    """Codes so large that a kernel's 16 bits would not hold four products: searched as they are, they would be clipped."""
    CosineIndex(ITEMS, format).save(tmp_path / "index")
    place = tmp_path / "index" / "index.safetensors"
    held = load_file(place)
    save_file({**held, "codes": torch.full_like(held["codes"], 127)}, place)
    with pytest.raises(CompressRecError, match="codes must be as an index writes them, but larger ones came: save the index again"):
        CosineIndex.load(tmp_path / "index")
